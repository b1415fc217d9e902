"""Batches: many jobs, and what is enqueued once when all of them have ended.

A batch has no counters. Whether it has ended is one look into an index of its members (``look``), by whoever ended
one, after that commit: so of two that end at once the later one sees both. Only the look that finds no open member
locks the batch's row, looks again, and ends the batch and enqueues its callbacks in one transaction. What a crash
between commit and look leaves is found by ``look_forgotten``.

While a batch is open it cannot end, so nothing waits for who adds to it. Once it is closed only its own members add,
which are open themselves. Jobs without a batch never come here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID

from django.db import transaction
from django.db.models import CharField, Exists, OuterRef, Q, QuerySet, Subquery, Value
from django.db.models.functions import Coalesce
from django.db.models.lookups import LessThanOrEqual

from ..conf import get_settings
from ..dialects.now import DatabaseNow
from ..dialects.rows import NewJob
from ..errors import BatchClosed, BatchNotFound, OptionError
from ..faults import fault
from ..ids import new_job_id, parse_id
from ..models import JobBatch
from ..querysets.jobs import JobQuerySet
from ..rendering import safe_repr
from ..states import LAST_FINAL, Status
from .database import alias, dialect, jobs
from .enqueue import Request, insert, prepare

ON_SUCCESS: Final = "on_success"
ON_COMPLETE: Final = "on_complete"
ON_DISCARD: Final = "on_discard"
DESCRIPTION_LENGTH: Final = 200
LOOKS: Final = 200
NOT_LATER: Final = ("id", "run_at", "expires_at", "expire_after")
"""Options that mean nothing for a callback, whose time nobody knows when it is given."""


def batches() -> QuerySet[JobBatch]:
    """Return all batches, on the jobs' database."""
    return JobBatch.objects.using(alias())


def members(batch_id: Any) -> JobQuerySet:
    """Return the jobs of a batch."""
    return jobs().filter(batch_id=batch_id)


def open_batch(batch_id: UUID, description: str, callbacks: Mapping[str, Request]) -> None:
    """Store an open batch, in the caller's transaction; ``OptionError`` and others for what cannot be stored."""
    if not isinstance(description, str) or len(description) > DESCRIPTION_LENGTH:
        raise OptionError(f"description must be a text of up to {DESCRIPTION_LENGTH} characters.")
    forms = {name: _form(name, request) for name, request in callbacks.items()}
    batches().create(
        id=batch_id,
        description=description,
        created_at=DatabaseNow(),
        callbacks=forms,
        awaits_discard=ON_DISCARD in forms,
    )


def _form(name: str, request: Request) -> dict[str, Any]:
    for option in NOT_LATER:
        if getattr(request.options, option) is not None:
            raise OptionError(f"{name}: a callback is enqueued when the batch says so, so it has no {option}.")
    (job,) = prepare([request])
    form = job._asdict()
    delay = None if job.delay is None else job.delay.total_seconds()
    return {**{field: form[field] for field in form if field not in {"id", "run_at"}}, "delay": delay}


def _callback(form: Mapping[str, Any]) -> NewJob:
    delay = None if form["delay"] is None else timedelta(seconds=form["delay"])
    return NewJob(**{**form, "id": new_job_id(), "run_at": None, "delay": delay})


def get(batch: UUID | str) -> JobBatch:
    """Return the row of a batch, or raise ``BatchNotFound``."""
    batch_id = parse_id(batch)
    found = None if batch_id is None else batches().filter(id=batch_id).first()
    if found is None:
        raise BatchNotFound(f"There is no batch {batch_id or safe_repr(batch, 80)}.")
    return found


def add(batch_id: UUID, requests: Sequence[Request], *, as_member: bool) -> list[UUID]:
    """Store jobs as members of a batch, all or none, in the caller's transaction, and return their ids.

    ``as_member`` says that a running member adds them. Raises ``BatchNotFound``, and ``BatchClosed`` for a batch that
    has ended, or is closed and the caller is none of its members.
    """
    for request in requests:
        if request.options.id is not None:
            raise OptionError("A member of a batch has no id of yours: the job that has it may belong to others.")
    prepared = [job._replace(more={**(job.more or {}), "batch_id": batch_id}) for job in prepare(requests)]
    with transaction.atomic(using=alias()):
        _keep_from_ending(batch_id, as_member=as_member)
        insert(prepared)
    return [job.id for job in prepared]


def _keep_from_ending(batch_id: UUID, *, as_member: bool) -> None:
    """Check that jobs may be added, and keep it so until the end of the transaction; others may add meanwhile."""
    found = dialect().lock_batch_for_sharing(batch_id)
    if found is None:
        raise BatchNotFound(f"There is no batch {batch_id}.")
    is_closed, is_finished = found
    if is_finished:
        raise BatchClosed(f"Batch {batch_id} has ended: open another one.")
    if is_closed and not as_member:
        raise BatchClosed(f"Batch {batch_id} is closed: only jobs that belong to it may add to it.")


