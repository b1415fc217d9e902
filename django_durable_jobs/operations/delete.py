"""An operator's order to remove a job with all that belongs to it. What retention removes is ``prune.py``."""

from __future__ import annotations

from uuid import UUID

from ..errors import JobNotFound, TransitionRefused
from ..ids import parse_id
from ..models import Attempt, Checkpoint, Job
from ..states import Status
from .database import alias, dialect, jobs
from .sequences import advance_after_commit


def delete(job: Job | UUID | str) -> None:
    """Delete a job, its attempts and its checkpoints; a worker that holds it keeps it from being deleted.

    Raises ``JobNotFound``, or ``TransitionRefused`` for a running job.
    """
    job_id = job.id if isinstance(job, Job) else parse_id(job)
    found = None if job_id is None else dialect().in_own_transaction(lambda: _delete(job_id))
    if found is None:
        raise JobNotFound(f"There is no job {str(job)[:80]!r}.")
    status, sequence_key = found
    if sequence_key is not None:
        advance_after_commit([sequence_key])
    if status == Status.RUNNING:
        raise TransitionRefused(f"Job {job_id} is running: it can be deleted when its worker is done with it.")


def _delete(job_id: UUID) -> tuple[str, str | None] | None:
    """Delete the job unless a worker holds it, and return the status it was found in, and its sequence."""
    # Locked before its status is read: no worker can claim it in between, nor add checkpoints that nobody deletes.
    this = jobs().filter(id=job_id)
    found = this.select_for_update().values_list("status", "sequence_key").first()
    if found is not None and found[0] != Status.RUNNING:
        Checkpoint.objects.using(alias()).filter(job_id=job_id)._raw_delete(alias())
        Attempt.objects.using(alias()).filter(job_id=job_id)._raw_delete(alias())
        this._raw_delete(alias())
    return found
