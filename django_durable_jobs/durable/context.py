"""Where the running code is: which job, which attempt, and at which place of its tree of calls.

One context variable holds the present ``Frame``. The worker sets it around a job's function; ``call()`` sets a
child frame around the called function, so that calls made there get keys below their parent's.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from ..clock import SYSTEM, Clock
from ..errors import Interrupted, LeaseLost, NotInJob

if TYPE_CHECKING:
    from ..definitions import Options
    from ..dialects.rows import Claimed
    from .recorder import Recorder
    from .replay import History


class JobContext:
    """What a job's code may know of the job it runs in; ``current_job()`` returns it.

    ``attempt`` counts from 1. ``fencing_token`` grows with every claim of the job: hand it to outside systems
    that can refuse a smaller one than they have seen.
    """

    __slots__ = ("_clock", "_history", "_recorder", "_stop", "_why", "options", "row", "worker_name")

    def __init__(
        self, row: Claimed, options: Options, recorder: Recorder, *, worker_name: str = "", clock: Clock = SYSTEM
    ) -> None:
        """Describe one attempt; made by the worker."""
        self.row = row
        self.options = options
        self.worker_name = worker_name
        self._recorder = recorder
        self._clock = clock
        self._history: History | None = None
        # Made only when somebody waits or interrupts: most jobs are over before either.
        self._stop: threading.Event | None = None
        self._why: Interrupted | None = None

    @property
    def id(self) -> UUID:
        """The job's id."""
        return self.row.id

    @property
    def definition(self) -> str:
        """The registered name of the job's function."""
        return self.row.definition

    @property
    def queue(self) -> str:
        """The queue the job was claimed from."""
        return self.row.queue

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self.row.attempt

    @property
    def max_attempts(self) -> int:
        """How many attempts the job may have."""
        return self.row.max_attempts

    @property
    def fencing_token(self) -> int:
        """A number that is greater in every later run of this job."""
        return self.row.token

    @property
    def recorder(self) -> Recorder:
        """Who stores this attempt's checkpoints."""
        return self._recorder

    @property
    def history(self) -> History:
        """The recorded calls of this job; read at the first durable call."""
        if self._history is None:
            from .replay import History  # noqa: PLC0415 -- the two rooms know each other

            self._history = History.of(self.row)
        return self._history

    @property
    def history_if_used(self) -> History | None:
        """The same if a durable call was made in this attempt, else ``None``."""
        return self._history

    def interrupt(self, why: Interrupted) -> None:
        """Ask the job's code to stop at its next durable call; called from another thread."""
        self._why = why
        if self._stop is not None:
            self._stop.set()

    @property
    def interrupted(self) -> bool:
        """Whether the job's code was asked to stop."""
        return self._why is not None

    @property
    def lost(self) -> bool:
        """Whether this attempt's lease is known to be gone."""
        return isinstance(self._why, LeaseLost)

    def check(self) -> None:
        """Raise what this job was interrupted with, if it was."""
        if self._why is not None:
            raise self._why

    def pause(self, seconds: float) -> None:
        """Wait, holding the slot; an interruption ends the wait and is raised."""
        if self._stop is None:
            self._stop = threading.Event()
        self.check()
        self._clock.wait(self._stop, seconds)
        self.check()


@dataclass(slots=True)
class Frame:
    """A place in a job's tree of calls: under which key, and how many calls were made there."""

    job: JobContext
    path: str = ""
    depth: int = 0
    calls: int = 0

    def next_key(self) -> str:
        """Return the key of the next call made here: ``3``, or ``3.1`` inside call 3."""
        self.calls += 1
        return f"{self.path}.{self.calls}" if self.path else str(self.calls)


frames: ContextVar[Frame] = ContextVar("django_durable_jobs_frame")


def current_frame(what: str) -> Frame:
    """Return the present frame, or raise ``NotInJob`` naming what was tried."""
    frame = frames.get(None)
    if frame is None:
        raise NotInJob(
            f"{what} works inside a running durable job only, in the thread or task that runs it. "
            "Call the function plainly here, or enqueue it."
        )
    return frame


def current_job() -> JobContext:
    """Return the context of the job that is running here; ``NotInJob`` outside of one."""
    return current_frame("current_job()").job


@contextmanager
def inside(frame: Frame) -> Generator[Frame]:
    """Run a block in this frame."""
    token = frames.set(frame)
    try:
        yield frame
    finally:
        frames.reset(token)


def log_fields() -> dict[str, Any]:
    """Return what log lines say about the running job; empty outside of one."""
    frame = frames.get(None)
    if frame is None:
        return {}
    row = frame.job.row
    return {
        "job": str(row.id),
        "definition": row.definition,
        "attempt": row.attempt,
        "queue": row.queue,
        "worker": frame.job.worker_name,
        "call": frame.path,
    }
