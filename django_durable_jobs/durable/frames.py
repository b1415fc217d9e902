"""Where the running code is: at which place of its job's tree of calls.

One context variable holds the present ``Frame``. The worker sets it around a job's function; ``call()`` sets a
child frame around the called function, so that calls made there get keys below their parent's.
"""

from __future__ import annotations

import asyncio
import threading
from asyncio import _get_running_loop  # the public one raises when there is none, which costs more than all the rest
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from ..errors import NotInJob, TimedOut
from .context import JobContext
from .order import is_in
from .replay import received

if TYPE_CHECKING:
    from ..dialects.rows import Claimed
    from ..models import Job
    from ..operations.rescue import GivenUp
    from ..options import Options


class Frame:
    """A place in a job's tree of calls: under which key, how many calls were made there, and by which thread.

    Calls get their keys in the order in which they are made. So only one thread or task may make them: the one
    that runs the function. Others would get keys by chance, and in a replay each other's values.
    """

    __slots__ = ("calls", "deadline", "depth", "job", "name", "options", "path", "place", "task", "thread")

    def __init__(self, job: JobContext, options: Options, path: str = "", depth: int = 0, name: str = "") -> None:
        """Describe a place inside the call ``name``; ``options`` are those of the durable job whose code runs here."""
        self.job = job
        self.options = options
        self.path = path
        self.place = path
        """Its path as outside systems know it: the tries of a pipeline's task have one in common."""
        self.depth = depth
        self.name = name
        self.calls = 0
        self.thread = threading.get_ident()
        self.task: asyncio.Task[Any] | None = None
        self.deadline: float | None = None
        """When the code here has had its time, by this process's clock."""

    def begin(self) -> None:
        """Let the time of the attempt begin: its code comes now."""
        if self.options.timeout is not None:
            self.deadline = self.job.after(self.options.timeout.total_seconds())

    def time_left(self) -> float | None:
        """Return the seconds that the code here still has; ``None`` when it has no limit."""
        return None if self.deadline is None else self.deadline - self.job.after(0)

    def check(self) -> None:
        """Raise what stops the code here: an interruption, a wait that was swallowed, or the end of its time."""
        self.job.check()
        self.check_parkings()
        if self.deadline is not None and self.job.is_past(self.deadline):
            raise TimedOut(f"The time of {f'call {self.path} of ' if self.path else ''}job {self.job.id} is over.")

    def check_parkings(self) -> None:
        """Raise the wait again that the code here was told of, and swallowed."""
        for parking in self.job.parkings:
            inside = not self.path or is_in(parking.path, self.path)
            if inside and received(parking.task, self.task):
                raise parking.why

    def settle(self, task: asyncio.Task[Any] | None) -> None:
        """Note that the function goes on in this thread and task."""
        self.thread = threading.get_ident()
        self.task = task

    def passed_before(self) -> bool:
        """Answer whether an earlier attempt has been past this place: a later call at this level has begun."""
        return self.job.history.goes_beyond(self.path, self.calls)

    def next_key(self) -> str:
        """Return the key of the next call made here: ``3``, or ``3.1`` inside call 3."""
        self.calls += 1
        return f"{self.path}.{self.calls}" if self.path else str(self.calls)


frames: ContextVar[Frame] = ContextVar("django_durable_jobs_frame")
chunk_running: ContextVar[str] = ContextVar("django_durable_jobs_chunk")
"""The definition whose chunk of jobs runs here: then there is no frame, as there is no single job."""


def current_frame(what: str) -> Frame:
    """Return the present frame, or raise ``NotInJob`` naming what was tried."""
    frame = frames.get(None)
    if frame is None:
        if (chunk := chunk_running.get(None)) is not None:
            raise NotInJob(
                f"{what} needs a single job, and {chunk} runs many in one call: what is known of each of them stands "
                "in its item, and durable calls belong into jobs of their own."
            )
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


def frame_of_sync(what: str, *, anywhere: bool = False) -> Frame:
    """Return the present frame for sync code that does ``what``, such as ``call()``; ``NotInJob`` on an event loop.

    ``anywhere``: also in another thread that the job uses.
    """
    if _get_running_loop() is not None:
        raise NotInJob(f"{what} would block the event loop: write `await a{what[:-1]}...)` in an async job.")
    return current_frame(what) if anywhere else calling_frame(what, None)


def frame_of_async(what: str, *, anywhere: bool = False) -> Frame:
    """Return the present frame for async code that does the same by ``a`` and its name; ``NotInJob`` without a loop.

    ``anywhere``: also in another task that the job uses.
    """
    if _get_running_loop() is None:
        raise NotInJob(f"a{what} needs a running event loop: write `{what[:-1]}...)` in a sync job.")
    return current_frame(f"a{what}") if anywhere else calling_frame(f"a{what}", asyncio.current_task())


def on_loop() -> bool:
    """Answer whether this code runs on an event loop."""
    return _get_running_loop() is not None


def running_job() -> Claimed | None:
    """Return the row of the job that is running here, or ``None`` outside of one."""
    frame = frames.get(None)
    return None if frame is None else frame.job.row


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
