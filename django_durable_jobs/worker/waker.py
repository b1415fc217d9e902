"""Finds waits that have ended although nobody said so: whoever would have died between two statements."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from ..clock import SYSTEM, Clock
from ..operations.batches import look_forgotten
from ..operations.events import announce_forgotten
from ..operations.sequences import advance_forgotten
from ..operations.wake import wake_forgotten
from .options import WorkerOptions

NET: Final = 6
"""Rescue intervals between two looks: who ends a wait wakes the job himself, unless he dies in that moment."""
BETWEEN_LOOKS_AT_SEQUENCES: Final = 30.0
"""Seconds; the look passes over every job that is lined up."""


class Waker:
    """Any number of workers may look; waking a job twice does no harm."""

    name = "waker"

    def __init__(self, options: WorkerOptions, woken: Callable[[], None], *, clock: Clock = SYSTEM) -> None:
        """Take whom to tell that jobs became pending."""
        self._options = options
        self._woken = woken
        self._clock = clock
        self._sequences_at = -math.inf

    def run_once(self) -> float:
        """Wake up to 200 jobs, and those that wait for an event; come back after six rescue intervals."""
        if wake_forgotten() + announce_forgotten() + look_forgotten() + self._sequences():
            self._woken()
            return 0.0
        return NET * self._options.rescue_interval.total_seconds()

    def _sequences(self) -> int:
        if self._clock.monotonic() < self._sequences_at:
            return 0
        found = advance_forgotten()
        if not found:
            self._sequences_at = self._clock.monotonic() + BETWEEN_LOOKS_AT_SEQUENCES
        return found
