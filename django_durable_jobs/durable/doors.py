"""How an exception is raised into the code of one job, and into nothing else.

Python can raise one in another thread (``PyThreadState_SetAsyncExc``), at whatever that thread does next. By then it
may have come to the next job. So each job's code has a door: whoever takes the one right to it may raise, once, and
the thread takes the right itself when the code is over. If somebody was quicker, the thread waits until what was raised
has come, and goes on as if it had not. The worker's own work in the middle of a job (its checkpoints) shuts the door
for so long. Nothing here takes a lock, which the exception itself could leave locked.
"""

from __future__ import annotations

import asyncio
import ctypes
import threading
from typing import Protocol

from ..clock import give_way
from ..errors import Interrupted

_raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
_raise_in.argtypes = (ctypes.c_ulong, ctypes.py_object)
_here = threading.local()


class Door(Protocol):
    """Through which the code of one attempt can be interrupted while it runs."""

    closed: bool
    """Whether the code is over."""

    def strike(self, why: type[Interrupted]) -> bool:
        """Interrupt the code; ``False`` if that is not possible just now, or has been done. From any thread."""
        ...

    def close(self) -> None:
        """Say that the code is over: nothing is interrupted from now on."""
        ...


class ThreadDoor:
    """The door to code that runs in the present thread from now on."""

    __slots__ = ("_rights", "_sent", "_shut", "_thread", "closed", "struck")

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._rights: list[None] = [None]
        self._sent = False
        self._shut = 0
        self.closed = False
        self.struck = False
        """Whether something was raised: what the code had in hand, such as a connection, may be half used."""
        _here.door = self

    def strike(self, why: type[Interrupted]) -> bool:
        """Raise ``why`` at the next instruction of the code; not in C, where the thread gets to no instruction."""
        try:
            self._rights.pop()
        except IndexError:
            return False
        self.struck = True
        try:
            _raise_in(self._thread, why)
        finally:
            self._sent = True
        return True

    def close(self) -> None:
        """Say that the code is over; in its own thread."""
        while True:
            try:
                self._take_right()
                self.closed = True
            except Interrupted:
                # It has come only now. There is no second one.
                continue
            return

    def shut(self) -> None:
        """Keep everything out until ``open``; what is on its way is raised here."""
        if not self._shut:
            self._take_right()
        self._shut += 1

    def open(self) -> None:
        """End what ``shut`` began."""
        self._shut -= 1
        if not (self._shut or self.struck or self.closed):
            self._rights.append(None)

    def _take_right(self) -> None:
        try:
            self._rights.pop()
        except IndexError:
            if self.closed:
                return
            while not self._sent:
                give_way()
            for _instruction in range(3):
                give_way()  # what was sent is raised at one of these, unless it was before


class TaskDoor:
    """The door to an async job's code: its task is cancelled where it waits."""

    __slots__ = ("_loop", "_task", "closed", "struck")

    def __init__(self, task: asyncio.Task[object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = task
        self.closed = self.struck = False

    def strike(self, why: type[Interrupted]) -> bool:  # noqa: ARG002 -- a task can be cancelled, and nothing else
        """Cancel the task; not while it blocks the event loop."""
        if self.struck:
            return False
        self.struck = True
        self._loop.call_soon_threadsafe(self._cancel)
        return True

    def close(self) -> None:
        """Say that the code is over; on the event loop."""
        self.closed = True

    def _cancel(self) -> None:
        if not self.closed:
            self._task.cancel()


class Shut:
    """Work of our own in the thread of a job, which nothing may interrupt half way: ``with Shut():``."""

    __slots__ = ("_door",)

    def __enter__(self) -> None:
        self._door: ThreadDoor | None = getattr(_here, "door", None)
        if self._door is not None:
            self._door.shut()

    def __exit__(self, *_error: object) -> None:
        if self._door is not None:
            self._door.open()


def was_struck() -> bool:
    """Answer whether something was raised into the code that last ran in this thread."""
    door: ThreadDoor | None = getattr(_here, "door", None)
    return door is not None and door.struck
