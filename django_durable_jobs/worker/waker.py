"""Finds waits that have ended although nobody said so: whoever would have died between two statements."""

from __future__ import annotations

from collections.abc import Callable

from ..operations.events import announce_forgotten
from ..operations.wake import wake_forgotten
from .options import WorkerOptions


class Waker:
    """Any number of workers may look; waking a job twice does no harm."""

    name = "waker"

    def __init__(self, options: WorkerOptions, woken: Callable[[], None]) -> None:
        """Take whom to tell that jobs became pending."""
        self._options = options
        self._woken = woken

    def run_once(self) -> float:
        """Wake up to 200 jobs, and those that wait for an event; come back after the rescue interval."""
        if wake_forgotten() + announce_forgotten():
            self._woken()
            return 0.0
        return self._options.rescue_interval.total_seconds()
