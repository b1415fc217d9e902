"""Moves jobs to their queues when they are due."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from ..operations.promote import next_due, promote
from .options import WorkerOptions


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
        due = next_due()
        if due is None:
            return longest.total_seconds()
        if due > timedelta(0):
            return min(longest, due).total_seconds()
        if promote():
            self._promoted()
        return 0.0
