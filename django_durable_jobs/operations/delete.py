"""An operator's order to remove a job with all that belongs to it. What retention removes is ``prune.py``."""

from __future__ import annotations

from uuid import UUID

from ..errors import JobNotFound, TransitionRefused
from ..ids import parse_id
from ..models import Attempt, Checkpoint, ExecutionReport, Job
from ..states import Status
from .children import refuse_to_delete
from .database import alias, dialect, jobs


def delete(job: Job | UUID | str) -> None:
    """Delete a job, its attempts and its checkpoints; a worker that holds it keeps it from being deleted.

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
        Checkpoint.objects.using(alias()).filter(job_id=job_id)._raw_delete(alias())
        Attempt.objects.using(alias()).filter(job_id=job_id)._raw_delete(alias())
        ExecutionReport.objects.using(alias()).filter(job_id=job_id)._raw_delete(alias())
        this._raw_delete(alias())
    return status
