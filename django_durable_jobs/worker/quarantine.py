"""Gives jobs that were lost with a worker a process of their own.

One of the jobs that a dead process held may have killed it. Each of them runs alone in a child of this worker, so
that the guilty one takes nobody with it; the child ends when no such job is left.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from ..operations.rescue import rescue, rescued_waiting
from .children import Child
from .options import WorkerOptions

logger = logging.getLogger(__name__)

WATCH: Final = 0.1
"""Seconds between two looks at running children."""
MOST_CHILDREN: Final = 4


class Quarantine:
    """Starts children while rescued jobs wait, and sees to it when one dies."""

    name = "quarantine"

    def __init__(self, options: WorkerOptions, queues: Callable[[], list[str]]) -> None:
        """Take how to know the queues that this worker serves."""
        self._options = options
        self._queues = queues
        self._children: list[Child] = []
        self._started = 0

    def run_once(self) -> float:
        """Look after the children; start one more while jobs wait."""
        for child in [child for child in self._children if child.exit_code is not None]:
            self._children.remove(child)
            if child.exit_code != 0:
                logger.warning("A job ended the process that ran it alone (exit code %s)", child.exit_code)
                child.free_its_jobs()
                rescue()
        queues = self._queues()
        if len(self._children) < MOST_CHILDREN and queues and rescued_waiting(queues):
            self._start(queues)
            return WATCH * 5
        return WATCH if self._children else 3 * self._options.rescue_interval.total_seconds()

    def _start(self, queues: list[str]) -> None:
        self._started += 1
        arguments = ["--alone", *(part for queue in queues for part in ("--queue", f"{queue}=1"))]
        self._children.append(Child(f"{self._options.name}/alone-{self._started}", arguments))

    def close(self) -> None:
        """Stop the children; their jobs go back to the queue."""
        for child in self._children:
            child.terminate()
        for child in self._children:
            if not child.wait(self._options.grace.total_seconds() + 1):
                child.kill()
