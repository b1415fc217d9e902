"""Moves jobs to their queues when they are due."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..operations.promote import promote
from .options import WorkerOptions

IN_OTHER_HANDS: Final = 0.05
"""Seconds until the next look at a due job that somebody else has locked."""


class Promoter:
    """Any number of workers may promote; each due job is moved once."""

    name = "promoter"

    def __init__(self, options: WorkerOptions, promoted: Callable[[], None], listening: Callable[[], bool]) -> None:
        """Take whom to tell that jobs became pending, and how to know whether new due times are announced."""
        self._options = options
        self._promoted = promoted
        self._listening = listening

    def run_once(self) -> float:
        """Move what is due; come back when the next job is."""
        longest = self._options.idle_poll_interval if self._listening() else self._options.poll_interval
        moved, due_in, _lines = promote()
        if moved:
            self._promoted()
        if due_in is None:
            return longest.total_seconds()
        seconds = min(longest, due_in).total_seconds()
        if seconds > 0:
            return seconds
        return 0.0 if moved else IN_OTHER_HANDS
