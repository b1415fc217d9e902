"""Deleting what retention no longer keeps, in small batches.

There is no index on finished jobs, since every job would pay for it: the primary key sorts by creation, so the
pruner walks it from the oldest job on, a window at a time, and remembers where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from django.db.models import Q

from ..conf import get_settings
from ..dialects.now import DatabaseNow
from ..ids import lowest_id_at
from ..models import Message, Worker
from ..states import FINAL, Status
from .children import still_needed
from .database import alias, dialect, jobs
from .delete import erase

WINDOW: Final = 1000
WORKERS_KEPT: Final = timedelta(days=1)


def prune(after: UUID | None) -> tuple[int, UUID | None]:
    """Look at up to 1,000 jobs beyond ``after`` and delete those past their retention.

    Returns how many were deleted and where to go on; ``None`` when the newest job old enough was reached.
    """
    settings = get_settings()
    kept = min(settings.retention_completed, settings.retention_failed)
    # By id, not by time: the id holds the time of creation, and has the index. Retention itself is decided by
    # the database's times below.
    window = jobs().filter(id__lt=lowest_id_at(dialect().now() - kept)).order_by("id")
    if after is not None:
        window = window.filter(id__gt=after)
    ids = list(window.values_list("id", flat=True)[:WINDOW])
    if not ids:
        return 0, None
    return dialect().in_own_transaction(lambda: _delete(ids)), ids[-1]


def _delete(ids: Sequence[UUID]) -> int:
    settings = get_settings()
    failed = Q(status=Status.FAILED.value, finished_at__lt=DatabaseNow() - settings.retention_failed)
    others = [status.value for status in FINAL - {Status.FAILED}]
    ended = Q(status__in=others, finished_at__lt=DatabaseNow() - settings.retention_completed)
    past = list(
        jobs()
        .filter(failed | ended, id__in=ids)
        .order_by("id")
        .select_for_update(skip_locked=dialect().has_skip_locked)
        .values_list("id", flat=True)
    )
    if past and (needed := still_needed(past)):
        past = [job_id for job_id in past if job_id not in needed]
    if past:
        erase(past)
    return len(past)


def prune_workers() -> int:
    """Delete rows of workers that stopped or were lost more than a day ago and hold nothing."""
    old = Worker.objects.using(alias()).filter(
        Q(stopped_at__lt=DatabaseNow() - WORKERS_KEPT) | Q(lease_expires_at__lt=DatabaseNow() - WORKERS_KEPT)
    )
    holding = jobs().running().values("worker_id")
    return old.exclude(id__in=holding).delete()[0]


def prune_events() -> bool:
    """Delete up to 1,000 events past their retention, the oldest; answer whether there may be more of them."""
    kept = get_settings().retention_events
    # By id, as that is the order in which they came: those that are kept are not looked at.
    events = Message.objects.using(alias()).filter(job=None).order_by("id")
    rows = list(events.values_list("id", "created_at")[:WINDOW])
    before = dialect().now() - kept
    past = [number for number, created in rows if created < before]
    if past:
        events.order_by().filter(id__in=past)._raw_delete(alias())
    return len(past) == WINDOW