def close(batch_id: UUID) -> None:
    """Say that the batch has ended when its members have; harmless for one that is closed. Looks after the commit."""
    if not batches().filter(id=batch_id, closed_at=None).update(closed_at=DatabaseNow()):
        get(batch_id)
    look_after_commit([batch_id])


# The end -------------------------------------------------------------------------------------------------------


def look_after_commit(ids: Iterable[UUID | None]) -> None:
    """Look at these batches when the present transaction is committed; now if there is none."""
    found = {batch_id for batch_id in ids if batch_id is not None}
    if not found:
        return

    def after() -> None:
        look(found)

    # Robust: the commit has happened, and the look can be made up for. No partial: Django logs the name of what failed.
    transaction.on_commit(after, using=alias(), robust=True)


def look(ids: Collection[UUID]) -> int:
    """End those of some closed batches that have no open member; return how many callbacks were enqueued, or ends."""
    fault("before-batch")
    closed = batches().filter(id__in=ids, closed_at__isnull=False, finished_at=None).order_by("id")
    done = 0
    for batch_id, awaits_discard in list(closed.values_list("id", "awaits_discard")):
        if not has_open_members(batch_id):
            done += dialect().in_own_transaction(partial(_end, batch_id))
        elif awaits_discard and has_failed(batch_id):
            done += dialect().in_own_transaction(partial(_discard, batch_id))
    return done


def has_open_members(batch_id: UUID) -> bool:
    """Answer whether a member has not ended."""
    status = members(batch_id).last_status().first()
    return status is not None and status > LAST_FINAL


def has_failed(batch_id: UUID) -> bool:
    """Answer whether a member has failed for good."""
    return members(batch_id).filter(status=Status.FAILED.value).exists()


def _end(batch_id: UUID) -> int:
    # Who comes second waits here, and finds that the batch has ended.
    row = batches().filter(id=batch_id, closed_at__isnull=False, finished_at=None).select_for_update().first()
    if row is None or has_open_members(batch_id):
        return 0
    due = [ON_COMPLETE]
    if not members(batch_id).unsuccessful().exists():
        due.append(ON_SUCCESS)
    if row.awaits_discard and has_failed(batch_id):
        due.append(ON_DISCARD)
    _enqueue(row, due, finished_at=DatabaseNow(), awaits_discard=False)
    return 1


def _discard(batch_id: UUID) -> int:
    # Not waited for: who has it locked does the same, or the last member's end does.
    this = batches().filter(id=batch_id, finished_at=None, awaits_discard=True)
    row = this.select_for_update(skip_locked=dialect().has_skip_locked).first()
    if row is None:
        return 0
    _enqueue(row, [ON_DISCARD], awaits_discard=False)
    return 1


def _enqueue(row: JobBatch, due: Sequence[str], **values: Any) -> None:
    """Enqueue the callbacks that are due and write down that they are, in the transaction that has the row locked."""
    new = {name: _callback(row.callbacks[name]) for name in due if name in row.callbacks}
    insert(list(new.values()))
    enqueued = {**row.enqueued, **{name: str(job.id) for name, job in new.items()}}
    batches().filter(id=row.id).update(enqueued=enqueued, **values)


def look_forgotten() -> int:
    """Look at up to 200 batches that should have ended: a process died between a commit and its look."""
    mine = members(OuterRef("id"))
    last = Coalesce(Subquery(mine.last_status()), Value(""), output_field=CharField())
    over = Q(LessThanOrEqual(last, Value(LAST_FINAL)))
    discarded = Q(Exists(mine.filter(status=Status.FAILED.value)), awaits_discard=True)
    stopped = batches().filter(over | discarded, closed_at__isnull=False, finished_at=None)
    return look(list(stopped.values_list("id", flat=True)[:LOOKS]))


# Retention -----------------------------------------------------------------------------------------------------


def not_ended(ids: Collection[UUID]) -> set[UUID]:
    """Return those of some jobs whose batch has not ended: retention leaves its members to be counted."""
    these = jobs().filter(id__in=ids, batch_id__isnull=False)
    batch_of = dict(these.values_list("id", "batch_id"))
    alive = set(batches().filter(id__in=set(batch_of.values()), finished_at=None).values_list("id", flat=True))
    return {job_id for job_id, batch_id in batch_of.items() if batch_id in alive}


def prune_batches() -> int:
    """Delete up to 200 batches that ended before every retention and have no member left; return how many."""
    settings = get_settings()
    kept = max(settings.retention_completed, settings.retention_failed)
    empty = ~Exists(members(OuterRef("id")))
    old = batches().filter(empty, finished_at__lt=DatabaseNow() - kept).order_by("finished_at")
    return batches().filter(id__in=list(old.values_list("id", flat=True)[:LOOKS])).delete()[0]
