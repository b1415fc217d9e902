"""An operator's order to run a job again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db.models import F, Q
from django.db.models.functions import Greatest

from ..conf import get_settings
from ..errors import JobNotFound, TransitionRefused
from ..ids import parse_id
from ..models import Job
from ..states import TRANSITIONS, Status
from .compensations import generation_of_a_retry
from .database import dialect, jobs
from .sequences import advance_after_commit, line_up_again
from .transition import move

if TYPE_CHECKING:
    from ..querysets.jobs import JobQuerySet


def retry(job: Job | UUID | str) -> None:
    """Put a failed, cancelled, expired or retrying job back into its queue, now.

    It gets at least one more attempt; its checkpoints and its history of attempts stay. But a job whose compensations
    have run begins anew, in a new generation without checkpoints; one whose compensations have not all run goes on
    with these. An ended job of a sequence waits for its turn: it is the next after the one that is under way. Raises
    ``JobNotFound``, or ``TransitionRefused`` when its status does not allow it.
    """
    job_id = job.id if isinstance(job, Job) else parse_id(job)
    if job_id is None:
        raise JobNotFound(f"There is no job {str(job)[:80]!r}.")
    this = jobs().filter(id=job_id)
    anew: dict[str, Any] = {
        "run_at": None,
        "rescues": 0,
        "cancel_requested_at": None,
        "generation": generation_of_a_retry(),
        "max_attempts": Greatest(F("max_attempts"), F("attempt") + 1),
    }
    moved = dialect().in_own_transaction(lambda: _move(this, anew))
    row = this.values_list("status", "queue", "sequence_key").first()
    if row is None:
        raise JobNotFound(f"There is no job {job_id}.")
    status, queue, sequence_key = row
    if not moved:
        allowed = ", ".join(sorted(TRANSITIONS["retry"].sources))
        raise TransitionRefused(f"Job {job_id} is {status}: only a job that is {allowed} can be retried.")
    if sequence_key is not None:
        advance_after_commit([sequence_key])
    if get_settings().notify:
        dialect().notify([queue])


def _move(this: JobQuerySet, anew: dict[str, Any]) -> int:
    # One that backs off is at the front of its sequence and may go on; one that has ended is not.
    free = Q(sequence_key=None) | Q(status=Status.RETRYING.value)
    return move("retry", this.filter(free), **anew) or line_up_again(this, **anew)
