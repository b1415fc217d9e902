"""From a claimed job to an outcome. Nothing is stored here: every ending of a job's code becomes one value.

``Executor.run`` is for threads, ``run_async`` for the event loop; both share what comes before and after the
function.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextvars import Context
from types import CoroutineType
from typing import Any

from asgiref.sync import async_to_sync

from .. import registry
from ..conf import get_settings
from ..definitions import Definition
from ..dialects.rows import Claimed, NewCheckpoint
from ..durable.context import JobContext
from ..durable.doors import TaskDoor, ThreadDoor, was_struck
from ..durable.frames import Frame, fields_of, frames
from ..durable.recorder import Recorder
from ..durable.replay import History
from ..durable.running import awaited, in_time
from ..durable.threads import Helpers
from ..errors import (
    DurableJobsError,
    NoRetry,
    OpenTransaction,
    SerializationError,
)
from ..faults import fault
from ..operations.checkpoints import Steady
from ..operations.enqueue import with_stored_options
from ..operations.facts import tell_started
from ..operations.steps import cancelled
from ..outcomes import BackedOff, Completed, Failed, Failure, Lost, Outcome, Released
from ..signals import job_started
from . import compensations, sessions
from .atomic import run_atomic
from .branches import end_tasks, let_branches_end
from .endings import failed_or_backed_off, failure_of, outcome_of
from .leases import Leases
from .stops import Stops

logger = logging.getLogger("django_durable_jobs.jobs")


class Executor:
    """Runs the functions of claimed jobs."""

    def __init__(self, leases: Leases, recorder: Recorder, worker_name: str, *, steady: Steady | None = None) -> None:
        """Take what the jobs of this process share; ``steady`` reads checkpoints when the database is shaky."""
        self._leases = leases
        self._recorder = recorder
        self._worker_name = worker_name
        self.stops = Stops()
        """What is to be stopped although it does not ask."""
        self._steady = steady or Steady(get_settings().lease)
        self._helpers = Helpers(
            recorder,
            get_settings().concurrency,
            around=sessions.around,
            between=sessions.between,
            clean=sessions.clean_up,
        )

    def close(self) -> None:
        """Let the threads of async jobs end, and close the connection of checkpoints."""
        self._helpers.close()
        self._recorder.close()

    def run(self, job: Claimed) -> Outcome:
        """Run a job in this thread. Raises nothing, whatever the job does: the thread has others to run."""
        try:
            sessions.before_job()
            # A context of its own: what a job sets there, the next one must not see.
            outcome = Context().run(self._run, job)
        except BaseException as error:  # noqa: BLE001 -- not the job's code, which is caught closer to it
            outcome = self._stumbled(job, error)
        return self._cleaned(job, outcome)

    def _cleaned(self, job: Claimed, outcome: Outcome) -> Outcome:
        """Clean the connections of this thread after code of the job; return how that ended after all."""
        try:
            left = sessions.clean_up(anew=was_struck())
        except BaseException:
            fields = fields_of(job, self._worker_name)
            logger.exception("Connections could not be cleaned after job %s", job.id, extra=fields)
            return outcome
        return outcome if left is None else self._left_open(job, outcome, left)

    def _left_open(self, job: Claimed, outcome: Outcome, left: OpenTransaction) -> Outcome:
        """Refuse the completion of a job whose writes were rolled back; the same code would do the same again."""
        fields = fields_of(job, self._worker_name)
        if not isinstance(outcome, Completed):
            logger.warning("Job %s ended with its own outcome. %s", job.id, left, extra=fields)
            return outcome
        failure = failure_of(left)
        logger.error("Job %s failed: %s", job.id, failure.error, extra=fields)
        return Failed(failure)

    def _run(self, job: Claimed) -> Outcome:
        prepared = self._prepare(job)
        if not isinstance(prepared, Prepared):
            return prepared
        context = prepared.context
        frame = Frame(context, context.options)
        frames.set(frame)
        outcome: Outcome = Released()
        try:
            if job.token > 1:
                context.history = self._history(context)
            if not context.is_being_undone:
                outcome = self._body(prepared, frame)
        except BaseException as error:  # noqa: BLE001 -- SystemExit and the like of a job end the job, not the worker
            outcome = self._raised(prepared, error)
        if compensations.may_follow(context):
            # A transaction that the code left open is no place for them, and may be why they are due.
            outcome = self._cleaned(job, outcome)
        if compensations.is_due(context, outcome):
            outcome = compensations.compensate(compensations.take_over(context, self._leases), outcome)
        return outcome

    def _body(self, prepared: Prepared, frame: Frame) -> Outcome:
        context = prepared.context
        context.check()
        frame.begin()
        fault("before-body")
        context.door = door = ThreadDoor()
        stop = self.stops.limit([context], door)
        try:
            if prepared.definition.atomic:
                return run_atomic(context.row, self._recorder, lambda: self._result(prepared))
            value = prepared.definition.function(*prepared.args, **prepared.kwargs)
            if type(value) is CoroutineType:
                value = async_to_sync(awaited)(frame, value)
        finally:
            door.close()
            self.stops.forget(stop)
        fault("after-body")
        history = context.history_if_used
        if history is not None and (caught := _caught_by_returning(frame, history, prepared.definition)):
            self._recorder.record(caught)
        return self._returned(prepared, value)

    def _result(self, prepared: Prepared) -> str | None:
        value = prepared.definition.function(*prepared.args, **prepared.kwargs)
        fault("after-body")
        text = self._returned(prepared, value).result
        # Its completion comes with its commit: the heartbeat may find it before this thread has said so.
        self._leases.code_is_over(prepared.context.row)
        return text

    async def run_async(self, job: Claimed) -> Outcome:
        """Run an ``async def`` job on the event loop; a cancelled task becomes a released job."""
        try:
            prepared = self._prepare(job)
        except BaseException as error:  # noqa: BLE001 -- as in run()
            return self._stumbled(job, error)
        if not isinstance(prepared, Prepared):
            return prepared
        context = prepared.context
        lane = self._helpers.enter()
        frame = Frame(context, context.options)
        frame.settle(task := asyncio.current_task())
        frames.set(frame)
        assert task is not None  # noqa: S101 -- a coroutine runs in one
        heed_no_more = context.cancels(task)
        outcome: Outcome = Released()
        try:
            if job.token > 1:
                context.history = await self._helpers.run(lambda: self._history(context))
            if not context.is_being_undone:
                outcome = await self._body_async(prepared, frame)
        except BaseException as error:  # noqa: BLE001 -- as above
            if context.parkings:
                await let_branches_end(context)
            outcome = self._raised(prepared, error)
        if compensations.is_due(context, outcome):
            heed_no_more()
            after = compensations.take_over(context, self._leases)
            # Branches of the attempt end before anything is undone.
            await end_tasks(context)
            outcome = await compensations.acompensate(after, outcome)
            context = after
        await end_tasks(context)
        self._helpers.leave(lane)
        return outcome

    async def _body_async(self, prepared: Prepared, frame: Frame) -> Outcome:
        context = prepared.context
        context.check()
        frame.begin()
        fault("before-body")
        value = await self.limited(prepared, [context])
        fault("after-body")
        history = context.history_if_used
        if history is not None and (caught := _caught_by_returning(frame, history, prepared.definition)):
            await self._helpers.record(caught)
        return self._returned(prepared, value)

    async def limited(self, prepared: Prepared, contexts: Sequence[JobContext]) -> Any:
        """Run an async job's function, or that of a chunk of jobs, under its time limits."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 -- a coroutine runs in one
        door = TaskDoor(task)
        if len(contexts) == 1:
            contexts[0].door = door
        stop = self.stops.limit(contexts, door)
        try:
            return await timed(prepared)
        finally:
            door.close()
            self.stops.forget(stop)

    def _history(self, context: JobContext) -> History:
        # Before the job's code runs: afterwards the thread's connection may be set to another schema.
        job = context.row
        return History(job, self._steady.load(job.id, job.generation), context.determinism)

    def definition_of(self, job: Claimed) -> Definition | None:
        """Return what the job runs; ``None`` for a name that is not known here."""
        try:
            return registry.get(job.definition)
        except DurableJobsError:
            return None

    def _prepare(self, job: Claimed) -> Prepared | Outcome:
        try:
            definition = registry.get(job.definition)
            options = with_stored_options(definition, job.options)
            args, kwargs = definition.arguments.load(job.payload)
        except DurableJobsError as error:
            # Neither time nor another attempt mends this; code or an operator does.
            fields = fields_of(job, self._worker_name)
            logger.error("Job %s cannot run: %s", job.id, error, extra=fields)  # noqa: TRY400 -- our own message
            return Failed(failure_of(error))
        context = JobContext(job, options, self._recorder, worker_name=self._worker_name, helpers=self._helpers)
        if not self._leases.begin(job, context):
            return Lost()
        if job_started.receivers:
            tell_started(job, self._worker_name)
        if job.cancel_requested_at is not None:
            context.interrupt(cancelled(job.id))
        return Prepared(definition, args, kwargs, context)

    def _returned(self, prepared: Prepared, value: object) -> Completed:
        if value is None:
            return Completed(None)
        limit = get_settings().result_limit
        try:
            text = prepared.definition.result.encode(value, limit=limit, what=f"result of {prepared.definition.name}")
        except SerializationError as error:
            # The work is done; running it again would give the same result.
            raise NoRetry(error) from error
        return Completed(text)

    def _raised(self, prepared: Prepared, error: BaseException) -> Outcome:
        job = prepared.context.row
        outcome = outcome_of(prepared.context, error)
        fields = fields_of(job, self._worker_name)
        match outcome:
            case Failed(failure):
                logger.error("Job %s failed: %s", job.id, failure.error, extra=fields)
            case BackedOff(failure, delay):
                seconds = delay.total_seconds()
                logger.warning(
                    "Job %s failed, next attempt in %.3g s: %s", job.id, seconds, failure.error, extra=fields
                )
            case Lost():
                logger.warning("Job %s was lost to another worker; its code was stopped", job.id, extra=fields)
            case _:
                logger.info("Job %s ended as %s", job.id, type(outcome).__name__, extra=fields)
        return outcome

    def _stumbled(self, job: Claimed, error: BaseException) -> Outcome:
        """Make an outcome of an error outside of the job's code, such as memory that is full."""
        try:
            logger.error("Job %s could not be run", job.id, exc_info=error, extra=fields_of(job, self._worker_name))
            failure = failure_of(error)
        except BaseException:  # noqa: BLE001 -- even describing it fails
            failure = Failure(f"{type(error).__name__} (it cannot be described)", "")
        return failed_or_backed_off(job, failure, None)


class Prepared:
    """Everything that is known when a job's function is about to be called."""

    __slots__ = ("args", "context", "definition", "kwargs")

    def __init__(
        self, definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any], context: JobContext
    ) -> None:
        self.definition = definition
        self.args = args
        self.kwargs = kwargs
        self.context = context


def _caught_by_returning(frame: Frame, history: History, definition: Definition) -> list[NewCheckpoint]:
    # Code that swallowed a wait has not come to its end; that its time is over does not matter any more.
    frame.deadline = None
    frame.check_parkings()
    history.note_job_returns()
    history.note_returns(frame.path, frame.calls, definition.function)
    return history.take_caught()


async def timed(prepared: Prepared) -> Any:
    """Run an async job's function; what takes longer than it may is cancelled where it waits."""
    run = prepared.definition.function(*prepared.args, **prepared.kwargs)
    return await in_time(run, prepared.context.options.timeout, "The attempt")
