"""A new job that begins where another one was at a call: with its checkpoints up to there, perhaps other arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from .. import registry
from ..conf import get_settings
from ..definitions import Definition
from ..dialects.rows import NewJob
from ..errors import ArgumentError, JobNotFound
from ..ids import Identified, id_of, new_job_id
from ..models import Job
from ..options import check_queue
from . import generations
from .database import dialect, jobs
from .enqueue import insert
from .reports import RUN, RUN_KEY

TAKEN_OVER: Final = ("tenant", "concurrency_key", "sequence_key")
"""Columns that say what a job is about, as its tags do; not where it came from (parent, batch, schedule)."""


def fork(
    job: Identified | UUID | str,
    *,
    from_call: str | int = 1,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    queue: str | None = None,
) -> tuple[UUID, str]:
    """Store the job and return its id and definition; see ``durable.fork``."""
    job_id = id_of(job)
    old = jobs().filter(id=job_id).first()
    if old is None:
        raise JobNotFound(f"There is no job {job_id}.")
    definition = registry.get(old.definition)
    new = NewJob(
        id=new_job_id(),
        definition=old.definition,
        queue=old.queue if queue is None else check_queue(queue),
        rank=old.rank,
        payload=_payload(definition, old.payload, args, kwargs),
        max_attempts=old.max_attempts,
        options=old.options,
        run_at=None,
        delay=None,
        # The token of a job that was claimed before: a worker reads no checkpoints for the first claim of a job.
        more={"origin_id": old.id, "token": 1, **{name: getattr(old, name) for name in TAKEN_OVER}},
    )
    dialect().in_own_transaction(lambda: _store(new, old, from_call))
    return new.id, new.definition


def _payload(definition: Definition, stored: str, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None) -> str:
    """Return the arguments of the new job; those of the old one must fit the function as it is now."""
    if args is None and kwargs is None:
        definition.arguments.load(stored)
        return stored
    if isinstance(args, str | bytes) or not isinstance(args, Sequence | None):
        raise ArgumentError(f"args must be a tuple or list of positional arguments, not {type(args).__name__}.")
    if not isinstance(kwargs, Mapping | None):
        raise ArgumentError(f"kwargs must be a dictionary of keyword arguments, not {type(kwargs).__name__}.")
    return definition.arguments.dump(tuple(args or ()), dict(kwargs or {}), get_settings().argument_limit)


def _store(new: NewJob, old: Job, from_call: str | int) -> None:
    """Store the job with its checkpoints.

    The old row is not locked, so that a job that runs is not held up: checkpoints do not change, and one that
    vanishes meanwhile (the job is deleted) is noticed.
    """
    before = generations.before(generations.check_call(from_call, old.id, old.generation))
    insert([new])
    if old.tags is not None:
        jobs().filter(id=new.id).update(tags=old.tags)
    generations.copy(old.id, old.generation, _finished(before, old), to=new.id, as_generation=0)


def _finished(keep: generations.Keep, old: Job) -> generations.Keep:
    """Leave out what unfinished waits have fixed: their children and questions are the old job's."""
    rows = old.checkpoints.filter(generation=old.generation)
    keys = set(rows.values_list("key", flat=True))
    # A run of a pipeline begins anew: its time, and what its hooks are told.
    run = f"{RUN_KEY}." if rows.filter(key=RUN_KEY, kind=RUN).exists() else None

    def keep_finished(key: str) -> bool:
        if run is not None and f"{key}.".startswith(run):
            return False
        call = generations.beginning_of(key)
        return keep(key) and (call is None or (call in keys and keep(call)))

    return keep_finished
