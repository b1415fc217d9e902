"""An operator's order to remove a job with all that belongs to it. What retention removes is ``prune.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from ..errors import JobNotFound, TransitionRefused
from ..ids import Identified, id_of
from ..models import Approval, Attempt, Checkpoint, EventWait, ExecutionReport, Message, NamedValue
from ..states import Status
from .batches import look_after_commit
from .children import refuse_to_delete
from .database import alias, dialect, jobs
from .sequences import advance_after_commit

BELONGINGS: Final = (Checkpoint, Attempt, Message, EventWait, Approval, NamedValue, ExecutionReport)
"""Tables whose rows belong to a job. No constraint of the database would miss the job."""


def delete(job: Identified | UUID | str) -> None:
    """Delete a job with all that belongs to it; a worker that holds it keeps it from being deleted.

    Raises ``JobNotFound``, or ``TransitionRefused`` for a running job, a child of a job that has not ended, and a job
    with children that have not. Children that have ended stay when their parent is deleted.
    """
    job_id = id_of(job)
    found = dialect().in_own_transaction(lambda: _delete(job_id))
    if found is None:
        raise JobNotFound(f"There is no job {job_id}.")
    status, sequence_key, batch_id = found
    if sequence_key is not None:
        advance_after_commit([sequence_key])
    look_after_commit([batch_id])
    if status == Status.RUNNING:
        raise TransitionRefused(f"Job {job_id} is running: it can be deleted when its worker is done with it.")


def _delete(job_id: UUID) -> tuple[str, str | None, UUID | None] | None:
    """Delete the job unless a worker holds it, and return the status it was found in, its sequence and its batch."""
    # Locked before its status is read: no worker can claim it in between, nor add checkpoints that nobody deletes.
    this = jobs().filter(id=job_id)
    found = this.select_for_update().values_list("status", "sequence_key", "batch_id").first()
    if found is not None and found[0] != Status.RUNNING:
        refuse_to_delete(job_id)
        erase([job_id])
    return found


def erase(ids: Sequence[UUID]) -> None:
    """Delete the rows of these jobs and of all that belongs to them; the caller has locked them."""
    for table in BELONGINGS:
        table.objects.using(alias()).filter(job_id__in=ids)._raw_delete(alias())
    jobs().filter(id__in=ids)._raw_delete(alias())
