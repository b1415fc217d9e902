"""A job that has failed or is to be cancelled, and has registered compensations: these run before its end is stored.

First one row says that the job has ended, and how: a worker that finds it goes on here and does not run the job's
function. Then the compensations run, the last one first, each as a durable call. What comes out is the ending that
was stored first, with the errors of compensations that failed; or, as with any code, that the job waits, goes back
to its queue or was lost, and a later worker goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from .. import registry
from ..dialects.rows import NewCheckpoint
from ..durable.context import JobContext
from ..durable.frames import Frame, fields_of, frames
from ..durable.job import wrapped
from ..durable.replay import History
from ..durable.running import Call, run_async, run_sync
from ..operations.checkpoints import Stored
from ..operations.compensations import (
    ENDING,
    ENDING_KEY,
    PATH,
    Ended,
    Registered,
    begin,
    ended_of,
    registered,
)
from ..operations.enqueue import with_stored_options
from ..operations.steps import not_held
from ..options import Options
from ..outcomes import Cancelled, Failed, Failure, Outcome
from ..rendering import safe_str
from ..serialization import decode_error, encode_error
from .endings import ERROR_LENGTH, outcome_of
from .leases import Leases

logger = logging.getLogger("django_durable_jobs.jobs")

FAILURES: Final = (Exception, SystemExit, KeyboardInterrupt, asyncio.CancelledError)
"""How a compensation ends that has failed; everything else ends the attempt."""


def may_follow(context: JobContext) -> bool:
    """Answer whether the job has registered compensations."""
    history = context.history_if_used
    return history is not None and history.compensated


def is_due(context: JobContext, outcome: Outcome) -> bool:
    """Answer whether this ending is to be followed by the job's compensations before it is stored."""
    return may_follow(context) and (context.is_being_undone or isinstance(outcome, Failed | Cancelled))


def take_over(context: JobContext, leases: Leases) -> JobContext:
    """Return the context of what comes after the job's code; orders to the code reach it from now on."""
    after = context.afterwards()
    if not leases.begin(context.row, after):
        after.interrupt(not_held(context.id))
    # It came before, and was meant for whatever runs. An order to cancel is not heeded any more.
    if context.why is not None:
        after.interrupt(context.why)
    return after


def compensate(context: JobContext, outcome: Outcome) -> Outcome:
    """Run what is left of the job's compensations in this thread."""
    try:
        undoing = _Undoing(context, outcome)
        context.recorder.transact(undoing.begin)
        for one in undoing.left():
            try:
                run_sync(undoing.call(one))
            except FAILURES as error:
                context.recorder.record(undoing.failed(one, error))
        return undoing.outcome()
    except BaseException as error:  # noqa: BLE001 -- as for the job's own code
        return outcome_of(context, error)


async def acompensate(context: JobContext, outcome: Outcome) -> Outcome:
    """Do the same in the task of an async job."""
    helpers = context.helpers
    try:
        undoing = _Undoing(context, outcome)
        await helpers.run(lambda: context.recorder.transact(undoing.begin))
        for one in undoing.left():
            try:
                await run_async(undoing.call(one))
            except FAILURES as error:
                if isinstance(error, asyncio.CancelledError) and context.interrupted:
                    raise
                await helpers.record(undoing.failed(one, error))
        return undoing.outcome()
    except BaseException as error:  # noqa: BLE001 -- as above
        return outcome_of(context, error)


class _Undoing:
    """The compensations of one job, and which of them have run."""

    def __init__(self, context: JobContext, outcome: Outcome) -> None:
        self._context = context
        self._outcome = outcome
        self._checkpoints: dict[str, Stored] = {}
        self._errors: dict[str, str] = {}
        self._frame = Frame(context, context.options, PATH)
        frames.set(self._frame)

    def begin(self) -> None:
        """Fix how the job ended; in a transaction, which may be repeated."""
        job, context = self._context.row, self._context
        row = context.history.checkpoint(ENDING_KEY, ENDING, ENDING)
        self._checkpoints = begin(job, row, _ended(self._outcome)) or {}
        context.history = History(job, self._checkpoints)

    def left(self) -> Sequence[Registered]:
        """Return the compensations that have not run, in the order in which they are to run."""
        self._frame.settle(_task())
        every = registered(self._checkpoints)
        self._errors = {one.key: error for one in every if (error := self._error_of(one)) is not None}
        return [one for one in reversed(every) if one.key not in self._checkpoints]

    def call(self, one: Registered) -> Call:
        """Make the durable call that undoes."""
        definition = registry.get(one.definition)
        options = with_stored_options(definition, one.options)
        args, kwargs = definition.arguments.load(one.payload)
        frame = self._frame
        # Repeats, and the time for each run, are those of the compensation, not of the job.
        frame.options = options
        frame.calls = one.number - 1
        return Call(wrapped(definition, options), Options(timeout=options.timeout), args, kwargs, frame)

    def failed(self, one: Registered, error: BaseException) -> list[NewCheckpoint]:
        """Note that a compensation failed for good; return what is to be stored."""
        context = self._context
        fields = fields_of(context.row, context.worker_name)
        logger.error("Compensation %s of job %s failed", one.definition, context.id, exc_info=error, extra=fields)
        history = context.history
        history.drop_errors_below(PATH)
        history.broken = None
        self._errors[one.key] = _sentence(one, error)
        return [history.checkpoint(one.key, one.definition, "call", error=encode_error(error))]

    def outcome(self) -> Outcome:
        """Return the ending that is to be stored at last."""
        if not self._checkpoints:
            return self._outcome
        ended = ended_of(self._checkpoints[ENDING_KEY])
        text = safe_str("; ".join([ended.error, *self._errors.values()]), ERROR_LENGTH)
        if ended.status == "cancelled":
            return Cancelled(text, ended.asked)
        return Failed(Failure(text, ended.traceback))

    def _error_of(self, one: Registered) -> str | None:
        stored = self._checkpoints.get(one.key)
        if stored is None or stored.error is None:
            return None
        return _sentence(one, decode_error(stored.error))


def _task() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _sentence(one: Registered, error: BaseException) -> str:
    return f"compensation {one.definition} failed: {type(error).__name__}: {safe_str(error, ERROR_LENGTH)}"


def _ended(outcome: Outcome) -> Ended:
    if isinstance(outcome, Failed):
        return Ended("failed", outcome.failure.error, outcome.failure.traceback)
    return Ended("cancelled", outcome.reason if isinstance(outcome, Cancelled) else "", "")
