"""Pausing and resuming one job. Queues: ``queues.py``; workers: ``workers.py``.

A job that no worker holds is paused at once, and remembers where it was. A running one gets ``pause_requested_at``
(graceful): its holder stops the code at its next durable call and gives the job back, and the move that does so makes
it paused (``transition.py``); if the code ends first, that counts. Or its lease is taken away (aggressive): what the
code still writes is refused.

What comes meanwhile is stored as for any other job (messages, decisions, ends of children, the time of a wait), and is
looked for when the job is resumed.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, NamedTuple, NoReturn
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db.models import F

from ..dialects.now import DatabaseNow
from ..dialects.rows import Held
from ..errors import AlreadyPaused, CannotPause, JobNotFound, NotPaused
from ..ids import Identified, id_of, parse_id
from ..querysets.jobs import JobQuerySet
from ..states import PAUSABLE, Status
from .database import dialect, jobs
from .facts import tell_paused, tell_resumed
from .orders import LONGEST_BY, LONGEST_REASON, PAUSE, Mode, check_mode, check_text, seized, tell
from .sequences import advance_after_commit
from .transition import move
from .wake import look_again

FORGOTTEN: Final[dict[str, Any]] = {"pause_reason": None, "paused_by": None}


class _Seen(NamedTuple):
    """A job as an order finds it, its row locked."""

    status: str
    paused_from: str | None
    pause_requested_at: datetime | None
    cancel_requested_at: datetime | None
    token: int
    queue: str
    sequence_key: str | None

    @property
    def running(self) -> bool:
        return self.status == Status.RUNNING

    @property
    def pausing(self) -> bool:
        return self.running and self.pause_requested_at is not None

    @property
    def cancelled(self) -> bool:
        return self.running and self.cancel_requested_at is not None


def pause(job: Identified | UUID | str, *, mode: Mode = "graceful", reason: str = "", by: str = "") -> bool:
    """Pause a job, and return whether it is paused already; ``False`` says that a worker will do it.

    A graceful pause lets a running job come to its next durable call, or to its end; until then ``is_pausing`` holds.
    An aggressive one takes it from its worker: nothing that the code still writes counts, and its attempt is given
    back. Checkpoints are kept. ``reason`` and ``by`` are stored with the job until it is resumed. Raises
    ``JobNotFound``, ``AlreadyPaused``, ``OptionError``, and ``CannotPause`` for a job that has ended or is to be
    cancelled; then nothing has changed.
    """
    job_id, mode = id_of(job), check_mode(mode)
    said: dict[str, Any] = {
        "pause_reason": check_text("reason", reason, LONGEST_REASON),
        "paused_by": check_text("by", by, LONGEST_BY),
    }
    return dialect().in_own_transaction(lambda: _pause(job_id, said, aggressive=mode == "aggressive"))


def resume(job: Identified | UUID | str, *, reason: str = "", by: str = "") -> None:
    """Put a paused job back where it was: into its queue, or to wait for what has not come meanwhile.

    A job that is about to be paused goes on. Raises ``JobNotFound``, ``NotPaused`` and ``OptionError``.
    """
    job_id = id_of(job)
    reason, by = check_text("reason", reason, LONGEST_REASON), check_text("by", by, LONGEST_BY)
    dialect().in_own_transaction(lambda: _resume(job_id, reason, by))


def paused_jobs(queue: str | None = None) -> JobQuerySet:
    """Return the paused jobs of a queue, or of all, oldest first."""
    return jobs().in_status(Status.PAUSED).filter(**({} if queue is None else {"queue": queue})).order_by("id")


def is_paused(job: Identified | UUID | str) -> bool:
    """Answer whether the job is paused; ``False`` also for an id that no job has."""
    job_id = parse_id(getattr(job, "id", job))
    return job_id is not None and jobs().filter(id=job_id).in_status(Status.PAUSED).exists()


def is_pausing(job: Identified | UUID | str) -> bool:
    """Answer whether the job runs and is to be paused; ``False`` also for an id that no job has."""
    job_id = parse_id(getattr(job, "id", job))
    return job_id is not None and jobs().filter(id=job_id, pause_requested_at__isnull=False).running().exists()


async def apause(job: Identified | UUID | str, **order: Any) -> bool:
    """Do what ``pause`` does without blocking the event loop."""
    return await sync_to_async(pause)(job, **order)


async def aresume(job: Identified | UUID | str, **order: Any) -> None:
    """Do what ``resume`` does without blocking the event loop."""
    await sync_to_async(resume)(job, **order)


def _lock(this: JobQuerySet, job_id: UUID) -> _Seen:
    row = this.select_for_update().values_list(*_Seen._fields).first()
    if row is None:
        raise JobNotFound(f"There is no job {job_id}.")
    return _Seen._make(row)


def _pause(job_id: UUID, said: dict[str, Any], *, aggressive: bool) -> bool:
    this = jobs().filter(id=job_id)
    seen = _lock(this, job_id)
    if move("pause", this, **said):
        tell_paused([job_id], "aggressive" if aggressive else "graceful")
        return True
    if not seen.running or seen.cancelled or (seen.pausing and not aggressive):
        _refuse_to_pause(seen, job_id)
    if aggressive:
        # The token stays: what is not running takes no writes of its former holder, and the next claim raises it.
        move("seize", this, attempt=F("attempt") - 1, **said)
        tell_paused([job_id], "aggressive")
        tell(seized(Held(job_id, seen.token)))
        return True
    this.update(pause_requested_at=DatabaseNow(), **said)
    tell(f"{PAUSE}{job_id}")
    return False


def _refuse_to_pause(seen: _Seen, job_id: UUID) -> NoReturn:
    if seen.cancelled:
        raise CannotPause(f"Job {job_id} is to be cancelled, so it cannot be paused.")
    if seen.pausing:
        raise AlreadyPaused(f'Job {job_id} is about to be paused. mode="aggressive" does not wait for its code.')
    if seen.status == Status.PAUSED:
        raise AlreadyPaused(f"Job {job_id} is paused already.")
    allowed = ", ".join(sorted({*PAUSABLE, Status.RUNNING}))
    raise CannotPause(f"Job {job_id} is {seen.status}: only a job that is {allowed} can be paused.")


def _resume(job_id: UUID, reason: str, by: str) -> None:
    this = jobs().filter(id=job_id)
    seen = _lock(this, job_id)
    if seen.pausing:
        this.update(pause_requested_at=None, **FORGOTTEN)
        return
    if seen.status != Status.PAUSED or seen.paused_from is None:
        raise NotPaused(f"Job {job_id} is {seen.status}: only a job that is paused can be resumed.")
    move(f"resume_{seen.paused_from}", this, **FORGOTTEN)
    tell_resumed(job_id, reason=reason, by=by)
    match Status(seen.paused_from):
        case Status.PENDING:
            tell(seen.queue)
        case Status.WAITING:
            look_again(job_id)
            tell("")
        case _:
            tell("")
    if seen.sequence_key is not None:
        # Its turn may have come while it was paused in the line.
        advance_after_commit([seen.sequence_key])
