"""Telling of jobs what has become of them: from rows and endings to events, where somebody listens.

Everything here is called in the transaction that makes the fact, or right after its commit, and does nothing while
nobody listens.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from ..events import (
    CheckpointSavedEvent,
    JobCancelledEvent,
    JobCompletedEvent,
    JobEnqueuedEvent,
    JobExpiredEvent,
    JobFailedEvent,
    JobParkedEvent,
    JobPausedEvent,
    JobReleasedEvent,
    JobRescuedEvent,
    JobResumedEvent,
    JobRetryingEvent,
    JobSnoozedEvent,
    JobStartedEvent,
)
from ..outcomes import BackedOff, Cancelled, Completed, Failed, Parked, Released, Snoozed, Stored
from ..signals import (
    EventSignal,
    checkpoint_saved,
    job_cancelled,
    job_completed,
    job_enqueued,
    job_expired,
    job_failed,
    job_parked,
    job_paused,
    job_released,
    job_rescued,
    job_resumed,
    job_retrying,
    job_snoozed,
    job_started,
)
from ..states import Status
from .checkpoints import BEGUN
from .database import jobs

if TYPE_CHECKING:
    from ..dialects.rows import Claimed, NewCheckpoint, NewJob
    from ..models import Job
    from .finish import Ending
    from .orders import Mode

_OF_A_ROW = ("id", "definition", "queue", "attempt")


def _of_row(job: Job | Claimed) -> dict[str, Any]:
    return {"job_id": job.id, "definition": job.definition, "queue": job.queue, "attempt": job.attempt}


def tell_enqueued(new: Iterable[NewJob]) -> None:
    """Tell of jobs that are stored."""
    if job_enqueued.receivers:
        job_enqueued.tell_after_commit(
            JobEnqueuedEvent(job_id=job.id, definition=job.definition, queue=job.queue, attempt=0) for job in new
        )


def tell_started(job: Claimed, worker: str) -> None:
    """Tell of a claimed job that begins to run here."""
    if job_started.hears(job.definition):
        job_started.tell(JobStartedEvent(**_of_row(job), worker=worker))


def tell_saved(job: Claimed, rows: Iterable[NewCheckpoint]) -> None:
    """Tell of checkpoints that are committed; not of what a wait fixes when it begins."""
    if checkpoint_saved.hears(job.definition):
        checkpoint_saved.tell(
            *(
                CheckpointSavedEvent(
                    **_of_row(job), call=row.key, name=row.name, kind=row.kind, failed=row.error is not None
                )
                for row in rows
                if row.kind != BEGUN
            )
        )


def tell_completed(endings: Iterable[Ending], stored: Collection[UUID]) -> None:
    """Tell of those of these jobs that are completed; after the commit."""
    if job_completed.receivers:
        done = (one for one in endings if isinstance(one.outcome, Completed | Stored) and one.job.id in stored)
        job_completed.tell(*(JobCompletedEvent(**_of(one)) for one in done if job_completed.hears(one.job.definition)))


def tell_ended(endings: Sequence[Ending]) -> None:
    """Tell of attempts that ended otherwise, in the transaction that stored that."""
    if not EventSignal.anybody:
        return
    due = _due([one for one in endings if isinstance(one.outcome, BackedOff | Snoozed)])
    for one in endings:
        _tell_ended(one, due)
    tell_paused([one.job.id for one in endings if not isinstance(one.outcome, Failed | Cancelled)])


def _due(endings: Iterable[Ending]) -> dict[UUID, Any]:
    """Say when those of these jobs are due again of which somebody wants to hear."""
    names = ((one.job.id, one.job.definition) for one in endings)
    ids = [job_id for job_id, name in names if job_retrying.hears(name) or job_snoozed.hears(name)]
    return dict(jobs().filter(id__in=ids).values_list("id", "run_at")) if ids else {}


def _tell_ended(one: Ending, due: dict[UUID, Any]) -> None:
    match one.outcome:
        case Failed(failure) if job_failed.receivers:
            job_failed.tell_after_commit([JobFailedEvent(**_of(one), error=failure.error)])
        case BackedOff(failure) if one.job.id in due:
            job_retrying.tell_after_commit(
                [JobRetryingEvent(**_of(one), error=failure.error, next_run_at=due[one.job.id])]
            )
        case Snoozed() if one.job.id in due:
            job_snoozed.tell_after_commit([JobSnoozedEvent(**_of(one), next_run_at=due[one.job.id])])
        case Parked(waits, until) if job_parked.receivers:
            job_parked.tell_after_commit([JobParkedEvent(**_of(one), waiting_for=waits, until=until)])
        case Cancelled(reason) if job_cancelled.receivers:
            job_cancelled.tell_after_commit([JobCancelledEvent(**_of(one), reason=reason)])
        case Released() if job_released.receivers and one.seconds is not None:
            job_released.tell_after_commit([JobReleasedEvent(**_of(one))])


def _of(one: Ending) -> dict[str, Any]:
    duration = None if one.seconds is None else timedelta(seconds=one.seconds)
    return {**_of_row(one.job), "worker": one.worker_name, "duration": duration}


def tell_paused(ids: Collection[UUID], mode: Mode = "graceful") -> None:
    """Tell of those of these jobs that have come to be paused; in the transaction that gave them back."""
    for job in _read(job_paused, ids, "paused_by", "pause_reason", status=Status.PAUSED.value):
        said: dict[str, Any] = {"reason": job.pause_reason or "", "by": job.paused_by or ""}
        job_paused.tell_after_commit([JobPausedEvent(**_of_row(job), mode=mode, **said)])


def tell_resumed(job_id: UUID, *, reason: str, by: str) -> None:
    """Tell of a job that goes on; in the transaction of the order."""
    job_resumed.tell_after_commit(
        JobResumedEvent(**_of_row(job), reason=reason, by=by) for job in _read(job_resumed, [job_id])
    )


def tell_cancelled(ids: Collection[UUID], reason: str) -> None:
    """Tell of jobs that are cancelled without having run; in the transaction of the order."""
    job_cancelled.tell_after_commit(
        JobCancelledEvent(**_of_row(job), reason=reason) for job in _read(job_cancelled, ids)
    )


def tell_expired(ids: Collection[UUID]) -> None:
    """Tell of jobs that have expired; in the transaction that ends them."""
    job_expired.tell_after_commit(JobExpiredEvent(**_of_row(job)) for job in _read(job_expired, ids))


def tell_taken_away(ids: Collection[UUID]) -> None:
    """Tell of running jobs that were taken from their workers; in the transaction of the order."""
    # The attempt is given back already.
    job_released.tell_after_commit(
        JobReleasedEvent(**{**_of_row(job), "attempt": job.attempt + 1}) for job in _read(job_released, ids)
    )
    tell_paused(ids)


def tell_lost(job: Job, worker: str, error: str | None) -> None:
    """Tell of a job that was lost with its worker: with an ``error`` it failed by that, else it runs again.

    In the transaction of the rescue; ``job`` is as it was before.
    """
    if error is not None:
        if job_failed.receivers:
            job_failed.tell_after_commit([JobFailedEvent(**_of_row(job), worker=worker, error=error)])
    elif EventSignal.anybody:
        if job_rescued.receivers:
            job_rescued.tell_after_commit([JobRescuedEvent(**_of_row(job), worker=worker)])
        tell_paused([job.id])


def _read(signal: EventSignal[Any], ids: Collection[UUID], *columns: str, **where: str) -> Iterator[Job]:
    if signal.receivers and ids:
        yield from jobs().filter(id__in=ids, **where).only(*_OF_A_ROW, *columns).order_by("id")
