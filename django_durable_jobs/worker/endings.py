"""From how a job's code ended to an outcome: one answer per kind of error. Nothing is run or stored here."""

from __future__ import annotations

import asyncio
from typing import Final

from ..backoff import Backoff
from ..conf import get_settings
from ..dialects.rows import Claimed
from ..durable.context import JobContext, is_parking
from ..durable.running import HOPELESS
from ..errors import (
    HardTimedOut,
    Interrupted,
    JobCancelled,
    LeaseLost,
    NoRetry,
    RetryAfter,
    Snooze,
)
from ..outcomes import BackedOff, Cancelled, Failed, Failure, Lost, Outcome, Parked, Released, Snoozed
from ..rendering import format_traceback, safe_str

ERROR_LENGTH: Final = 2000
"""Characters of the error that is kept beside the job; the traceback has its own limit."""


def outcome_of(context: JobContext, error: BaseException) -> Outcome:
    """Return how the attempt ended that raised ``error``."""
    if context.lost or isinstance(error, LeaseLost):
        return Lost()
    if isinstance(context.why, HardTimedOut):
        return failed_or_backed_off(context.row, _timed_out(context.why, error), context.options.backoff)
    if isinstance(error, JobCancelled) or (isinstance(context.why, JobCancelled) and _gives_way(error)):
        return Cancelled(safe_str(context.why or error, ERROR_LENGTH))
    if context.parkings and is_parking(error):
        return _parked(context)
    if isinstance(error, Interrupted) or (context.interrupted and isinstance(error, asyncio.CancelledError)):
        return Released()
    return _of_error(context, error)


def _of_error(context: JobContext, error: BaseException) -> Outcome:
    job = context.row
    if isinstance(error, HOPELESS):
        return Failed(failure_of(error))
    match error:
        case Snooze():
            return Snoozed(error.delay)
        case NoRetry():
            return Failed(failure_of(error.reason, error))
        case RetryAfter():
            failure = failure_of(error.reason, error)
            return Failed(failure) if job.attempt >= job.max_attempts else BackedOff(failure, error.delay)
    return failed_or_backed_off(job, failure_of(error), context.options.backoff)


def failed_or_backed_off(job: Claimed, failure: Failure, backoff: Backoff | None) -> Outcome:
    """Return the outcome of an attempt that failed: the next one is due later, if there is one."""
    if job.attempt >= job.max_attempts:
        return Failed(failure)
    return BackedOff(failure, (backoff or get_settings().backoff).delay(job.attempt - 1))


def failure_of(error: BaseException | str, raised: BaseException | None = None) -> Failure:
    """Describe an error by texts that any database takes."""
    if isinstance(error, str):
        return Failure(safe_str(error, ERROR_LENGTH), _trace(raised))
    text = f"{type(error).__name__}: {safe_str(error, ERROR_LENGTH)}"
    return Failure(text, _trace(error if error.__traceback__ is not None else raised or error))


def _timed_out(why: HardTimedOut, error: BaseException) -> Failure:
    # Whatever the code raised on its way out: this is why. Where it was then is worth knowing.
    return Failure(f"TimedOut: {safe_str(why, ERROR_LENGTH)}", _trace(error))


def _trace(error: BaseException | None) -> str:
    return "" if error is None else format_traceback(error, get_settings().traceback_limit)


def _gives_way(error: BaseException) -> bool:
    """Answer whether code that ended so does not go on anyway, so that an order to cancel takes effect here."""
    return isinstance(error, asyncio.CancelledError | HardTimedOut) or is_parking(error)


def _parked(context: JobContext) -> Parked:
    waits = [parking.why for parking in context.parkings]
    untils = [wait.until for wait in waits if wait.until is not None]
    return Parked(tuple(dict.fromkeys(wait.waiting_for for wait in waits)), min(untils, default=None))
