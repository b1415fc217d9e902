"""From a claimed job to an outcome. Nothing is stored here: every ending of a job's code becomes one value.

``Executor.run`` is for threads, ``run_async`` for the event loop; both share what comes before and after the
function.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextvars import Context
from functools import lru_cache
from typing import Any, Final

from asgiref.sync import sync_to_async

from .. import registry
from ..backoff import Backoff
from ..conf import get_settings
from ..definitions import Definition, Options
from ..dialects.rows import Claimed
from ..durable.context import Frame, JobContext, frames
from ..durable.recorder import Recorder
from ..errors import (
    DurableJobsError,
    Interrupted,
    LeaseLost,
    NonDeterminism,
    NoRetry,
    RetryAfter,
    SerializationError,
    Snooze,
)
from ..faults import fault
from ..outcomes import BackedOff, Completed, Failed, Failure, Lost, Outcome, Released, Snoozed
from ..rendering import format_traceback, safe_str
from . import sessions
from .leases import Leases

logger = logging.getLogger("django_durable_jobs.jobs")

ERROR_LENGTH: Final = 2000
"""Characters of the error that is kept beside the job; the traceback has its own limit."""


class Executor:
    """Runs the functions of claimed jobs."""

    def __init__(self, leases: Leases, recorder: Recorder, worker_name: str) -> None:
        """Take what the jobs of this process share."""
        self._leases = leases
        self._recorder = recorder
        self._worker_name = worker_name

    def run(self, job: Claimed) -> Outcome:
        """Run a job in this thread, whatever it raises."""
        sessions.before_job()
        try:
            return Context().run(self._run, job)
        finally:
            sessions.clean_up()

    def _run(self, job: Claimed) -> Outcome:
        prepared = self._prepare(job)
        if not isinstance(prepared, _Prepared):
            return prepared
        frames.set(Frame(prepared.context))
        try:
            fault("before-body")
            value = prepared.definition.function(*prepared.args, **prepared.kwargs)
            fault("after-body")
            return self._returned(prepared, value)
        except BaseException as error:  # noqa: BLE001 -- SystemExit and the like of a job end the job, not the worker
            return self._raised(prepared, error)

    async def run_async(self, job: Claimed) -> Outcome:
        """Run an ``async def`` job on the event loop; a cancelled task becomes a released job."""
        prepared = self._prepare(job)
        if not isinstance(prepared, _Prepared):
            return prepared
        frames.set(Frame(prepared.context))
        try:
            value = await prepared.definition.function(*prepared.args, **prepared.kwargs)
            if prepared.context.history_if_used is None:
                return self._returned(prepared, value)
            return await sync_to_async(self._returned, thread_sensitive=False)(prepared, value)
        except BaseException as error:  # noqa: BLE001 -- as above
            return self._raised(prepared, error)

    def is_async(self, job: Claimed) -> bool:
        """Answer whether the job belongs on the event loop; an unknown one fails in a thread."""
        try:
            return registry.get(job.definition).is_async
        except DurableJobsError:
            return False

    def _prepare(self, job: Claimed) -> _Prepared | Outcome:
        try:
            definition = registry.get(job.definition)
            options = definition.options if job.options is None else _with_overrides(definition, job.options)
            args, kwargs = definition.arguments.load(job.payload)
        except DurableJobsError as error:
            # Neither time nor another attempt mends this; code or an operator does.
            logger.error("Job %s cannot run: %s", job.id, error, extra=_fields(job, self._worker_name))
            return Failed(_failure(error))
        context = JobContext(job, options, self._recorder, worker_name=self._worker_name)
        if not self._leases.begin(job, context):
            return Lost()
        return _Prepared(definition, args, kwargs, context)

    def _returned(self, prepared: _Prepared, value: object) -> Outcome:
        history = prepared.context.history_if_used
        if history is not None:
            history.note_job_returns()
            if caught := history.take_caught():
                self._recorder.record(caught)
        if value is None:
            return Completed(None)
        limit = get_settings().result_limit
        try:
            text = prepared.definition.result.encode(value, limit=limit, what=f"result of {prepared.definition.name}")
        except SerializationError as error:
            # The work is done; running it again would give the same result.
            raise NoRetry(error) from error
        return Completed(text)

    def _raised(self, prepared: _Prepared, error: BaseException) -> Outcome:
        job = prepared.context.row
        outcome = self._outcome_of(prepared, error)
        fields = _fields(job, self._worker_name)
        match outcome:
            case Failed(failure):
                logger.error("Job %s failed: %s", job.id, failure.error, extra=fields)
            case BackedOff(failure, delay):
                seconds = delay.total_seconds()
                logger.warning("Job %s failed, next attempt in %.3g s: %s", job.id, seconds, failure.error, extra=fields)
            case Lost():
                logger.warning("Job %s was lost to another worker; its code was stopped", job.id, extra=fields)
            case _:
                logger.info("Job %s ended as %s", job.id, type(outcome).__name__, extra=fields)
        return outcome

    def _outcome_of(self, prepared: _Prepared, error: BaseException) -> Outcome:  # noqa: PLR0911 -- one answer per kind
        job = prepared.context.row
        if prepared.context.lost or isinstance(error, LeaseLost):
            return Lost()
        match error:
            case Interrupted():
                return Released()
            case asyncio.CancelledError() if prepared.context.interrupted:
                return Released()
            case Snooze():
                return Snoozed(error.delay)
            case NoRetry():
                return Failed(_failure(error.reason, error))
            case NonDeterminism():
                return Failed(_failure(error))
            case RetryAfter():
                failure = _failure(error.reason, error)
                return Failed(failure) if job.attempt >= job.max_attempts else BackedOff(failure, error.delay)
        failure = _failure(error)
        if job.attempt >= job.max_attempts:
            return Failed(failure)
        backoff = prepared.context.options.backoff or get_settings().backoff
        return BackedOff(failure, backoff.delay(job.attempt - 1))


class _Prepared:
    """Everything that is known when a job's function is about to be called."""

    __slots__ = ("args", "context", "definition", "kwargs")

    def __init__(
        self, definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any], context: JobContext
    ) -> None:
        self.definition = definition
        self.args = args
        self.kwargs = kwargs
        self.context = context


@lru_cache(maxsize=1024)
def _with_overrides(definition: Definition, text: str) -> Options:
    """Return the definition's options with those stored at the enqueue; remembered, as few texts differ."""
    try:
        stored = json.loads(text)
        given = {
            name: Backoff.from_form(value) if name in {"backoff", "call_backoff"} else value
            for name, value in stored.items()
        }
        return definition.options.changed(given)
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise SerializationError(f"The stored options of the job cannot be read: {safe_str(error, 200)}") from error


def _failure(error: BaseException | str, raised: BaseException | None = None) -> Failure:
    """Describe an error by texts that any database takes."""
    if isinstance(error, str):
        return Failure(safe_str(error, ERROR_LENGTH), _trace(raised))
    text = f"{type(error).__name__}: {safe_str(error, ERROR_LENGTH)}"
    return Failure(text, _trace(error if error.__traceback__ is not None else raised or error))


def _trace(error: BaseException | None) -> str:
    return "" if error is None else format_traceback(error, get_settings().traceback_limit)


def _fields(job: Claimed, worker_name: str) -> dict[str, object]:
    return {
        "job": str(job.id),
        "definition": job.definition,
        "attempt": job.attempt,
        "queue": job.queue,
        "worker": worker_name,
    }

