"""An operator's order to run a job again. A new job that begins where another one was: ``fork.py``."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import F
from django.db.models.functions import Greatest

from ..conf import get_settings
from ..errors import JobNotFound, TransitionRefused
from ..ids import parse_id
from ..models import Job
from ..querysets.jobs import JobQuerySet
from ..states import TRANSITIONS
from . import generations
from .database import dialect, jobs
from .transition import move


def retry(job: Job | UUID | str, *, from_call: str | int | None = None) -> None:
    """Put a failed, cancelled, expired or retrying job back into its queue, now.

    It gets at least one more attempt; its checkpoints and its history of attempts stay. With ``from_call`` (``"3"``,
    ``"3.1"``) that call and everything after it runs again: a new generation of checkpoints begins there, the old
    one is kept as history; messages that those calls had received can be received again, their open children are
    cancelled. Raises ``JobNotFound``, ``TransitionRefused`` when its status does not allow it, and
    ``OptionError`` for a call that it has not come to; then nothing has changed.
    """
    job_id = job.id if isinstance(job, Job) else parse_id(job)
    if job_id is None:
        raise JobNotFound(f"There is no job {str(job)[:80]!r}.")
    this = jobs().filter(id=job_id)
    moved = dialect().in_own_transaction(lambda: _retry(this, from_call))
    row = this.values_list("status", "queue").first()
    if row is None:
        raise JobNotFound(f"There is no job {job_id}.")
    status, queue = row
    if not moved:
        allowed = ", ".join(sorted(TRANSITIONS["retry"].sources))
        instead = "" if from_call is None else " fork() makes a new job that goes on from a call of this one."
        raise TransitionRefused(f"Job {job_id} is {status}: only a job that is {allowed} can be retried.{instead}")
    if get_settings().notify:
        dialect().notify([queue])


def _retry(this: JobQuerySet, from_call: str | int | None) -> int:
    changes: dict[str, Any] = {}
    if from_call is not None:
        # Locked before its checkpoints are read: it cannot be claimed or deleted meanwhile.
        may = this.in_status(*TRANSITIONS["retry"].sources).select_for_update()
        found = may.values_list("id", "generation").first()
        if found is None:
            return 0
        job_id, generation = found
        generations.begin(job_id, generation, generations.before(generations.check_call(from_call, job_id, generation)))
        changes = {"generation": generation + 1}
    return move(
        "retry",
        this,
        run_at=None,
        rescues=0,
        cancel_requested_at=None,
        max_attempts=Greatest(F("max_attempts"), F("attempt") + 1),
        **changes,
    )
