"""Where the running code is: which job, which attempt, and at which place of its tree of calls.

One context variable holds the present ``Frame``. The worker sets it around a job's function; ``call()`` sets a
child frame around the called function, so that calls made there get keys below their parent's.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from uuid import UUID

from ..clock import SYSTEM, Clock
from ..errors import Interrupted, LeaseLost, NotInJob
from .replay import History

if TYPE_CHECKING:
    from ..definitions import Options
    from ..dialects.rows import Claimed
    from ..models import Job
    from ..operations.rescue import GivenUp
    from .recorder import Recorder
    from .threads import Helpers


class JobContext:
    """What a job's code may know of the job it runs in; ``current_job()`` returns it.

    ``attempt`` counts from 1. ``fencing_token`` grows with every claim of the job: hand it to outside systems
    that can refuse a smaller one than they have seen.
    """

    __slots__ = (
        "_clock",
        "_history",
        "_stop",
        "_wakers",
        "_why",
        "helpers",
        "options",
        "recorder",
        "row",
        "tasks",
        "worker_name",
    )

    def __init__(  # noqa: PLR0913 -- what an attempt is made of; only the executor calls it
        self,
        row: Claimed,
        options: Options,
        recorder: Recorder,
        *,
        worker_name: str = "",
        clock: Clock = SYSTEM,
        helpers: Helpers | None = None,
    ) -> None:
        """Describe one attempt; made by the worker."""
        self.row = row
        self.options = options
        self.worker_name = worker_name
        self.recorder = recorder
        self.helpers = helpers
        self.tasks: set[asyncio.Task[Any]] | None = None
        self._clock = clock
        self._history: History | None = None
        # Made only when somebody waits or interrupts: most jobs are over before either.
        self._stop: threading.Event | None = None
        self._wakers: list[Callable[[], object]] | None = None
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

    # History ------------------------------------------------------------------------------------------------

    @property
    def history(self) -> History:
        """The recorded calls of this job."""
        if self._history is None:
            self._history = History(self.row, {})
        return self._history

    @history.setter
    def history(self, history: History) -> None:
        self._history = history

    @property
    def history_if_used(self) -> History | None:
        """The same if there is anything in it, else ``None``."""
        return self._history

    def note_task(self, task: asyncio.Task[Any] | None) -> None:
        """Note a task in which a call of this job runs, so that it ends with the attempt."""
        if self.tasks is None:
            self.tasks = set()
        if task is not None:
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    # Stopping -----------------------------------------------------------------------------------------------

    def interrupt(self, why: Interrupted) -> None:
        """Ask the job's code to stop at its next durable call; called from another thread."""
        self._why = why
        if self._stop is not None:
            self._stop.set()
        for wake in list(self._wakers or ()):
            wake()

    @property
    def why(self) -> Interrupted | None:
        """What the job's code was interrupted with, if it was."""
        return self._why

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

    async def apause(self, seconds: float) -> None:
        """Do what ``pause`` does without blocking the event loop."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(ended.set)

        if self._wakers is None:
            self._wakers = []
        self._wakers.append(wake)
        try:
            self.check()
            await asyncio.wait([asyncio.ensure_future(ended.wait())], timeout=seconds)
        finally:
            self._wakers.remove(wake)
            ended.set()
        self.check()


class Frame:
    """A place in a job's tree of calls: under which key, how many calls were made there, and by which thread.

    Calls get their keys in the order in which they are made. So only one thread or task may make them: the one
    that runs the function. Others would get keys by chance, and in a replay each other's values.
    """

    __slots__ = ("calls", "depth", "job", "options", "path", "task", "thread")

    def __init__(self, job: JobContext, options: Options, path: str = "", depth: int = 0) -> None:
        """Describe a place; ``options`` are those of the durable job whose code runs here."""
        self.job = job
        self.options = options
        self.path = path
        self.depth = depth
        self.calls = 0
        self.thread = threading.get_ident()
        self.task: asyncio.Task[Any] | None = None

    def settle(self, task: asyncio.Task[Any] | None) -> None:
        """Note that the function goes on in this thread and task."""
        self.thread = threading.get_ident()
        self.task = task

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


def calling_frame(what: str, task: asyncio.Task[Any] | None) -> Frame:
    """Return the present frame for a durable call made in this thread and ``task``; ``NotInJob`` if it is another's."""
    frame = current_frame(what)
    if frame.thread != threading.get_ident() or frame.task is not task:
        raise NotInJob(
            f"{what} was made in another thread or task than the one that runs the code of job {frame.job.id}: the "
            "order of such calls is left to chance, and a replay could mix up their values. Make the branch a "
            "durable call itself, as in gather(acall(branch, 1), acall(branch, 2)): inside, calls have their own order."
        )
    return frame


def current_job() -> JobContext:
    """Return the context of the job that is running here; ``NotInJob`` outside of one."""
    return current_frame("current_job()").job


def log_fields() -> dict[str, Any]:
    """Return what log lines say about the running job; empty outside of one."""
    frame = frames.get(None)
    if frame is None:
        return {}
    return {**fields_of(frame.job.row, frame.job.worker_name), "call": frame.path}


def fields_of(job: Claimed | Job | GivenUp, worker_name: str) -> dict[str, Any]:
    """Return what a line about one job carries, also where that job does not run."""
    fields = {name: getattr(job, name) for name in ("definition", "attempt", "queue")}
    return {"job": str(job.id), **fields, "worker": worker_name}
