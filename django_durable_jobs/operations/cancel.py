"""Orders to cancel: a job that does not run is cancelled at once, a running one where its code notices.

A running job's row gets ``cancel_requested_at``. Its holder sees that at the next durable call, at its progress and
at the heartbeat, at once where the database notifies; then the code is stopped, what it has registered with
``compensate`` runs, and the job is cancelled. If the job completes first, it is completed.

With ``force`` the holder is not waited for: its token is out of date when this returns, so nothing that the code still
writes counts. What is to be undone is handed to another worker.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db.models import F, Q

from ..dialects.now import DatabaseNow
from ..dialects.rows import Held
from ..errors import JobNotFound, TransitionRefused
from ..ids import Identified, id_of
from ..states import OPEN, Status
from . import reports
from .batches import close, look_after_commit, members
from .compensations import COMPENSATION, ENDING, kinds
from .database import dialect, jobs
from .facts import tell_cancelled
from .orders import ABORT, CANCEL, LONGEST_BY, LONGEST_REASON, check_flag, check_text, seized, tell
from .reports import RUN
from .sequences import advance_after_commit
from .transition import move
from .wake import wake_waiting

BATCH: Final = 500
LONGEST: Final = LONGEST_REASON + LONGEST_BY + 100
"""Characters of a reason: of an order with its name and its words around it."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What an order did: jobs that are cancelled, and jobs whose code was asked to stop."""

    cancelled: list[UUID]
    requested: list[UUID]


def cancel(job: Identified | UUID | str, *, reason: str = "cancelled by an order", force: bool = False) -> Cancelled:
    """Cancel a job and every job below it (``gather``), and return what was done.

    A job that runs, or has compensations to run, is cancelled a little later, unless it completes before; one whose
    compensations run already ends as it began to. ``force`` takes a running job from its worker at once: it is
    cancelled when this returns (or about to be, with compensations to run elsewhere), and never completed. Its code is
    interrupted; what does not end then costs its process, see ``docs/how-to/stopping.md``.

    Raises ``JobNotFound``, ``TransitionRefused`` for a job that has ended, and ``OptionError``.
    """
    job_id = id_of(job)
    check_text("reason", reason, LONGEST)
    result = cancel_all([job_id], reason=reason, force=check_flag("force", force))
    if job_id not in (*result.cancelled, *result.requested):
        status = jobs().filter(id=job_id).values_list("status", flat=True).first()
        if status is None:
            raise JobNotFound(f"There is no job {job_id}.")
        raise TransitionRefused(f"Job {job_id} is {status}: only a job that has not ended can be cancelled.")
    return result


async def acancel(
    job: Identified | UUID | str, *, reason: str = "cancelled by an order", force: bool = False
) -> Cancelled:
    """Do what ``cancel`` does without blocking the event loop."""
    return await sync_to_async(cancel)(job, reason=reason, force=force)


def cancel_batch(batch_id: UUID, *, reason: str) -> Cancelled:
    """Close a batch and cancel its members that have not ended, with all jobs below them; ``BatchNotFound``."""
    close(batch_id)
    # What a running member adds meanwhile is found in the next round.
    result, found = Cancelled([], []), set[UUID]()
    while new := set(members(batch_id).in_status(*OPEN).values_list("id", flat=True)) - found:
        found |= new
        some = cancel_all(sorted(new), reason=reason)
        result.cancelled.extend(some.cancelled)
        result.requested.extend(some.requested)
    return result


def cancel_all(ids: Iterable[UUID], *, reason: str, force: bool = False) -> Cancelled:
    """Cancel open jobs and every job below them, in short transactions; those that have ended are left alone."""
    result, level = Cancelled([], []), list(ids)
    while level:
        batches = [level[start : start + BATCH] for start in range(0, len(level), BATCH)]
        for batch in batches:
            _cancel_batch(batch, reason, result, force=force)
        # Children of jobs that were cancelled before are looked at too: an order that was interrupted is finished.
        below = (jobs().filter(parent_id__in=batch).in_status(*OPEN).values_list("id", flat=True) for batch in batches)
        level = [child for children in below for child in children]
    return result


def cancel_unbegun(ids: list[UUID], unbegun: Q, *, reason: str) -> Cancelled:
    """Cancel those of up to 500 jobs that nobody has begun by now; they have no jobs below them."""
    result = Cancelled([], [])
    _cancel_batch(ids, reason, result, force=False, only=unbegun)
    return result


def _cancel_batch(ids: list[UUID], reason: str, result: Cancelled, *, force: bool, only: Q | None = None) -> None:
    def work() -> tuple[list[UUID], list[UUID], set[tuple[UUID, str | None]], set[str], set[UUID | None]]:
        rows = list(
            jobs()
            .filter(only or Q(), id__in=ids)
            .in_status(*OPEN)
            .order_by("id")
            .select_for_update()
            .values_list("id", "status", "parent_id", "parent_call", "generation", "sequence_key", "batch_id")
        )
        undoing = kinds([row[0] for row in rows], COMPENSATION, ENDING, RUN)
        # Those that are being undone end as they began to: nothing is left to ask.
        ending = [row[0] for row in rows if ENDING in undoing.get(row[0], ())]
        rows = [row for row in rows if row[0] not in ending]
        undone = {row[0] for row in rows if COMPENSATION in undoing.get(row[0], ())}
        held = {row[0] for row in rows if row[1] == Status.RUNNING}
        running = [row[0] for row in rows if row[0] in undone or (row[0] in held and not force)]
        at_once = [row[0] for row in rows if row[0] not in set(running)]
        if force and held:
            _take_away(held, undone, reason)
        these = jobs().filter(id__in=running)
        these.update(cancel_requested_at=DatabaseNow())
        if undone:
            move("recall", jobs().filter(id__in=undone), run_at=None)
        if at_once:
            asked = DatabaseNow()
            move("cancel", jobs().filter(id__in=at_once), cancel_requested_at=asked, last_error=reason)
            for row in rows:
                if row[0] in at_once and RUN in undoing.get(row[0], ()):
                    reports.write(row[0], row[4], "cancelled")
            tell_cancelled(at_once, reason)
        if running:
            queues = these.pending().values_list("queue", flat=True).distinct()
            tell(*(f"{CANCEL}{job_id}" for job_id in running), *queues)
        gone = set(at_once)
        ended = [row for row in rows if row[0] in gone]
        groups = {(row[2], row[3]) for row in ended if row[2] is not None}
        lines = {row[5] for row in ended if row[5] is not None}
        return at_once, [*running, *ending], groups, lines, {row[6] for row in ended}

    at_once, running, parents, sequences, batches = dialect().in_own_transaction(work)
    result.cancelled.extend(at_once)
    result.requested.extend(running)
    if parents:
        wake_waiting(parents)
    advance_after_commit(sequences)
    look_after_commit(batches)


def _take_away(held: set[UUID], undone: set[UUID], reason: str) -> None:
    """Take running jobs from their workers: those that must be undone go to another one, the others are cancelled."""
    these = jobs().filter(id__in=held)
    leases = [Held(*row) for row in these.values_list("id", "token")]
    these.update(cancel_requested_at=DatabaseNow(), token=F("token") + 1)
    tell(*(seized(lease, ABORT) for lease in leases))
    move("take_away", these.filter(id__in=undone), attempt=F("attempt") - 1)
    move("abort", these, last_error=reason)
