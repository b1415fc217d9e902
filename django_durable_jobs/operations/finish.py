"""Storing how attempts ended. Every statement carries the fencing token; a lost lease changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from django.db.models import Case, DateTimeField, F, Subquery, When
from django.db.models.expressions import Combinable

from ..dialects.now import DatabaseNow
from ..dialects.rows import Claim, Claimed, Completion
from ..faults import fault
from ..models import Attempt
from ..outcomes import (
    CHILDREN,
    BackedOff,
    Cancelled,
    Completed,
    Failed,
    Failure,
    Outcome,
    Parked,
    Released,
    Snoozed,
    Stored,
)
from ..states import Status
from . import facts, reports
from .batches import look_after_commit
from .database import alias, dialect, jobs
from .sequences import advance_after_commit, leaves_place
from .steps import not_held
from .transition import move
from .wake import Group, park, wake_waiting

ENDED: Final = (Completed, Failed, Cancelled, Stored)
"""Outcomes that end the life of the job."""


@dataclass(frozen=True, slots=True)
class Ending:
    """An attempt that is over: which job, under which lease, and how it ended."""

    job: Claimed
    outcome: Outcome
    worker_name: str = ""
    seconds: float | None = None
    """How long the code ran, where that is known; a job that had not begun has none."""


def finish(endings: Sequence[Ending], claim: Claim | None = None) -> tuple[set[UUID], list[Claimed]]:
    """Store the endings and, if asked, claim the next jobs in the same commit.

    Returns the ids whose ending took effect, and the claimed jobs. A job that is missing among the first had
    lost its lease: nothing of it was written. Completions go in one statement, with the claim where the database can;
    the other endings in one transaction before it. Parents and sequences are looked after once all is committed.
    """
    stored, claimed = _store(endings, claim)
    facts.tell_completed(endings, stored)
    related = [one for one in endings if one.job.parent_id is not None or isinstance(one.outcome, Parked)]
    if related and (groups := _groups(related, claimed)):
        # After the commit, not in it: two children that end together in two workers do not see each other before.
        fault("before-wake")
        wake_waiting(groups)
    advance_after_commit(_sequences_of(endings))
    look_after_commit(_batches_of(endings, claimed))
    return stored, claimed


def _groups(endings: Sequence[Ending], claimed: Sequence[Claimed]) -> set[Group]:
    """Return the groups of children that may have ended: those of children that did, and what parents wait for."""
    groups: set[Group] = set()
    failed: set[Group] = set()
    for job, outcome in ((one.job, one.outcome) for one in endings):
        if isinstance(outcome, Parked):
            groups.update((job.id, wait) for wait in outcome.waits if wait.startswith(CHILDREN))
        elif job.parent_id is not None and isinstance(outcome, ENDED):
            (groups if isinstance(outcome, (Completed, Stored)) else failed).add((job.parent_id, job.parent_call))
    # A group of which this worker has just claimed another child has not ended: the last one of it looks.
    groups.difference_update((job.parent_id, job.parent_call) for job in claimed if job.parent_id is not None)
    return groups | failed


def _sequences_of(endings: Sequence[Ending]) -> set[str]:
    """Return the lines in which a place may have become free."""
    free = (*ENDED, BackedOff, Snoozed)
    return {key for one in endings if (key := one.job.sequence_key) is not None and isinstance(one.outcome, free)}


def _batches_of(endings: Sequence[Ending], claimed: Sequence[Claimed]) -> set[UUID]:
    """Return the batches that may have ended, or of which a member has failed."""
    failed: set[UUID] = set()
    ended: set[UUID] = set()
    for one in endings:
        if one.job.batch_id is not None and isinstance(one.outcome, ENDED):
            (failed if isinstance(one.outcome, Failed) else ended).add(one.job.batch_id)
    # One of which this worker has just claimed another member has not ended: the last one of it looks.
    return (ended - {job.batch_id for job in claimed} if ended else ended) | failed


def complete_here(job: Claimed, result: str | None) -> None:
    """Complete a job in the transaction that is open on this thread's connection; ``LeaseLost`` when it is not held."""
    if job.id not in dialect().complete([Completion(job.id, job.token, result)]):
        raise not_held(job.id)


