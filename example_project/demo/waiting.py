"""Waiting that Ctrl-C, SIGTERM and a closed terminal end.

The handler notes the signal and does nothing else; whoever waits raises it. So an interruption never comes between
starting a child process and remembering it.
"""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import Final

from demo.errors import Interrupted

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SLICE: Final = 0.1

_seen: list[int] = []


def listen_to_signals() -> None:
    """Take over the signals that end the demo."""
    for number in SIGNALS:
        signal.signal(number, _note)


def _note(number: int, _frame: FrameType | None) -> None:
    _seen.append(number)


def check() -> None:
    """Raise `Interrupted` if a signal came."""
    if _seen:
        raise Interrupted(_seen[0])


def pause(seconds: float) -> None:
    """Wait; raises `Interrupted` when a signal comes."""
    until = time.monotonic() + seconds
    check()
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, SLICE))
        check()
