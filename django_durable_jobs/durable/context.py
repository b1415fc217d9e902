"""What the running code may know of its job, and how it is asked to stop. Where the code is: ``frames.py``."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple
from uuid import UUID

from ..clock import SYSTEM, Clock
from ..conf import get_settings
from ..determinism import Determinism
from ..errors import HardTimedOut, Interrupted, JobCancelled, LeaseLost, NotInJob, Parking
from ..ids import idempotency_key
from ..operations.database import dialect
from .replay import History

if TYPE_CHECKING:
    from ..dialects.rows import Claimed
    from ..options import Options
    from .doors import Door
    from .recorder import Recorder
    from .threads import Helpers


class Parked(NamedTuple):
    """Where the code was told to wait: the place, and the task in which that was raised."""

    why: Parking
    path: str
    task: asyncio.Task[Any] | None


def is_parking(error: BaseException) -> bool:
    """Answer whether code ended by a wait; a task group raises those of its tasks together."""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(lambda one: not isinstance(one, Parking | BaseExceptionGroup)) is None
    return isinstance(error, Parking)


WEIGHTS: Final = (HardTimedOut, JobCancelled, LeaseLost)
"""Why code is stopped for good; a later one counts more. All else lets the job go on somewhere."""


def _weight(why: Interrupted) -> int:
    return WEIGHTS.index(type(why)) + 1 if type(why) in WEIGHTS else 0


class ProgressWritten(NamedTuple):
    """What was last written of a job's progress, and from when on a further value may be."""

    value: dict[str, Any]
    next_at: float


class JobContext:
    """What a job's code may know of the job it runs in; ``current_job()`` returns it.

    ``attempt`` counts from 1. ``fencing_token`` grows with every claim of the job: hand it to outside systems
    that can refuse a smaller one than they have seen.
    """

    __slots__ = (
        "_clock",
        "_database_time",
        "_helpers",
        "_history",
        "_stop",
        "_wakers",
        "_why",
        "deaf",
        "door",
        "options",
        "parkings",
        "progress_written",
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
        self._helpers = helpers
        self.tasks: set[asyncio.Task[Any]] | None = None
        self._clock = clock
        self._history: History | None = None
        # Made only when somebody waits or interrupts: most jobs are over before either.
        self._stop: threading.Event | None = None
        self._wakers: list[Callable[[], object]] | None = None
        self._why: Interrupted | None = None
        self._database_time: tuple[datetime, float] | None = None
        self.parkings: list[Parked] = []
        self.progress_written: ProgressWritten | None = None
        self.deaf = False
        """Whether orders to cancel, and the end of its time, are not heeded any more: the job's compensations run."""
        self.door: Door | None = None
        """Through which this job's code can be interrupted, while it runs by itself."""

    rehearses: ClassVar[bool] = False
    """Whether this is no attempt of a job, but a recorded history that is checked: nothing is read or stored."""

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
    def idempotency_key(self) -> UUID:
        """A key for outside systems, the same in every attempt of this job; that of a call: ``idempotency_key()``."""
        return idempotency_key(self.row.id, "")

    # Time ---------------------------------------------------------------------------------------------------

    def now(self) -> datetime:
        """Return the present instant by the database's clock, which is asked once per attempt."""
        if self._database_time is None:
            self._database_time = self.recorder.transact(lambda: dialect().now()), self._clock.monotonic()
        then, at = self._database_time
        return then + timedelta(seconds=self._clock.monotonic() - at)

    def after(self, seconds: float) -> float:
        """Return the moment of this process's clock that is so many seconds from now; for ``Frame.deadline``."""
        return self._clock.monotonic() + seconds

    def is_past(self, moment: float) -> bool:
        """Answer whether a moment of this process's clock has come."""
        return self._clock.monotonic() >= moment

    @property
    def determinism(self) -> Determinism:
        """How strictly this job's code is held to its recorded calls."""
        return self.options.determinism or get_settings().determinism

    # History ------------------------------------------------------------------------------------------------

    @property
    def history(self) -> History:
        """The recorded calls of this job."""
        if self._history is None:
            self._history = History(self.row, {}, self.determinism)
        return self._history

    @history.setter
    def history(self, history: History) -> None:
        self._history = history

    @property
    def history_if_used(self) -> History | None:
        """The same if there is anything in it, else ``None``."""
        return self._history

    @property
    def is_being_undone(self) -> bool:
        """Whether the job has ended but for its compensations."""
        return self._history is not None and self._history.is_being_undone

    @property
    def helpers(self) -> Helpers:
        """The threads for what async code does in sync; ``NotInJob`` where no worker runs the job."""
        if self._helpers is None:
            raise NotInJob("Durable calls of async code work in jobs that a worker runs.")
        return self._helpers

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
        if self.deaf and isinstance(why, JobCancelled | HardTimedOut):
            return
        # A lease that is lost stays lost, and a job that is to be cancelled does not go back to its queue.
        if self._why is None or _weight(why) >= _weight(self._why):
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

    def cancels(self, task: asyncio.Task[Any]) -> Callable[[], object]:
        """Have an order to cancel stop this task, an async job's own, wherever it waits.

        Returns what ends that; an order that is on its way already does not reach the task then.
        """
        loop = asyncio.get_running_loop()
        wakers = self._wakers = self._wakers or []

        def wake() -> None:
            if isinstance(self._why, JobCancelled):
                loop.call_soon_threadsafe(strike)

        def strike() -> None:
            if wake in wakers:
                task.cancel()

        wakers.append(wake)
        return lambda: wakers.remove(wake)

    def strike_again(self) -> None:
        """Have the order to cancel that has just struck the present task strike it where it waits next."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 -- a coroutine runs in one
        task.uncancel()
        if task in (self.tasks or ()):
            asyncio.get_running_loop().call_soon(task.cancel)
        elif self._why is not None:
            self.interrupt(self._why)  # not once the job's compensations run

    def afterwards(self) -> JobContext:
        """Return a context for what comes after the job's code: it is deaf to orders to cancel.

        Code of the attempt that still runs somewhere keeps the old one, and stays stopped.
        """
        after = JobContext(
            self.row,
            self.options,
            self.recorder,
            worker_name=self.worker_name,
            clock=self._clock,
            helpers=self._helpers,
        )
        after.deaf = True
        return after

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
