"""The only writer of ``Job.status``: one guarded UPDATE, rendered from the table of transitions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..dialects.now import DatabaseNow
from ..states import TRANSITIONS, Actor, Status

if TYPE_CHECKING:
    from ..querysets.jobs import JobQuerySet


def move(verb: str, jobs: JobQuerySet, *, token: int | None = None, **values: Any) -> int:
    """Move those of ``jobs`` whose status allows it, and return how many were moved.

    The condition is part of the statement that writes, so a job that changed since it was read is left alone.
    A verb of the lease's owner needs the ``token`` of that lease. ``values`` are further columns to set.
    """
    rule = TRANSITIONS[verb]
    guarded = jobs.in_status(*rule.sources)
    if rule.actor is Actor.OWNER:
        if token is None:
            raise ValueError(f"{verb!r} belongs to the holder of the lease: give its token.")
        guarded = guarded.filter(token=token)
    implied: dict[str, Any] = {"status": rule.target.value}
    if Status.RUNNING in rule.sources:
        implied |= {"worker": None, "lease_expires_at": None}
    if Status.WAITING in rule.sources:
        implied["waiting_for"] = None
    if Status.PAUSED in rule.sources:
        implied["paused_from"] = None
    implied["finished_at"] = DatabaseNow() if rule.ends_life else None
    return guarded.update(**{**implied, **values})
