"""An operator's order to run a job again."""

from __future__ import annotations

from uuid import UUID

from django.db.models import F
from django.db.models.functions import Greatest

from ..conf import get_settings
from ..errors import JobNotFound, TransitionRefused
from ..ids import parse_id
from ..models import Job
from ..states import TRANSITIONS
from .compensations import generation_of_a_retry
from .database import dialect, jobs
from .transition import move


def retry(job: Job | UUID | str) -> None:
    """Put a failed, cancelled, expired or retrying job back into its queue, now.

    It gets at least one more attempt; its checkpoints and its history of attempts stay. But a job whose compensations
    have run begins anew, in a new generation without checkpoints; one whose compensations have not all run goes on
    with these. Raises ``JobNotFound``, or ``TransitionRefused`` when its status does not allow it.
    """
    job_id = job.id if isinstance(job, Job) else parse_id(job)
    if job_id is None:
        raise JobNotFound(f"There is no job {str(job)[:80]!r}.")
    this = jobs().filter(id=job_id)

    def work() -> int:
        return move(
            "retry",
            this,
            run_at=None,
            rescues=0,
            cancel_requested_at=None,
            max_attempts=Greatest(F("max_attempts"), F("attempt") + 1),
            generation=generation_of_a_retry(),
        )

    moved = dialect().in_own_transaction(work)
    row = this.values_list("status", "queue").first()
    if row is None:
        raise JobNotFound(f"There is no job {job_id}.")
    status, queue = row
    if not moved:
        allowed = ", ".join(sorted(TRANSITIONS["retry"].sources))
        raise TransitionRefused(f"Job {job_id} is {status}: only a job that is {allowed} can be retried.")
    if get_settings().notify:
        dialect().notify([queue])
