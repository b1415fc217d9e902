"""Finds queues that appear while a worker runs that was told to serve all of them."""

from __future__ import annotations

from collections.abc import Callable

from ..operations.queues import add_missing, queue_names
from ..operations.workers import serves
from .options import WorkerOptions


class QueueWatch:
    """Begins to serve each queue that has a row, and says so in the worker's own."""

    name = "queue watch"

    def __init__(
        self, options: WorkerOptions, worker_id: int, served: Callable[[], list[str]], serve: Callable[[str, int], None]
    ) -> None:
        """Take how to know what is served, and whom to tell about a queue."""
        self._options = options
        self._worker_id = worker_id
        self._served = served
        self._serve = serve

    def run_once(self) -> float:
        """Look once."""
        add_missing()
        new = set(queue_names()) - set(self._served())
        for name in sorted(new):
            self._serve(name, self._options.concurrency)
        if new:
            serves(self._worker_id, dict.fromkeys(self._served(), self._options.concurrency))
        return 3 * self._options.rescue_interval.total_seconds()
