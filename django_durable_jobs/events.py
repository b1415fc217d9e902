"""What can be said about jobs, queues and workers to whoever listens: one frozen class for each kind of fact.

Whom they are told to, and when, is in ``signals.py``. Nothing here is stored. Events that jobs wait for
(``wait_for_event``) are something else: ``operations/events.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A fact that is committed."""

    @property
    def sender(self) -> str:
        """Whose fact it is: the name of a definition, a queue or a worker."""
        raise NotImplementedError

    def log_fields(self) -> dict[str, object]:
        """Return what a line of the log about this event carries."""
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent(Event):
    """A fact about one job; ``attempt`` counts from 1, and is 0 before the first."""

    job_id: UUID
    definition: str
    queue: str
    attempt: int

    @property
    def sender(self) -> str:
        """The registered name of the job's function."""
        return self.definition

    def log_fields(self) -> dict[str, object]:
        """Return the fields of any line about a job."""
        worker = getattr(self, "worker", "")
        return {
            "job": str(self.job_id),
            "definition": self.definition,
            "attempt": self.attempt,
            "queue": self.queue,
            "worker": worker,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnqueuedEvent(JobEvent):
    """A job was stored: by an enqueue, as a child, or as a fork."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStartedEvent(JobEvent):
    """A worker begins an attempt: the job's code runs next, or what undoes it."""

    worker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSavedEvent(JobEvent):
    """The result of a durable call is stored; so is an error, ``failed``, that the code caught."""

    call: str
    """The call's key, such as ``3.1``."""
    name: str
    kind: str
    failed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _AttemptEvent(JobEvent):
    worker: str = ""
    """The worker that held the job."""
    duration: timedelta | None = None
    """How long the job's code ran in this attempt, where that is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCompletedEvent(_AttemptEvent):
    """The function returned, and its result is stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFailedEvent(_AttemptEvent):
    """A job failed for good: no attempt is left, or none was wanted. Also when it was lost with its last worker."""

    error: str
    """Class and message of the error, as stored in ``last_error``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRetryingEvent(_AttemptEvent):
    """An attempt failed, or took too long, and another one is to come."""

    error: str
    next_run_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSnoozedEvent(_AttemptEvent):
    """The code raised ``Snooze``; the attempt is given back."""

    next_run_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class JobParkedEvent(_AttemptEvent):
    """The code waits for something outside and holds no slot; it begins again with ``JobStartedEvent``."""

    waiting_for: tuple[str, ...]
    """In the words of the job's ``waiting_for``: ``time``, ``message NAME``, ``children …``."""
    until: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReleasedEvent(_AttemptEvent):
    """A job that had begun goes back with its attempt: its worker stops, the job is to be paused, or it is taken away.

    Taken away is what an aggressive pause of its queue or worker did: told by whoever gave that order.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRescuedEvent(JobEvent):
    """A job was taken back from a worker that is gone, and runs again."""

    worker: str
    """The worker that was lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCancelledEvent(_AttemptEvent):
    """A job is cancelled: at once if it did not run, else when its code has stopped. Children have their own."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobExpiredEvent(JobEvent):
    """A job was not begun in its time: no worker runs it any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPausedEvent(JobEvent):
    """A job is paused: at the order, or for one that ran when its worker gave it back."""

    mode: str
    reason: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResumedEvent(JobEvent):
    """A job that was paused goes on where it was."""

    reason: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueEvent(Event):
    """A fact about a queue."""

    queue: str

    @property
    def sender(self) -> str:
        """The name of the queue."""
        return self.queue


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePausedEvent(QueueEvent):
    """A queue is paused for the whole fleet."""

    mode: str
    reason: str
    by: str
    resume_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueResumedEvent(QueueEvent):
    """A queue goes on: by an order, or ``by_itself`` since its ``resume_at`` has come (a worker tells that)."""

    reason: str
    by: str
    by_itself: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerEvent(Event):
    """A fact about a worker process."""

    worker: str

    @property
    def sender(self) -> str:
        """The id of the worker."""
        return self.worker

    def log_fields(self) -> dict[str, object]:
        """Return the field of a line about a worker."""
        return {"worker": self.worker}


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStartedEvent(WorkerEvent):
    """A worker has its row and begins to claim."""

    host: str
    pid: int
    queues: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStoppedEvent(WorkerEvent):
    """A worker has ended in order. One that was killed says nothing: ``JobRescuedEvent`` tells of its jobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPausedEvent(WorkerEvent):
    """A worker is paused."""

    mode: str
    reason: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerResumedEvent(WorkerEvent):
    """A worker that was paused goes on."""

    reason: str
    by: str
