"""One transaction per step of a running job: under its token, and stored once.

Everything durable that is more than a result goes through here: the deadline of a wait, a message with its
consumption, the children of a call. The job's row is locked first, so the step happens with the checkpoint that says
so, and only while the lease is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID

from ..dialects.rows import Claimed, NewCheckpoint
from ..errors import JobCancelled, JobPaused, LeaseLost
from ..models import Checkpoint
from .checkpoints import Stored, save
from .database import alias, jobs


def not_held(job_id: UUID) -> LeaseLost:
    """Return what is raised into an attempt whose token is not the present one."""
    return LeaseLost(f"Job {job_id} is no longer held under this token.")


def cancelled(job_id: UUID) -> JobCancelled:
    """Return what is raised into an attempt whose job is to be cancelled."""
    return JobCancelled(f"Job {job_id} was cancelled by an order.")


def paused(job_id: UUID) -> JobPaused:
    """Return what is raised into an attempt whose job is to be paused."""
    return JobPaused(f"Job {job_id} is to be paused.")


def hold(job: Claimed, *, heed: bool = True) -> None:
    """Lock the row of a running job under its token, for the rest of the transaction.

    Raises ``LeaseLost`` when the token is no longer the present one, and ``JobCancelled`` or ``JobPaused`` when that
    is ordered, unless it is not to be heeded.
    """
    this = jobs().running().filter(id=job.id, token=job.token).select_for_update()
    found = this.values_list("cancel_requested_at", "pause_requested_at").first()
    if found is None:
        raise not_held(job.id)
    if heed and found[0] is not None:
        raise cancelled(job.id)
    if heed and found[1] is not None:
        raise paused(job.id)


def once(
    job: Claimed,
    row: NewCheckpoint,
    decide: Callable[[], str | None],
    *,
    before: Sequence[NewCheckpoint] = (),
    heed: bool = True,
) -> Stored | None:
    """Return the checkpoint at the key of ``row``, or store what ``decide`` returns there; ``None`` stores nothing.

    To be called in a transaction, which may be repeated: what was decided and stored the first time is found the
    second time. ``before`` are rows that go into the same commit.
    """
    hold(job, heed=heed)
    place = Checkpoint.objects.using(alias()).filter(job_id=job.id, generation=row.generation, key=row.key)
    found = place.values_list("name", "kind", "result", "error").first()
    if found is not None:
        return Stored(*found)
    if before:
        save(before)
    result = decide()
    if result is None:
        return None
    Checkpoint.objects.using(alias()).create(
        job_id=job.id, generation=row.generation, key=row.key, name=row.name, kind=row.kind, result=result
    )
    return Stored(row.name, row.kind, result, None)
