"""Code that is to be stopped although it does not ask: at a hard time limit, or because its job was taken away.

Noted here by the executor and by whoever hears of orders; carried out by ``stopper.py``.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta

from ..clock import SYSTEM, Clock
from ..conf import get_settings
from ..durable.context import JobContext
from ..durable.doors import Door
from ..errors import HardTimedOut, Interrupted


class Stop:
    """The code of one job, or of a chunk of jobs, and from when on it is stopped."""

    __slots__ = ("asked", "at", "contexts", "door", "gives_up_at", "struck", "why")

    def __init__(self, contexts: Sequence[JobContext], door: Door, at: float, why: Interrupted) -> None:
        self.contexts = contexts
        self.door = door
        self.at = at
        self.why = why
        self.gives_up_at = math.inf
        self.asked = self.struck = False


class Stops:
    """What is to be stopped. Safe for threads."""

    def __init__(self, clock: Clock = SYSTEM) -> None:
        """Begin with none."""
        self._clock = clock
        self._stops: set[Stop] = set()
        self._guard = threading.Lock()
        self.wake: Callable[[], None] = lambda: None
        """Whom to tell that something is to be done sooner than was known."""
        self._next = math.inf

    def limit(self, contexts: Sequence[JobContext], door: Door) -> Stop | None:
        """Note when the code that begins now has had its time, if it has a hard limit; the first job's counts."""
        longest = contexts[0].options.hard_timeout or get_settings().hard_timeout
        if longest is None:
            return None
        why = HardTimedOut(f"The attempt took longer than its hard limit of {_seconds(longest)}.")
        return self._add(Stop(contexts, door, self._clock.monotonic() + longest.total_seconds(), why))

    def stop(self, contexts: Iterable[JobContext], why: Interrupted) -> None:
        """Have the code of these jobs stopped at once."""
        for context in contexts:
            if context.door is not None:
                self._add(Stop([context], context.door, self._clock.monotonic(), why))

    def forget(self, stop: Stop | None) -> None:
        """Take note that the code is over, or that nothing more can be done."""
        if stop is not None:
            with self._guard:
                self._stops.discard(stop)

    def noted(self) -> list[Stop]:
        """Return all of them."""
        with self._guard:
            return list(self._stops)

    def looked(self, pause: float) -> None:
        """Take note of when they will be looked at again."""
        self._next = self._clock.monotonic() + pause

    def _add(self, stop: Stop) -> Stop:
        with self._guard:
            self._stops.add(stop)
        if stop.at < self._next:
            self.wake()
        return stop


def _seconds(length: timedelta) -> str:
    return f"{length.total_seconds():g} s"
