"""Unique jobs: of the jobs of one definition with one key, at most one is live.

The row of a key (``Coalescing``) names the job that holds it, and nothing else: whether it still does is read off that
job, under the lock of the row, when somebody wants the key. So no end of a job has a key to give back, none can be left
over, and jobs without a key pay nothing. All of it happens in the caller's transaction if one is open.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

from ..conf import get_settings
from ..definitions import Options
from ..dialects.rows import NewJob
from ..errors import JobExists
from ..models import Coalescing
from ..states import FINAL, Status
from .coalesce import UNIQUE, row_key
from .database import alias, dialect, jobs
from .enqueue import Request, insert, prepare, same_jobs

T = TypeVar("T")
BATCH: Final = 500
"""Keys that one statement locks."""
WITHOUT_RESULT: Final = frozenset({Status.FAILED, Status.CANCELLED, Status.EXPIRED})
NOT_BEGUN: Final = frozenset({Status.SCHEDULED, Status.PENDING, Status.WAITING, Status.PAUSED})
"""Statuses of a job that nobody has claimed yet, if its token is 0; it may wait for its turn in a sequence."""


class Holder(NamedTuple):
    """The job that a key's row names."""

    id: UUID
    status: str
    token: int
    created_at: datetime

    @property
    def begun(self) -> bool:
        """Whether a worker has had it in its hands."""
        return self.token > 0 or self.status not in NOT_BEGUN

    def holds(self, options: Options, now: datetime) -> bool:
        """Answer whether it keeps others with these options from being stored."""
        live = not self.begun if options.unique_until == "started" else self.status not in FINAL
        if live or options.unique_for is None or self.status in WITHOUT_RESULT:
            return live
        return now < self.created_at + options.unique_for


@dataclass(slots=True)
class _Wanted:
    """One job that is to be stored, and the key that it needs."""

    job: NewJob
    options: Options
    key: str | None
    answer: UUID | None = None
    """The job that answers for it, if that is another one."""


def enqueue_unique(requests: Sequence[Request]) -> list[tuple[UUID, bool]]:
    """Store the jobs, except those whose key is held; return each one's id, and whether it was there.

    All or none; jobs without a key may be among them. Raises ``JobExists`` where a held key is an error, or its holder
    is to be replaced and has begun.
    """
    prepared = prepare(requests, unique=True)
    wanted = [_Wanted(job, request.options, _key_of(job)) for job, request in zip(prepared, requests, strict=True)]
    dialect().in_own_transaction(partial(_store, wanted))
    return [(one.answer or one.job.id, one.answer is not None) for one in wanted]


def _key_of(job: NewJob) -> str | None:
    key = (job.more or {}).get("unique_key")
    return None if key is None else row_key(UNIQUE, job.definition, key)


def _store(wanted: list[_Wanted]) -> None:
    keys = sorted({one.key for one in wanted if one.key is not None})
    holders = _lock(keys)
    now = dialect().now()
    stored = same_jobs([one.job for one in wanted if one.options.id is not None], dialect())
    # What this call itself is about to store, by key.
    new: dict[str, _Wanted] = {}
    for index, one in enumerate(wanted):
        one.answer = None  # a conflict may have this run again
        if one.job.id in stored:
            one.answer = one.job.id
        elif one.key in new:
            _answer_among_ours(one, new[one.key], index)
        elif one.key is not None and (holder := holders.get(one.key)) is not None and holder.holds(one.options, now):
            _answer(one, holder, index)
        elif one.key is not None:
            new[one.key] = one
    insert([one.job for one in wanted if one.answer is None])
    # `until` is only when the pruner looks at the row.
    _hold(
        Coalescing(key=key, job_id=one.job.id, until=now + (one.options.unique_for or timedelta()))
        for key, one in new.items()
    )


def _parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))


def _lock(keys: Sequence[str]) -> dict[str, Holder]:
    """Lock the rows of these keys, and return who holds them or did."""
    found: dict[str, UUID] = {}
    for some in _parts(keys):
        dialect().lock_keys("Coalescing", some)
        rows = Coalescing.objects.using(alias()).select_for_update().filter(key__in=some)
        found.update((key, job_id) for key, job_id in rows.values_list("key", "job_id") if job_id is not None)
    known: dict[UUID, Holder] = {}
    for some_ids in _parts(list(found.values())):
        rows_of_jobs = dialect().latest(jobs().filter(id__in=some_ids)).values_list(*Holder._fields)
        known.update((row[0], Holder(*row)) for row in rows_of_jobs)
    return {key: known[job_id] for key, job_id in found.items() if job_id in known}


def _answer(one: _Wanted, holder: Holder, index: int) -> None:
    if one.options.on_conflict == "raise":
        raise _exists(one, holder.id, index, "")
    if one.options.on_conflict == "replace" and holder.id not in _replaced(holder, one.job):
        raise _exists(one, holder.id, index, " It has begun, so it is not replaced.")
    one.answer = holder.id


def _answer_among_ours(one: _Wanted, first: _Wanted, index: int) -> None:
    if one.options.on_conflict == "raise":
        raise _exists(one, first.job.id, index, " It is stored by the same call.")
    if one.options.on_conflict == "replace":
        first.job = one.job._replace(id=first.job.id)
    one.answer = first.job.id


def _exists(one: _Wanted, job_id: UUID, index: int, more: str) -> JobExists:
    key, name = (one.job.more or {}).get("unique_key"), one.job.definition
    return JobExists(f"Job {index} of the call: the unique key {key!r} of {name} is held by {job_id}.{more}", job_id)


def _replaced(holder: Holder, job: NewJob) -> set[UUID]:
    """Give a job that has not begun what another one asks for; return its id if that was in time."""
    this = jobs().filter(id=holder.id, token=0).in_status(*NOT_BEGUN)
    found = this.select_for_update().values_list("status", flat=True).first()
    if found is None:
        return set()
    values: dict[str, Any] = {name: getattr(job, name) for name in ("payload", "options", "rank", "max_attempts")}
    if found == Status.SCHEDULED:
        now = dialect().now()
        values["run_at"] = job.run_at or now + (job.delay or timedelta())
    this.update(**values)
    if found == Status.SCHEDULED and get_settings().notify:
        dialect().notify([""])
    return {holder.id}


def _hold(rows: Iterable[Coalescing]) -> None:
    """Note who holds these keys, whose rows are locked."""
    named = dialect().connection.features.supports_update_conflicts_with_target
    Coalescing.objects.using(alias()).bulk_create(
        list(rows),
        BATCH,
        update_conflicts=True,
        update_fields=["job_id", "until"],
        unique_fields=["key"] if named else None,
    )


def hold_again(job_id: UUID) -> None:
    """Take the key of a job that is to live again, in the transaction that sees to that.

    Raises ``JobExists`` when another live job holds it. A job without a key has nothing to take.
    """
    row = jobs().filter(id=job_id, unique_key__isnull=False).values_list("definition", "unique_key").first()
    if row is None:
        return
    definition, unique_key = row
    key = row_key(UNIQUE, definition, str(unique_key))
    holder, now = _lock([key]).get(key), dialect().now()
    if holder is not None and holder.id != job_id and holder.holds(Options(), now):
        raise JobExists(
            f"Job {job_id} cannot live again while job {holder.id} holds its unique key {unique_key!r}: that one has "
            "to end first.",
            holder.id,
        )
    _hold([Coalescing(key=key, job_id=job_id, until=now)])
