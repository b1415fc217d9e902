"""Jobs that had to begin by some time, and have not: they are over, and no worker runs them any more.

A claim passes over them from that moment on; that they are stored as expired follows within half a minute. Only a job
that nobody has begun expires: whatever a worker gives back after its code has run has its time taken away
(``transition.py``).
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from ..dialects.now import DatabaseNow
from ..states import TRANSITIONS
from .batches import look_after_commit
from .database import dialect, jobs
from .facts import tell_expired
from .sequences import advance_after_commit
from .transition import move
from .wake import wake_waiting

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from ..querysets.jobs import JobQuerySet

BATCH: Final = 500
REASON: Final = "Expired: no worker has begun it in its time."


class Expired(NamedTuple):
    """How many jobs were ended, and when the next one is to be; ``None`` when no job has such a time."""

    number: int
    next_in: timedelta | None


def expire() -> Expired:
    """End up to 500 jobs whose time is over. Any number of workers may do this at once."""
    next_in = _next_in()
    if next_in is None or next_in > timedelta(0):
        return Expired(0, next_in)
    ended = dialect().in_own_transaction(_expire)
    if parents := {(row[1], row[2]) for row in ended if row[1] is not None}:
        wake_waiting(parents)
    advance_after_commit({row[3] for row in ended if row[3] is not None})
    look_after_commit(row[4] for row in ended)
    return Expired(len(ended), _next_in())


def _open() -> JobQuerySet:
    return jobs().in_status(*TRANSITIONS["expire"].sources).filter(expires_at__isnull=False)


def _expire() -> Sequence[tuple[UUID, UUID | None, str | None, str | None, UUID | None]]:
    over = _open().filter(expires_at__lte=DatabaseNow())
    found = over.order_by("expires_at").select_for_update(skip_locked=dialect().has_skip_locked)
    rows = list(found.values_list("id", "parent_id", "parent_call", "sequence_key", "batch_id")[:BATCH])
    move("expire", over.filter(id__in=[row[0] for row in rows]), last_error=REASON)
    tell_expired([row[0] for row in rows])
    return rows


def _next_in() -> timedelta | None:
    row = _open().order_by("expires_at").values_list("expires_at", DatabaseNow()).first()
    return None if row is None else row[0] - row[1]
