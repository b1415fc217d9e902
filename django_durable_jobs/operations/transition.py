"""The only writer of ``Job.status``: one guarded UPDATE, rendered from the table of transitions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.models import Case, CharField, F, Q, Value, When

from ..dialects.now import DatabaseNow
from ..states import TRANSITIONS, Actor, Status, Transition

if TYPE_CHECKING:
    from ..querysets.jobs import JobQuerySet


def move(verb: str, jobs: JobQuerySet, *, token: int | None = None, **values: Any) -> int:
    """Move those of ``jobs`` whose status allows it, and return how many were moved.

    The condition is part of the statement that writes, so a job that changed since it was read is left alone.
    A verb of the lease's owner needs the ``token`` of that lease. ``values`` are further columns to set.

    A job that comes to be paused remembers where it was. A running one that is to be paused becomes so here, in
    place of what the verb would make of it, unless that ends its life.
    """
    rule = TRANSITIONS[verb]
    guarded = jobs.in_status(*rule.sources)
    if rule.actor is Actor.OWNER:
        if token is None:
            raise ValueError(f"{verb!r} belongs to the holder of the lease: give its token.")
        guarded = guarded.filter(token=token)
    implied = _status(rule)
    if Status.RUNNING in rule.sources:
        implied |= {"worker": None, "lease_expires_at": None}
    if Status.WAITING in rule.sources and rule.target is not Status.PAUSED:
        implied["waiting_for"] = None
    if Status.RUNNING in rule.sources or rule.ends_life:
        implied["expires_at"] = None  # only an open job that nobody has begun can expire
    implied["finished_at"] = DatabaseNow() if rule.ends_life else None
    return guarded.update(**{**implied, **values})


def _status(rule: Transition) -> dict[str, Any]:
    """Return the status to set, after what is derived from the old one: MySQL assigns from left to right."""
    target = rule.target.value
    if rule.target is Status.PAUSED:
        # What a worker ran goes back to its queue when the job is resumed.
        was = Value(Status.PENDING.value) if Status.RUNNING in rule.sources else F("status")
        return {"paused_from": was, "status": target, "pause_requested_at": None}
    if rule.heeds_pause:
        ordered = Q(pause_requested_at__isnull=False, cancel_requested_at__isnull=True)
        return {
            "paused_from": Case(When(ordered, then=Value(target)), default=None, output_field=CharField()),
            "status": Case(When(ordered, then=Value(Status.PAUSED.value)), default=Value(target)),
            "pause_requested_at": None,
        }
    return {"paused_from": None, "status": target} if Status.PAUSED in rule.sources else {"status": target}
