"""Running a job's code against a recorded history: without a database, without a worker, as far as the history goes.

The code runs in a thread of its own whose connections refuse to open, on a context that stores nothing. Recorded calls
give back what is recorded. At the first place where something would happen that is not recorded, and also once the
last recorded call has been given back, the code ends as if it waited there (``Parking``): nothing that lies beyond the
history is run. A call that has no result, but calls inside it that are recorded, is followed into its function.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import Context
from datetime import datetime
from types import CoroutineType
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn

from asgiref.sync import async_to_sync
from django.db import connections

from ..definitions import Definition
from ..determinism import Determinism
from ..errors import Parking, SerializationError
from ..operations.checkpoints import Stored
from ..operations.generations import beginning_of, place_of
from ..options import LATEST, Options
from ..serialization import decode_error
from .context import JobContext, Parked
from .frames import Frame, frames, on_loop
from .lines import code_line
from .order import parent_of
from .points import Point
from .recorder import Recorder, Rows
from .replay import History
from .running import awaited
from .threads import Helpers

if TYPE_CHECKING:
    from ..dialects.rows import Claimed, Saved

BRANCHES_END: Final = 5.0
"""Seconds that the other branches of an async job have to come to the end of their history."""
AN_HOUR: Final = 3600.0
DJANGO: Final = frozenset({"django"})


class Rehearsal(JobContext):
    """The context of the code; afterwards it says how far the code came."""

    rehearses: ClassVar[bool] = True

    __slots__ = ("asked_database", "left", "unreadable", "waits", "within")

    def __init__(self, row: Claimed, options: Options, recorded: Mapping[str, Stored]) -> None:
        """Take the job, its options and what is recorded."""
        recorder = Recorder(_Refusing())
        helpers = _Helpers(recorder, 1, around=_without_database, between=_without_database, clean=_nothing)
        super().__init__(row, options, recorder, helpers=helpers)
        mode = Determinism.STRICT if self.determinism is Determinism.STRICT else Determinism.EXPLICIT
        # Code that may leave the recorded way (BEST_EFFORT) is to be shown where it would.
        self.history = History(row, dict(recorded), mode)
        self.history.watch = self._look
        calls = {key for key in recorded if (place := place_of(key)) is not None and 0 not in place}
        self.waits = {call for key in recorded if place_of(key) and (call := beginning_of(key))} - calls
        """Waits that have begun and not ended."""
        made = {*calls, *self.waits}
        self.left = {key for key in made if not any(around in recorded for around in _around(key))}
        """Recorded calls that the code has not made yet; not those inside a call whose own result is recorded."""
        self.within = {around for key in made for around in _around(key)}
        self.unreadable: SerializationError | None = None
        self.asked_database: str | None = None

    def now(self) -> datetime:
        """Return a time at which every recorded sleep is over."""
        return LATEST

    def after(self, seconds: float) -> float:
        """Return a moment that is not past: limits of time do not hold here, as nothing takes any."""
        return super().after(seconds if seconds >= 0 else AN_HOUR)

    def is_past(self, moment: float) -> bool:  # noqa: ARG002 -- the interface
        """Answer no."""
        return False

    def pause(self, seconds: float) -> None:  # noqa: ARG002 -- the interface
        """End here: what follows a pause is a repeat, which finds the same history."""
        self.end_here()

    async def apause(self, seconds: float) -> None:  # noqa: ARG002 -- the interface
        """Do the same in async code."""
        self.end_here()

    def play(self, definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any]) -> BaseException | None:
        """Run the code and return what it raised."""
        frame = Frame(self, self.options)
        run = self._in_loop if definition.is_async else self._in_thread
        raised: list[BaseException] = []

        def work() -> None:
            try:
                _without_database(lambda: Context().run(run, frame, definition, args, kwargs))
            except BaseException as error:  # noqa: BLE001 -- handed to the caller
                raised.append(error)

        thread = threading.Thread(target=work, name="durable-jobs-rehearsal", daemon=True)
        thread.start()
        thread.join()
        self.helpers.close()
        return raised[0] if raised else None

    def end_here(self) -> NoReturn:
        """End the code where it is now; code that swallows that is ended again at its next call."""
        self._end(frames.get(), asyncio.current_task() if on_loop() else None)

    def refuse_database(self) -> NoReturn:
        """End the code, which asks for a database."""
        self.asked_database = code_line(beyond=DJANGO).strip(" ()") or "unknown place"
        self.end_here()

    def _end(self, frame: Frame, task: asyncio.Task[Any] | None) -> NoReturn:
        end = Parking("end of history")
        self.parkings.append(Parked(end, frame.path, task))
        raise end

    def _look(self, point: Point, key: str, stored: Stored | None) -> None:
        if stored is None:
            if key == point.key and key in self.within:
                return
            if key in self.waits:
                self.left.discard(key)
            self._end(point.frame, point.task)
        elif key == point.key:
            self._read(point, stored)
            self.left.discard(key)
            if not self.left:
                self._end(point.frame, point.task)

    def _read(self, point: Point, stored: Stored) -> None:
        try:
            if stored.error is None:
                point.replayed(stored)
            else:
                decode_error(stored.error)
        except SerializationError as error:
            self.unreadable = SerializationError(f"Call {point.key} ({point.name}): {error}")
            self._end(point.frame, point.task)

    def _in_thread(self, frame: Frame, definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        frame.settle(None)
        frames.set(frame)
        value = definition.function(*args, **kwargs)
        if type(value) is CoroutineType:
            async_to_sync(awaited)(frame, value)
        self._returned(frame, definition)

    def _in_loop(self, frame: Frame, definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        frames.set(frame)
        asyncio.run(self._async(frame, definition, args, kwargs))

    async def _async(self, frame: Frame, definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # Tasks that nobody awaits any more are no news where every branch ends by an exception.
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
        frame.settle(asyncio.current_task())
        self.helpers.enter()
        try:
            await definition.function(*args, **kwargs)
            self._returned(frame, definition)
        finally:
            tasks = [task for task in self.tasks or () if not task.done()]
            if tasks:
                await asyncio.wait(tasks, timeout=BRANCHES_END)

    def _returned(self, frame: Frame, definition: Definition) -> None:
        frame.check_parkings()
        self.history.note_job_returns()
        self.history.note_returns(frame.path, frame.calls, definition.function)


class _Refusing:
    """Stores nothing: whoever is about to has come to the end of the history."""

    def __call__(self, _rows: Rows, /) -> Saved:
        _stage().end_here()

    def transact(self, _work: Callable[[], Any], /) -> Any:
        _stage().end_here()


class _Helpers(Helpers):
    """The threads of async code, without a database too."""

    async def record(self, rows: Rows) -> None:  # noqa: ARG002 -- the interface
        """End the code: this is not recorded."""
        _stage().end_here()


def _stage() -> Rehearsal:
    job = frames.get().job
    assert isinstance(job, Rehearsal)  # noqa: S101 -- who else would use these
    return job


def _around(key: str) -> list[str]:
    """Return the calls that a call was made in."""
    found = []
    while key := parent_of(key):
        found.append(key)
    return found


def _nothing() -> None:
    """Clean nothing: no connection was opened."""


def _without_database(work: Callable[[], Any]) -> Any:
    with _no_database():
        return work()


@contextmanager
def _no_database() -> Generator[None]:
    """Let every connection of this thread end the code that wants to use it."""

    def refuse(*_given: object, **_more: object) -> NoReturn:
        _stage().refuse_database()

    names = ("connect", "ensure_connection", "_cursor")
    present = connections.all()
    for connection in present:
        vars(connection).update(dict.fromkeys(names, refuse))
    try:
        yield
    finally:
        for connection in present:
            for name in names:
                del vars(connection)[name]
