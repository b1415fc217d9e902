"""Places in a job's code where something is stored, or read, that is no call: it takes no place in their order."""

from __future__ import annotations

import asyncio
from asyncio import _get_running_loop  # the public one raises when there is none, which costs more than all the rest
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from ..errors import NotInJob
from ..operations.connections import opened
from .frames import Frame, calling_frame, current_frame
from .points import refuse_open_transaction
from .running import helpers_of

Result = TypeVar("Result")


def beside(what: str, *, anywhere: bool = False) -> Frame:
    """Return the frame of sync code that does ``what``; ``anywhere``: also in another thread that the job uses."""
    if _get_running_loop() is not None:
        raise NotInJob(f"{what} would block the event loop: write `await a{what}` in an async job.")
    return _checked(current_frame(what) if anywhere else calling_frame(what, None), what, inside=anywhere)


def beside_async(what: str, work: Callable[[Frame], Result]) -> Coroutine[Any, Any, Result]:
    """Do the same in async code; ``work``, which asks the database, is done in a thread once it is awaited."""
    return in_thread(frame_async(what), work)


def frame_async(what: str, *, anywhere: bool = False) -> Frame:
    """Return the frame of async code that does ``what``; ``anywhere``: also in another task that the job uses."""
    if _get_running_loop() is None:
        raise NotInJob(f"a{what} needs a running event loop: leave the a away in a sync job.")
    frame = current_frame(f"a{what}") if anywhere else calling_frame(f"a{what}", asyncio.current_task())
    return _checked(frame, f"a{what}", inside=anywhere)


def in_thread(frame: Frame, work: Callable[[Frame], Result]) -> Coroutine[Any, Any, Result]:
    """Do something that asks the database, for async code."""
    return helpers_of(frame.job).run(partial(work, frame))


def _checked(frame: Frame, what: str, *, inside: bool) -> Frame:
    frame.check()
    if frame.job.history.broken is not None:
        raise frame.job.history.broken
    if not inside and opened():
        refuse_open_transaction(f"{what} was used inside a transaction", "Leave it first.")
    return frame
