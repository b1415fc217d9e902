"""The process as the operating system sees it: signals that stop it, and its end.

A handler of a signal runs between any two instructions of the main thread, also while that holds a lock. So it
sets plain flags and rings a `Bell`; it touches no event, lock or log.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final, NoReturn, Protocol

LAST_WORDS: Final = 5.0
"""Seconds that functions registered for the end of the process may take while threads are left over."""


class Bell:
    """Ends a wait of the main thread; ``ring`` is safe in a signal handler.

    ``Event.set`` is not: it would wait for a lock that the interrupted thread itself may hold. ``SimpleQueue.put``
    is documented to be reentrant.
    """

    def __init__(self) -> None:
        """Begin silent."""
        self._rings: SimpleQueue[None] = SimpleQueue()

    def ring(self) -> None:
        """End the present wait, or the next one."""
        self._rings.put(None)

    def wait(self, seconds: float) -> None:
        """Wait so long, or until it rings."""
        with suppress(Empty):
            self._rings.get(timeout=max(0.0, seconds))


class Stoppable(Protocol):
    """What signals can stop; both orders only set flags and ring a bell."""

    def stop(self) -> None:
        """Ask for a clean stop."""
        ...

    def stop_at_once(self) -> None:
        """Ask for a stop without grace time."""
        ...


def on_stop(runner: Stoppable, *, child: bool) -> Callable[[], None]:
    """Stop cleanly at SIGTERM, SIGINT and SIGHUP; at once when one comes again, or at SIGQUIT.

    A ``child`` takes a repeated signal as the same wish: process managers send one to every process of a service,
    and the parent sends its own; its parent says SIGQUIT when there is a hurry. A signal that this process was
    started to ignore (``nohup``) stays ignored, but for SIGQUIT in a child: a shell has what it starts in the
    background ignore that, and the parent's hurry must be heard all the same. Outside the main thread nothing is
    installed. Returns what puts the former handlers back.
    """
    former: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in former.items():
            signal.signal(number, handler)

    if threading.current_thread() is not threading.main_thread():
        return restore
    owner, asked = os.getpid(), False

    def handle(number: int, _frame: object) -> None:
        nonlocal asked
        if os.getpid() != owner:
            # A process that a job has forked: it must die of the signal as if we had never been here.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if number == getattr(signal, "SIGQUIT", None) or (asked and not child):
            runner.stop_at_once()
        else:
            runner.stop()
        asked = True

    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"):
        number = getattr(signal, name, None)
        if number is None:
            continue
        from_parent = child and name == "SIGQUIT"
        if from_parent or signal.getsignal(number) is not signal.SIG_IGN:
            former[number] = signal.signal(number, handle)
    return restore


def leave(code: int) -> NoReturn:
    """End the process, whatever threads are left: code of a job may never end, a stopped worker must.

    Python itself would wait for such a thread for ever if it is no daemon, and may crash if it is one and writes.
    """
    if threading.active_count() == 1:
        sys.exit(code)
    last = threading.Timer(LAST_WORDS, os._exit, [code])
    last.daemon = True
    last.start()
    atexit._run_exitfuncs()  # noqa: SLF001 -- what os._exit would leave out: logs, profilers and the like
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()
    os._exit(code)
