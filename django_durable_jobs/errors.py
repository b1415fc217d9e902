"""Every exception of the package, in one tree.

::

    DurableJobsError
    ├── ArgumentError (TypeError)          arguments do not fit the function
    ├── SerializationError (TypeError)     a value cannot be stored, or a stored text cannot be read
    ├── DefinitionError (TypeError)        a decorator that cannot work, at import
    ├── OptionError (ValueError)           an option's value is out of its range
    ├── UnknownDefinition (LookupError)    no durable job has this name
    ├── JobNotFound (LookupError)          no such job
    ├── QueueNotFound (LookupError)        no such queue
    ├── WorkerNotFound (LookupError)       no live worker has this id
    ├── TransitionRefused                  the job's status does not allow this order
    │   ├── JobEnded                       what is sent to the job cannot reach it any more
    │   ├── AlreadyPaused                  a job, queue or worker that is paused, or is about to be
    │   ├── NotPaused                      an order to resume what is not paused
    │   ├── NotLimited                     an order to take a limit back that there is not
    │   ├── QueueNotEmpty                  an order to delete a queue in which jobs have not ended
    │   └── CannotPause                    a job that has ended, or is to be cancelled
    ├── ApprovalNotFound (LookupError)     no such approval
    ├── ApprovalDecided                    somebody has decided this approval already
    ├── ApprovalExpired                    the job does not wait for this decision any more
    ├── BatchNotFound (LookupError)        no such batch
    ├── BatchClosed                        a batch that is closed takes more from its members only
    ├── NotInJob (RuntimeError)            a durable call outside a running job
    ├── OpenTransaction (RuntimeError)     a plain durable call inside ``atomic()``
    ├── BrokenTransaction (RuntimeError)   code ended or broke the transaction that it runs in
    ├── NonDeterminism (RuntimeError)      replay met another call than the recorded one
    ├── HistoryUnreadable (ValueError)     this is not a recorded history, or one of another version
    ├── TooDeep (RecursionError)           calls or children are nested deeper than the settings allow
    ├── JobExists                          another live job holds the unique key
    ├── WorkerNameTaken                    a live worker has this id
    ├── JobFailed                          ``result()`` of a job that did not complete
    │   ├── ChildFailed                    children of a ``gather()`` ended without a result
    │   └── TaskFailed                     a task of a pipeline failed, so the pipeline did
    ├── TimedOut (TimeoutError)            an attempt, a call or a wait took longer than it may
    └── CallError                          a stored error whose class this process does not know

    Control flow, raised by a job's own code:
    NoRetry, RetryAfter, Snooze            (``Exception``)

    Raised *into* a job's code; a ``BaseException`` so that ``except Exception`` lets it pass:
    Interrupted
    ├── JobCancelled
    ├── JobPaused
    ├── HardTimedOut
    └── LeaseLost
    Parking                                (the job's code ends here; the job waits)

The docstring of a class is its default message. A message says what was given, what is allowed and what to
do next.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from uuid import UUID


class DurableJobsError(Exception):
    """Something about a durable job went wrong."""

    def __init__(self, message: str = "") -> None:
        """Take the message, or the first line of the class's docstring."""
        super().__init__(message or (self.__doc__ or "").partition("\n")[0])


class ArgumentError(DurableJobsError, TypeError):
    """The arguments do not fit the function's signature."""


class SerializationError(DurableJobsError, TypeError):
    """The value cannot be stored, or what was stored cannot be read back."""


class DefinitionError(DurableJobsError, TypeError):
    """This function cannot be a durable job."""


class OptionError(DurableJobsError, ValueError):
    """The value of an option is out of its range."""


class UnknownDefinition(DurableJobsError, LookupError):
    """No durable job is registered under this name."""


class JobNotFound(DurableJobsError, LookupError):
    """There is no such job."""


class QueueNotFound(DurableJobsError, LookupError):
    """There is no such queue."""


class WorkerNotFound(DurableJobsError, LookupError):
    """No live worker has this id."""


class TransitionRefused(DurableJobsError):
    """The status of the job does not allow this order."""


class JobEnded(TransitionRefused):
    """The job has ended: nothing that is sent to it reaches it any more."""


class AlreadyPaused(TransitionRefused):
    """This is paused already, or is about to be."""


class NotPaused(TransitionRefused):
    """This is not paused."""


class NotLimited(TransitionRefused):
    """This has no limit."""


class QueueNotEmpty(TransitionRefused):
    """Jobs of this queue have not ended."""


class CannotPause(TransitionRefused):
    """This cannot be paused any more."""


class ApprovalNotFound(DurableJobsError, LookupError):
    """There is no such approval."""


class ApprovalDecided(DurableJobsError):
    """This approval is decided already; a decision is never changed."""


class ApprovalExpired(DurableJobsError):
    """The job does not wait for this decision any more."""


