"""Making jobs pending whose time has come."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from ..conf import get_settings
from ..dialects.now import DatabaseNow
from ..states import CLOCKED
from .database import dialect, jobs
from .transition import move

BATCH: Final = 500


def promote() -> int:
    """Move up to 500 due jobs to their queues, earliest first, and return how many were moved."""
    return dialect().in_own_transaction(_promote)


def _promote() -> int:
    due = (
        jobs()
        .due()
        .order_by("run_at")
        .select_for_update(skip_locked=dialect().has_skip_locked)
        .values_list("id", "queue")
    )
    rows = list(due[:BATCH])
    if not rows:
        return 0
    # Of a job that waited nobody says any more what for.
    moved = move("promote", jobs().due().filter(id__in=sorted(row[0] for row in rows)))
    if get_settings().notify:
        dialect().notify(sorted({queue for _id, queue in rows}))
    return moved


def next_due() -> timedelta | None:
    """Return how long it is until the next job is due; zero or less when one is; ``None`` when none waits."""
    # Where indexes are not partial, that of due times leads with the status: one look per status reads one row each.
    looks = [CLOCKED] if dialect().has_partial_indexes else [{status} for status in CLOCKED]
    timed = jobs().filter(run_at__isnull=False)
    rows = [timed.in_status(*look).order_by("run_at").values_list("run_at", DatabaseNow()).first() for look in looks]
    return min((due_at - now for due_at, now in filter(None, rows)), default=None)
