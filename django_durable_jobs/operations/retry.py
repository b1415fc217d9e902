"""An operator's order to run a job again. A new job that begins where another one was: ``fork.py``."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db.models import F, Q
from django.db.models.functions import Greatest

from ..conf import get_settings
from ..errors import JobNotFound, TransitionRefused
from ..ids import Identified, id_of
from ..querysets.jobs import JobQuerySet
from ..states import TRANSITIONS, Status
from . import generations
from .compensations import being_undone, is_undone
from .database import dialect, jobs
from .sequences import advance_after_commit, line_up_again
from .transition import move
from .unique import hold_again


def retry(job: Identified | UUID | str, *, from_call: str | int | None = None) -> None:
    """Put a failed, cancelled, expired or retrying job back into its queue, now.

    It gets at least one more attempt; its checkpoints and its history of attempts stay. But a job whose compensations
    have run begins anew, from its first call; one whose compensations have not all run goes on with these. An ended
    job of a sequence waits for its turn: it is the next after the one that is under way.

    With ``from_call`` (``"3"``, ``"3.1"``) that call and everything after it runs again: a new generation of
    checkpoints begins there, the old one is kept as history; messages that those calls had received can be received
    again, their open children are cancelled, and their compensations still run should the job fail in the end. Raises
    ``JobNotFound``, ``TransitionRefused`` when its status, or what was undone, does not allow it, ``JobExists`` when
    another job holds its unique key, and ``OptionError`` for a call that it has not come to; then nothing has changed.
    """
    job_id = id_of(job)
    this = jobs().filter(id=job_id)
    moved = dialect().in_own_transaction(lambda: _retry(this, job_id, from_call))
    row = this.values_list("status", "queue", "sequence_key").first()
    if row is None:
        raise JobNotFound(f"There is no job {job_id}.")
    status, queue, sequence_key = row
    if not moved:
        allowed = ", ".join(sorted(TRANSITIONS["retry"].sources))
        instead = "" if from_call is None else " fork() makes a new job that goes on from a call of this one."
        raise TransitionRefused(f"Job {job_id} is {status}: only a job that is {allowed} can be retried.{instead}")
    if sequence_key is not None:
        advance_after_commit([sequence_key])
    if get_settings().notify:
        dialect().notify([queue])


async def aretry(job: Identified | UUID | str, *, from_call: str | int | None = None) -> None:
    """Do what ``retry`` does without blocking the event loop."""
    await sync_to_async(retry)(job, from_call=from_call)


def requeue(job: Identified | UUID | str) -> None:
    """Have a job that could be retried run again from its start: nothing that its calls had recorded is used again.

    ``retry`` goes on where the job was. This begins a new generation of checkpoints with the code as it is today; its
    history of attempts stays, and what was recorded is kept with the old generation: ``retry(job, from_call=1)``.
    """
    retry(job, from_call=1)


async def arequeue(job: Identified | UUID | str) -> None:
    """Do what ``requeue`` does without blocking the event loop."""
    await sync_to_async(requeue)(job)


def _retry(this: JobQuerySet, job_id: UUID, from_call: str | int | None) -> int:
    hold_again(job_id)
    if from_call is not None:
        # Locked before its checkpoints are read: it cannot be claimed or deleted meanwhile.
        may = this.in_status(*TRANSITIONS["retry"].sources).select_for_update()
        found = may.values_list("id", "generation").first()
        if found is None:
            return 0
        _begin_generation(*found, from_call)
    return put_back(this)


def put_back(these: JobQuerySet) -> int:
    """Let jobs run again that have ended without a result, or back off, and return how many; in a transaction.

    Each gets at least one more attempt; those that were undone begin anew. An ended one of a sequence waits for its
    turn: the caller looks at the sequences after the commit (``advance_after_commit``), and notifies.
    """
    may = these.in_status(*TRANSITIONS["retry"].sources).filter(is_undone())
    generations.begin_anew(list(may.order_by("id").select_for_update().values_list("id", flat=True)))
    # One that has come to be undone only now is left alone: it would end at once as it did.
    these = these.exclude(is_undone())
    anew: dict[str, Any] = {
        "run_at": None,
        "expires_at": None,
        "rescues": 0,
        "cancel_requested_at": None,
        "max_attempts": Greatest(F("max_attempts"), F("attempt") + 1),
    }
    # One that backs off in a sequence is at the front and may go on; one that has no place must line up.
    free = Q(sequence_key=None) | Q(status=Status.RETRYING.value, waiting_for=None)
    return move("retry", these.filter(free), **anew) + line_up_again(these, **anew)


def _begin_generation(job_id: UUID, generation: int, from_call: str | int) -> None:
    call = generations.check_call(from_call, job_id, generation)
    if not being_undone(job_id, generation):
        generations.begin(job_id, generation, generations.before(call))
    elif not jobs().filter(is_undone(), id=job_id).exists():
        raise TransitionRefused(
            f"The compensations of job {job_id} have not all run: retry it without naming a call, so that they go on."
        )
