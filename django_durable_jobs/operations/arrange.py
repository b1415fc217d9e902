"""Orders that change where a job stands: its queue, its priority."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async

from ..errors import JobNotFound, TransitionRefused
from ..ids import Identified, id_of
from ..options import check_priority
from ..states import OPEN, Status
from .database import dialect, jobs
from .orders import tell
from .queues import known_queue

MOVABLE = OPEN - {Status.RUNNING}


def move_job(job: Identified | UUID | str, queue: str) -> None:
    """Put a job that no worker holds into another queue, one that is known; its place there is by priority and age.

    Raises ``JobNotFound``, ``QueueNotFound``, and ``TransitionRefused`` for a job that runs or has ended; then nothing
    has changed.
    """
    name = known_queue(queue)
    _arrange(id_of(job), "moved", queue=name)


def change_priority(job: Identified | UUID | str, priority: int | str) -> None:
    """Give a job that no worker holds another priority, -100 to 100 or a name; otherwise as ``move_job``.

    Raises ``OptionError`` for what is no priority.
    """
    _arrange(id_of(job), "given another priority", rank=-check_priority(priority))


async def amove_job(job: Identified | UUID | str, queue: str) -> None:
    """Do what ``move_job`` does without blocking the event loop."""
    await sync_to_async(move_job)(job, queue)


async def achange_priority(job: Identified | UUID | str, priority: int | str) -> None:
    """Do what ``change_priority`` does without blocking the event loop."""
    await sync_to_async(change_priority)(job, priority)


def _arrange(job_id: UUID, what: str, **columns: Any) -> None:
    dialect().in_own_transaction(lambda: _write(job_id, what, columns))


def _write(job_id: UUID, what: str, columns: dict[str, Any]) -> None:
    # Locked first: it is not claimed in between, and a claim that is on its way has it already.
    this = jobs().filter(id=job_id)
    row = this.select_for_update().values_list("status", "queue").first()
    if row is None:
        raise JobNotFound(f"There is no job {job_id}.")
    status, queue = row
    if Status(status) not in MOVABLE:
        allowed = ", ".join(sorted(MOVABLE))
        raise TransitionRefused(f"Job {job_id} is {status}: only a job that is {allowed} can be {what}.")
    this.update(**columns)
    if status == Status.PENDING:
        tell(columns.get("queue", queue))
