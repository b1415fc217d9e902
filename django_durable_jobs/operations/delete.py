"""An operator's order to remove a job with all that belongs to it. What retention removes is ``prune.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from ..errors import JobNotFound, TransitionRefused
from ..ids import parse_id
from ..models import Approval, Attempt, Checkpoint, EventWait, ExecutionReport, Job, Message, NamedValue
from ..states import Status
from .children import refuse_to_delete
from .database import alias, dialect, jobs

BELONGINGS: Final = (Checkpoint, Attempt, Message, EventWait, Approval, NamedValue, ExecutionReport)
"""Tables whose rows belong to a job. No constraint of the database would miss the job."""


def delete(job: Job | UUID | str) -> None:
    """Delete a job with all that belongs to it; a worker that holds it keeps it from being deleted.

    Raises ``JobNotFound``, or ``TransitionRefused`` for a running job, a child of a job that has not ended, and a job
    with children that have not. Children that have ended stay when their parent is deleted.
    """
    job_id = job.id if isinstance(job, Job) else parse_id(job)
    status = None if job_id is None else dialect().in_own_transaction(lambda: _delete(job_id))
    if status is None:
        raise JobNotFound(f"There is no job {str(job)[:80]!r}.")
    if status == Status.RUNNING:
        raise TransitionRefused(f"Job {job_id} is running: it can be deleted when its worker is done with it.")


def _delete(job_id: UUID) -> str | None:
    """Delete the job unless a worker holds it, and return the status it was found in."""
    # Locked before its status is read: no worker can claim it in between, nor add checkpoints that nobody deletes.
    this = jobs().filter(id=job_id)
    status = this.select_for_update().values_list("status", flat=True).first()
    if status is not None and status != Status.RUNNING:
        refuse_to_delete(job_id)
        erase([job_id])
    return status


def erase(ids: Sequence[UUID]) -> None:
    """Delete the rows of these jobs and of all that belongs to them; the caller has locked them."""
    for table in BELONGINGS:
        table.objects.using(alias()).filter(job_id__in=ids)._raw_delete(alias())
    jobs().filter(id__in=ids)._raw_delete(alias())
