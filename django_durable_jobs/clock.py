"""Time inside one process: lengths and waits, all monotonic.

Instants that are stored or compared come from the database (``dialect.now_sql()``), never from here: hosts
disagree about the time of day, the database does not disagree with itself. This is the only module of the
package that asks the host for the time.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """What services need to know about time; tests hand in their own."""

    def monotonic(self) -> float:
        """Seconds that only grow, from an arbitrary start."""
        ...

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until ``event`` is set or ``seconds`` went by; answer whether it is set."""
        ...


class SystemClock:
    """The clock of the running process; jumps of the host's time of day do not touch it."""

    def monotonic(self) -> float:
        """Seconds that only grow, from an arbitrary start."""
        return time.monotonic()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait until ``event`` is set or ``seconds`` went by; answer whether it is set."""
        return event.wait(seconds)


SYSTEM = SystemClock()


def give_way() -> None:
    """Let another thread run first, if one can."""
    time.sleep(0)