class BatchNotFound(DurableJobsError, LookupError):
    """There is no such batch."""


class BatchClosed(DurableJobsError):
    """This batch takes no more jobs."""


class NotInJob(DurableJobsError, RuntimeError):
    """This works inside a running durable job only."""


class OpenTransaction(DurableJobsError, RuntimeError):
    """A durable call was made inside an open transaction, or a transaction was left open.

    Its checkpoint and its effects could not be kept or dropped together.
    """


class BrokenTransaction(DurableJobsError, RuntimeError):
    """The code ended or broke the transaction that it runs in, so nothing of it can be committed."""


class NonDeterminism(DurableJobsError, RuntimeError):
    """The job's code made another durable call than the one recorded at this place."""


class HistoryUnreadable(DurableJobsError, ValueError):
    """This is not the recorded history of a job."""


class TooDeep(DurableJobsError, RecursionError):
    """Durable calls or children are nested deeper than the settings allow."""


class JobExists(DurableJobsError):
    """Another job holds the unique key."""

    def __init__(self, message: str = "", job_id: UUID | None = None) -> None:
        """Take the message, and the id of that job."""
        super().__init__(message)
        self.job_id = job_id


class WorkerNameTaken(DurableJobsError):
    """A live worker already uses this worker id."""


class JobFailed(DurableJobsError):
    """The job ended without a result."""


class ChildFailed(JobFailed):
    """Children of the job ended without a result."""


class TaskFailed(JobFailed):
    """A task of the pipeline failed."""


class TimedOut(DurableJobsError, TimeoutError):
    """This took longer than it may."""


class CallError(DurableJobsError):
    """A recorded error whose class is not known to this process."""

    def __init__(self, type_name: str = "", message: str = "") -> None:
        """Keep the recorded class name and message as text."""
        super().__init__(f"{type_name}: {message}" if type_name else message)
        self.type_name = type_name
        self.message = message


def _as_delay(delay: timedelta | float, what: str) -> timedelta:
    """Turn seconds or a timedelta into a timedelta of zero or more, at most ten years."""
    if isinstance(delay, bool) or not isinstance(delay, (timedelta, int, float)):
        raise OptionError(f"{what} must be a timedelta or a number of seconds, not {type(delay).__name__}.")
    try:
        seconds = delay.total_seconds() if isinstance(delay, timedelta) else float(delay)
    except OverflowError:
        seconds = math.inf
    if math.isnan(seconds) or not 0 <= seconds <= 10 * 366 * 86_400:
        raise OptionError(f"{what} must lie between 0 seconds and ten years, got {_shown(delay)}.")
    return timedelta(seconds=seconds)


def _shown(delay: timedelta | float) -> str:
    return "a number of very many digits" if isinstance(delay, int) and delay > 10**18 else repr(delay)


class NoRetry(Exception):
    """Fail the job at once, whatever attempts are left: ``raise NoRetry(error)`` or ``NoRetry("why")``."""

    def __init__(self, reason: BaseException | str = "the job asked for no retry") -> None:
        """Take the error that is to be recorded, or a sentence."""
        super().__init__(reason)
        self.reason = reason


class RetryAfter(Exception):
    """End this attempt as failed and start the next one after ``delay`` (seconds or timedelta)."""

    def __init__(self, delay: timedelta | float, reason: BaseException | str = "the job asked for a retry") -> None:
        """Take the delay, and the error that is to be recorded."""
        super().__init__(delay, reason)
        self.delay = _as_delay(delay, "RetryAfter's delay")
        self.reason = reason


class Snooze(Exception):
    """Come back after ``delay`` (seconds or timedelta); the attempt is not counted."""

    def __init__(self, delay: timedelta | float) -> None:
        """Take the delay."""
        super().__init__(delay)
        self.delay = _as_delay(delay, "Snooze's delay")


class Interrupted(BaseException):
    """The worker asks this job's code to stop; the job goes on elsewhere or later."""


class JobPaused(Interrupted):
    """An order came to pause this job; it goes on where its code notices, once it is resumed."""


class JobCancelled(Interrupted):
    """An order came to cancel this job; it ends where its code notices."""


class HardTimedOut(Interrupted):
    """The hard time limit of this attempt is over: its code ends here, or its process does."""


class LeaseLost(Interrupted):
    """Another worker may hold this job now: nothing that this attempt writes counts any more."""


class Parking(BaseException):
    """The job waits for something outside, without holding a slot: its code ends here and runs again later.

    ``finally`` blocks on the way out do run. Code that swallows this exception cannot go on: the next durable
    call raises it again.
    """

    def __init__(self, waiting_for: str, until: datetime | None = None) -> None:
        """Take what is waited for, in the words of ``operations/wake.py``, and when a clock ends the wait."""
        super().__init__(waiting_for)
        self.waiting_for = waiting_for
        self.until = until
