"""Finds queues that appear while a worker runs that was told to serve all of them."""

from __future__ import annotations

from collections.abc import Callable

from ..operations.queues import queue_names
from .options import WorkerOptions


class QueueWatch:
    """Begins to serve each queue that has a row."""

    name = "queue watch"

    def __init__(self, options: WorkerOptions, serve: Callable[[str, int], None]) -> None:
        """Take whom to tell about a queue."""
        self._options = options
        self._serve = serve

    def run_once(self) -> float:
        """Look once."""
        for name in queue_names():
            self._serve(name, self._options.concurrency)
        return 3 * self._options.rescue_interval.total_seconds()
