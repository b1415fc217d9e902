"""Undoing: what a job has done is undone by the calls it registers, when it fails for good or is cancelled.

Here a compensation is registered. When and how they run stands in ``worker/compensations.py``.
"""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial
from typing import Any, ParamSpec

from ..conf import get_settings
from ..errors import DefinitionError, NotInJob
from ..operations.checkpoints import LONGEST_NAME
from ..operations.compensations import COMPENSATION, being_undone, registered_form
from ..operations.enqueue import stored_options
from .job import DurableJob, get_job
from .points import Point, elsewhere, here

P = ParamSpec("P")


def compensate(job: DurableJob[P, Any] | str, /, *args: P.args, **kwargs: P.kwargs) -> None:
    """Register what undoes a call that was made: ``compensate(refund, receipt.number)``.

    When the job fails for good or is cancelled, its compensations run before that is stored, the last one first, in
    a worker, each at least once: as a durable call that is repeated as its own ``call_retries`` and ``call_backoff``
    say, and that a later worker goes on with. One that fails in the end does not keep the others from running;
    the job's error names it. An attempt that is followed by another one undoes nothing. What is registered here is
    kept also when the job is to be cancelled; the code is stopped afterwards.

    ``job`` is a durable job or the name of one (``DefinitionError`` for a plain function, which another process
    could not find); the arguments are checked and stored here. Raises ``NotInJob`` outside of a job and inside a
    compensation.
    """
    target, form = _checked(job, args, kwargs)
    _register(here("compensate()", _name(target), COMPENSATION), form)


def acompensate(job: DurableJob[P, Any] | str, /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[None]:
    """Do what ``compensate`` does in an ``async def`` job; what undoes may be sync or async there, too."""
    target, form = _checked(job, args, kwargs)
    return elsewhere("compensate()", _name(target), COMPENSATION, partial(_register, form=form))


def _name(target: DurableJob[..., Any]) -> str:
    return f"compensate {target.name}"[:LONGEST_NAME]


def _checked(job: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[DurableJob[..., Any], str]:
    target = get_job(job) if isinstance(job, str) else job
    if not isinstance(target, DurableJob):
        shown = getattr(job, "__qualname__", type(job).__name__)
        raise DefinitionError(
            f"compensate() takes a durable job or the name of one, not {shown}: it may run much later in another "
            "process, which finds it by its registered name. Put @durable_job on it."
        )
    definition = target.definition
    payload = definition.arguments.dump(args, kwargs, get_settings().argument_limit)
    return target, registered_form(definition.name, payload, stored_options(target.options, definition.options))


def _register(point: Point, form: str) -> None:
    """Store it, also if the job is to be cancelled or its time is over; that is raised when it is stored."""
    if point.recorded() is None:
        _store(point, form)
    point.frame.check()


def _store(point: Point, form: str) -> None:
    row = point.job.row

    def decide() -> str:
        # A branch of an attempt that is over may still run in a thread: what is undone by now is fixed.
        if being_undone(row.id, row.generation):
            raise NotInJob("compensate() was called while the compensations of the job run: nothing undoes these.")
        return form

    point.once(decide)
    point.job.history.compensated = True
