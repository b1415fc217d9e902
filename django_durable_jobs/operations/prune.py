"""Deleting what retention no longer keeps, in small batches.

There is no index on finished jobs, since every job would pay for it: the primary key sorts by creation, so the
pruner walks it from the oldest job on, a window at a time, and remembers where it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import reduce
from operator import or_
from typing import Final
from uuid import UUID

from django.db.models import Q

from ..conf import Settings, get_settings
from ..dialects.now import DatabaseNow
from ..ids import lowest_id_at
from ..models import AuditEntry, Message, Worker
from ..retention import ALL_QUEUES
from ..states import FINAL, Status
from .batches import not_ended
from .children import still_needed
from .database import alias, dialect, jobs
from .delete import erase

WINDOW: Final = 1000
BEYOND: Final = 2**63 - 1
"""Greater than the number of any event."""
WORKERS_KEPT: Final = timedelta(days=1)


def prune(after: UUID | None) -> tuple[int, UUID | None]:
    """Look at up to 1,000 jobs beyond ``after`` and delete those past their retention.

    Returns how many were deleted and where to go on; ``None`` when the newest job old enough was reached.
    """
    settings = get_settings()
    lengths = (settings.retention_completed, settings.retention_failed, settings.retention.shortest)
    kept = min(length for length in lengths if length is not None)
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
    past = list(
        jobs()
        .filter(_past(get_settings()), id__in=ids)
        .order_by("id")
        .select_for_update(skip_locked=dialect().has_skip_locked)
        .values_list("id", flat=True)
    )
    if past and (needed := still_needed(past) | not_ended(past)):
        past = [job_id for job_id in past if job_id not in needed]
    if past:
        erase(past)
    return len(past)


def _past(settings: Settings) -> Q:
    """Return the condition of a job that is kept no longer; the queues with words of their own come by name."""
    usual = {status.value: settings.retention_completed for status in FINAL}
    usual |= {Status.FAILED.value: settings.retention_failed, **settings.retention.of(ALL_QUEUES)}
    named = settings.retention.queues
    found = _over(usual) & ~Q(queue__in=named)
    for queue in named:
        found |= _over({**usual, **settings.retention.of(queue)}) & Q(queue=queue)
    return found


def _over(kept: Mapping[str, timedelta]) -> Q:
    each = (Q(status=status, finished_at__lt=DatabaseNow() - length) for status, length in sorted(kept.items()))
    return reduce(or_, each)


def prune_workers() -> int:
    """Delete rows of workers that stopped or were lost more than a day ago and hold nothing."""
    old = Worker.objects.using(alias()).filter(
        Q(stopped_at__lt=DatabaseNow() - WORKERS_KEPT) | Q(lease_expires_at__lt=DatabaseNow() - WORKERS_KEPT)
    )
    holding = jobs().running().values("worker_id")
    return old.exclude(id__in=holding).delete()[0]


def prune_audit() -> int:
    """Delete up to 1,000 audit entries past their retention, the oldest first; return how many."""
    entries = AuditEntry.objects.using(alias())
    oldest = list(entries.order_by("id").values_list("id", flat=True)[:WINDOW])
    past = entries.filter(id__in=oldest, ordered_at__lt=DatabaseNow() - get_settings().retention_audit)
    return past.delete()[0] if oldest else 0


def prune_events(after: tuple[str, int] | None) -> tuple[str, int] | None:
    """Look at up to 1,000 events beyond ``after`` and delete those past their retention.

    Returns where to go on; ``None`` when all were looked at. Events of one name are looked at in the order in which
    they came, up to the first ones that are kept.
    """
    before = DatabaseNow() - get_settings().retention_events
    # In the order of the index of messages by jobs, in which events, which have none, stand together: by their ids
    # alone they stand among all the messages to jobs. Databases with partial indexes use it for the whole order only,
    # MariaDB sorts unless what is the same in all rows is left out.
    events = Message.objects.using(alias()).filter(job=None)
    order = ("job_id", "name", "id") if dialect().has_partial_indexes else ("name", "id")
    found = events.order_by(*order).values_list("name", "id")
    rows: list[tuple[str, int]] = []
    if after is not None:
        rows += found.filter(name=after[0], id__gt=after[1])[:WINDOW]
        found = found.filter(name__gt=after[0])
    rows += found[: WINDOW - len(rows)]
    looked_at = events.filter(id__in=[number for _name, number in rows])
    past = set(looked_at.filter(created_at__lt=before).values_list("id", flat=True))
    if past:
        events.filter(id__in=past)._raw_delete(alias())
    if len(rows) < WINDOW:
        return None
    name, number = rows[-1]
    return name, number if number in past else BEYOND