def is_completed(job: Claimed) -> bool:
    """Answer whether a job was completed under its token. Waits for a commit that is on its way.

    To be called in a transaction. Raises ``LeaseLost`` when the job is neither completed nor held under this token.
    """
    row = jobs().filter(id=job.id, token=job.token).select_for_update().values_list("status", flat=True).first()
    if row not in {Status.RUNNING, Status.COMPLETED}:
        raise not_held(job.id)
    return row == Status.COMPLETED


def _store(endings: Sequence[Ending], claim: Claim | None) -> tuple[set[UUID], list[Claimed]]:
    completions: list[Completion] = []
    others: list[Ending] = []
    stored: set[UUID] = set()
    for ending in endings:
        job, outcome = ending.job, ending.outcome
        if isinstance(outcome, Completed):
            completions.append(Completion(job.id, job.token, outcome.result))
        elif isinstance(outcome, Stored):
            # It has stored its ending itself, which took effect already.
            stored.add(job.id)
        else:
            others.append(ending)
    if others:
        stored |= dialect().in_own_transaction(lambda: _finish_others(others))
    if completions and claim is not None and claim.wants:
        done, claimed = dialect().complete_and_claim(completions, claim)
        return stored | done, claimed
    done = dialect().complete(completions) if completions else set()
    claimed = dialect().claim(claim) if claim is not None and claim.wants else []
    return stored | done, claimed


def _finish_others(endings: Sequence[Ending]) -> set[UUID]:
    # In id order, as every transaction that locks several jobs.
    done = [ending for ending in sorted(endings, key=lambda one: one.job.id) if _finish_one(ending)]
    facts.tell_ended(done)
    return {ending.job.id for ending in done}


def _finish_one(ending: Ending) -> bool:
    job, outcome = ending.job, ending.outcome
    this = jobs().filter(id=job.id)
    away = leaves_place(job.sequence_key)
    match outcome:
        case Failed(failure):
            moved = move("fail", this, token=job.token, last_error=failure.error)
        case BackedOff(failure, delay):
            moved = move("back_off", this, token=job.token, last_error=failure.error, run_at=_due(delay), **away)
        case Snoozed(delay):
            moved = move("snooze", this, token=job.token, run_at=_due(delay), attempt=F("attempt") - 1, **away)
        case Parked():
            moved = park(job, outcome)
        case Cancelled(reason, asked):
            # A parent that runs its children again has to tell an order of its own from a later one.
            again = {"cancel_requested_at": asked} if asked is not None else {}
            moved = move("stop", this, token=job.token, last_error=reason, **again)
            if moved:
                reports.write_cancelled(job.id)
        case Released(begun):
            still = {} if begun else {"expires_at": F("expires_at")}
            moved = move("release", this, token=job.token, attempt=F("attempt") - 1, **still)
        case _:
            return False
    if moved and isinstance(outcome, Failed | BackedOff):
        record_attempt(ending, outcome.failure)
    return bool(moved)


def _due(delay: timedelta) -> Combinable:
    """Say when the job is due again: one that is to be cancelled at once, so that a worker obeys the order."""
    ordered = When(cancel_requested_at__isnull=False, then=DatabaseNow())
    return Case(ordered, default=DatabaseNow() + delay, output_field=DateTimeField())


def record_attempt(ending: Ending, failure: Failure) -> None:
    """Keep what went wrong in this attempt.

    Its start is the job's last claim. The row has it, so that nothing is carried through the hot path for the few
    attempts that fail.
    """
    Attempt.objects.using(alias()).create(
        job_id=ending.job.id,
        number=ending.job.attempt,
        end="failed",
        error=failure.error,
        traceback=failure.traceback,
        worker_name=ending.worker_name,
        started_at=Subquery(jobs().filter(id=ending.job.id).values("started_at")),
        finished_at=DatabaseNow(),
    )
