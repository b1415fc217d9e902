"""Where in the project's code something happens, for error messages; nothing here is called unless there is one."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

PACKAGE: Final = __name__.partition(".")[0]
MACHINERY: Final = frozenset({PACKAGE, "asgiref", "asyncio", "concurrent", "contextvars", "threading"})
"""Packages whose lines say nothing about the project's code."""


def code_line(task: asyncio.Task[Any] | None = None, *, beyond: frozenset[str] = frozenset()) -> str:
    """Say in brackets where the present durable call is made, or where ``task`` waits for it; empty if nobody knows.

    A call that runs in a task or thread of its own has no line of the project's code below it. ``beyond`` are further
    packages that are passed over.
    """
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 -- what traceback does, without reading source files
    while frame is not None and _is_machinery(frame, beyond):
        frame = frame.f_back
    if frame is None and task is not None:
        frame = _waiting_in(task)
    return "" if frame is None else f" ({frame.f_code.co_filename}:{frame.f_lineno})"


def line_of(function: Callable[..., Any]) -> str:
    """Say in brackets where a function is defined; empty if nobody knows."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return "" if code is None else f" ({code.co_filename}:{code.co_firstlineno})"


def _waiting_in(task: asyncio.Task[Any]) -> FrameType | None:
    """Return the innermost frame of the project's code in which a task waits."""
    found: FrameType | None = None
    coroutine: Any = task.get_coro()
    while coroutine is not None:
        frame: FrameType | None = getattr(coroutine, "cr_frame", None)
        if frame is not None and not _is_machinery(frame):
            found = frame
        coroutine = getattr(coroutine, "cr_await", None)
    return found


def _is_machinery(frame: FrameType, beyond: frozenset[str] = frozenset()) -> bool:
    package = (frame.f_globals.get("__name__") or "").partition(".")[0]
    return package in MACHINERY or package in beyond
