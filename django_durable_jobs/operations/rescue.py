"""Taking jobs back from workers that are gone.

A crash counts as an attempt. But when a process dies with several jobs, only one of them can be guilty, and
nobody saw which: then each gets its attempt back once, and is claimed alone in a process of its own from now
on (``rescues`` > 0). What happens there is its own doing and counts. So a job that kills its worker every time
ends as failed after its attempts, and its neighbours lose nothing.

A job with ``on_crash="fail"`` never runs a second time for a crash. Whether its code had begun cannot be known here, so
it fails wherever its worker is lost with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from django.db.models import F, QuerySet

from ..dialects.now import DatabaseNow
from ..faults import fault
from ..models import Attempt, Job, Worker
from . import reports
from .batches import look_after_commit
from .compensations import COMPENSATION, ENDING, kinds, note_lost
from .database import alias, dialect, jobs
from .enqueue import fails_when_lost
from .facts import tell_lost
from .reports import RUN
from .sequences import advance_after_commit
from .transition import move
from .wake import Group, wake_waiting

BATCH: Final = 200
STALE: Final = 'on_crash="fail": what it had done by then is not known, so it is not run again.'
"""Why a job has failed whose code may have run, in its last error."""
NEEDED: Final = (
    *("id", "definition", "queue", "worker_id", "token", "attempt", "max_attempts", "rescues", "generation", "options"),
    *("started_at", "parent_id", "parent_call", "batch_id", "sequence_key", "cancel_requested_at"),
)


class GivenUp(NamedTuple):
    """A job that failed with its worker, as the log tells it, and whose child and member it was."""

    id: UUID
    definition: str
    attempt: int
    queue: str
    worker_name: str
    group: Group | None
    batch_id: UUID | None


@dataclass(frozen=True, slots=True)
class Rescued:
    """What one round did: jobs that are pending again, and jobs that had no attempt left."""

    returned: list[UUID]
    failed: list[GivenUp]


def rescue() -> Rescued:
    """Take back up to 200 jobs whose lease is over. Any number of workers may do this at once."""
    result, sequences = dialect().in_own_transaction(_rescue)
    if groups := {job.group for job in result.failed if job.group is not None}:
        wake_waiting(groups)
    advance_after_commit(sequences)
    look_after_commit(job.batch_id for job in result.failed)
    return result


def _rescue() -> tuple[Rescued, set[str]]:
    gone = list(
        jobs().abandoned().order_by("id").select_for_update(skip_locked=dialect().has_skip_locked).only(*NEEDED)[:BATCH]
    )
    fault("before-rescue")
    result = Rescued([], [])
    workers = _lost_workers({job.worker_id for job in gone if job.worker_id is not None})
    undoes = kinds([job.id for job in gone], COMPENSATION, ENDING, RUN) if gone else {}
    for job in gone:
        name, company = workers.get(job.worker_id or 0, ("", 1))
        alone = company == 1 or job.rescues > 0
        _take_back(job, name, alone=alone, undoes=undoes.get(job.id, set()), result=result)
    ended = {one.id for one in result.failed}
    return result, {job.sequence_key for job in gone if job.sequence_key is not None and job.id in ended}


def _lost_workers(ids: set[int]) -> dict[int, tuple[str, int]]:
    """Return name and number of jobs of each lost worker; the number is fixed when it is first found lost."""
    rows: QuerySet[Worker, Any] = Worker.objects.using(alias()).filter(id__in=ids)
    found: dict[int, tuple[str, int]] = {}
    for worker in rows.select_for_update().order_by("id"):
        if worker.lost_with is None:
            worker.lost_with = jobs().held_by(worker.id).count()
            rows.filter(id=worker.id).update(lost_with=worker.lost_with)
        found[worker.id] = worker.name, worker.lost_with
    return found


def _take_back(job: Job, worker_name: str, *, alone: bool, undoes: set[str], result: Rescued) -> None:
    # The token in the filter is not needed beside the row lock; it is there where a database has no row locks.
    this = jobs().abandoned().filter(id=job.id, token=job.token)
    error = f"WorkerLost: worker {worker_name or job.worker_id} was lost while it held this job"
    # One that is to be cancelled runs no code any more: a worker undoes what is to be undone, and cancels it.
    obeys = job.cancel_requested_at is not None and ENDING not in undoes
    stale = fails_when_lost(job.options) and not obeys and ENDING not in undoes
    if obeys or not (alone or stale):
        if move("rescue", this, rescues=F("rescues") + 1, attempt=F("attempt") - 1):
            result.returned.append(job.id)
            tell_lost(job, worker_name, None)
        return
    if stale:
        error = f"{error}. {STALE}"
    over = stale or job.attempt >= job.max_attempts
    if RUN in undoes and over and ENDING not in undoes:
        reports.write(job.id, job.generation, "failed_stale")
    if ENDING in undoes or (COMPENSATION in undoes and over):
        # Its code has ended, or ends here; what undoes it is still to run, and costs no attempt.
        losses = note_lost(job.id, job.generation, error, losses=job.rescues + 1)
        if not move("rescue", this, rescues=losses, attempt=F("attempt") - 1):
            return
        result.returned.append(job.id)
    elif not move("give_up" if over else "rescue", this, rescues=F("rescues") + 1, last_error=error):
        return
    elif over:
        result.failed.append(
            GivenUp(job.id, job.definition, job.attempt, job.queue, worker_name, _group(job), job.batch_id)
        )
    else:
        result.returned.append(job.id)
    _record(job, error, worker_name)
    tell_lost(job, worker_name, error if job.id in {one.id for one in result.failed} else None)


def _group(job: Job) -> Group | None:
    return None if job.parent_id is None else (job.parent_id, job.parent_call)


def _record(job: Job, error: str, worker_name: str) -> None:
    Attempt.objects.using(alias()).create(
        job_id=job.id,
        number=job.attempt,
        end=Attempt.LOST,
        error=error,
        worker_name=worker_name,
        started_at=job.started_at,
        finished_at=DatabaseNow(),
    )


def rescued_waiting(queues: Iterable[str]) -> bool:
    """Answer whether a job that was rescued waits in one of these queues for a process of its own."""
    return jobs().pending().on_queues(queues).filter(rescues__gt=0).exists()


def next_expiry() -> timedelta | None:
    """Return how long until the first lease of the fleet ends unless renewed; ``None`` when nothing runs."""
    row = jobs().running().order_by("lease_expires_at").values_list("lease_expires_at", DatabaseNow()).first()
    return None if row is None else row[0] - row[1]
