"""Places in a job's code where something is stored, or read, that is no call: it takes no place in their order.

What does take one is a ``Point``.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from ..operations.connections import opened
from .frames import Frame, frame_of_async, frame_of_sync
from .points import refuse_open_transaction

Result = TypeVar("Result")


def beside(what: str, *, anywhere: bool = False) -> Frame:
    """Return the frame of sync code that does ``what``; ``anywhere``: also in another thread that the job uses."""
    return _checked(frame_of_sync(what, anywhere=anywhere), what, inside=anywhere)


def beside_async(what: str, work: Callable[[Frame], Result]) -> Coroutine[Any, Any, Result]:
    """Do the same in async code; ``work``, which asks the database, is done in a thread once it is awaited."""
    return in_thread(frame_async(what), work)


def frame_async(what: str, *, anywhere: bool = False) -> Frame:
    """Return the frame of async code that does ``what``; ``anywhere``: also in another task that the job uses."""
    return _checked(frame_of_async(what, anywhere=anywhere), f"a{what}", inside=anywhere)


def in_thread(frame: Frame, work: Callable[[Frame], Result]) -> Coroutine[Any, Any, Result]:
    """Do something that asks the database, for async code."""
    return frame.job.helpers.run(partial(work, frame))


def _checked(frame: Frame, what: str, *, inside: bool) -> Frame:
    frame.check()
    if frame.job.history.broken is not None:
        raise frame.job.history.broken
    if not inside and opened():
        refuse_open_transaction(f"{what} was used inside a transaction", "Leave it first.")
    return frame
