"""Gives jobs that were lost with a worker a process of their own.

One of the jobs that a dead process held may have killed it. Each of them runs alone in a child of this process, so
that the guilty one takes nobody with it; the child ends when no such job is left.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from ..clock import SYSTEM, Clock
from ..operations.rescue import rescued_waiting
from ..operations.workers import has_registered
from .options import WorkerOptions
from .processes import Child

logger = logging.getLogger(__name__)

WATCH: Final = 0.1
"""Seconds between two looks at running children."""
MOST_CHILDREN: Final = 4
WARM: Final = 0.5
"""Seconds that a child has to take a job, once it has begun, before another is started beside it."""
START_LIMIT: Final = 30.0
"""Seconds after which a child that has not begun no longer keeps others from being started."""
LONGEST_PAUSE: Final = 60.0
"""Seconds between two tries at most while children die without having had a job."""


class Quarantine:
    """Starts children while rescued jobs wait, and sees to it when a child of this process dies."""

    name = "quarantine"

    def __init__(
        self,
        options: WorkerOptions,
        queues: Callable[[], list[str]],
        freed: Callable[[], None],
        *,
        clock: Clock = SYSTEM,
    ) -> None:
        """Take how to know the queues to serve, and whom to tell that leases of dead children were ended."""
        self._options = options
        self._queues = queues
        self._freed = freed
        self._clock = clock
        self._children: list[Child] = []
        self._dead: deque[Child] = deque()
        self._guard = threading.Lock()
        self._closing = False
        self._started = 0
        self._warming: tuple[Child, float, float | None] | None = None
        self._failures = 0
        self._start_at = 0.0

    def run_once(self) -> float:
        """Look after the children; start one more while jobs wait."""
        self._reap()
        self._free_what_the_dead_held()
        queues = self._queues()
        if self._may_start() and queues and rescued_waiting(queues):
            self._start(queues)
        if self._children:
            return WATCH
        pause = self._start_at - self._clock.monotonic()
        return pause if pause > 0 else 3 * self._options.rescue_interval.total_seconds()

    def died(self, child: Child) -> None:
        """Take note of a worker process that this process started and that has ended; from any thread."""
        self._dead.append(child)

    def _reap(self) -> None:
        with self._guard:
            gone = [child for child in self._children if child.exit_code is not None]
            self._children = [child for child in self._children if child not in gone]
            self._dead += gone

    def _free_what_the_dead_held(self) -> None:
        while self._dead:
            child = self._dead.popleft()
            try:
                freed = child.free_its_jobs()
            except Exception:
                self._dead.appendleft(child)  # the next round sees to it
                raise
            if freed:
                logger.warning("%s died (exit code %s) and left %d jobs", child.name, child.exit_code, freed)
                self._freed()
            if child.name.startswith(self._prefix) and not self._closing:
                self._judge(child, freed)

    def _judge(self, child: Child, freed: int) -> None:
        """Start the next child at once, or later when this one could not even begin."""
        if child.exit_code == 0 or freed:
            self._failures = 0
            return
        self._failures += 1
        pause = min(LONGEST_PAUSE, 2.0**self._failures)
        self._start_at = self._clock.monotonic() + pause
        logger.error(
            "The process for lost jobs ended before it had one (exit code %s); trying again in %.0f s",
            child.exit_code,
            pause,
        )

    @property
    def _prefix(self) -> str:
        return f"{self._options.name}/alone-"

    def _may_start(self) -> bool:
        """Answer whether a further child would help: the last one has begun, and what waits now waits beside it."""
        now = self._clock.monotonic()
        if len(self._children) >= MOST_CHILDREN or now < self._start_at:
            return False
        if self._warming is None or self._warming[0] not in self._children:
            return True
        child, started, began = self._warming
        if began is None and has_registered(child.name, child.pid):
            self._warming = child, started, now
        return now - started > START_LIMIT or (began is not None and now - began > WARM)

    def _start(self, queues: list[str]) -> None:
        options = self._options
        arguments = ["--alone", "--grace", str(options.grace.total_seconds())]
        arguments += ["--poll", str(options.poll_interval.total_seconds())]
        arguments += [part for queue in queues for part in ("--queue", f"{queue}=1")]
        with self._guard:
            if self._closing:
                return
            self._started += 1
            child = Child(f"{self._prefix}{self._started}", arguments)
            self._children.append(child)
        self._warming = child, self._clock.monotonic(), None

    # Ending -------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Start nothing more, and ask the children to stop; they have the grace time that this process has."""
        with self._guard:
            self._closing = True
        for child in self._children:
            child.terminate()

    def stop_at_once(self) -> None:
        """Do the same without grace time."""
        self.stop()
        for child in self._children:
            child.terminate_at_once()

    @property
    def busy(self) -> bool:
        """Whether a child still runs."""
        self._reap()
        return bool(self._children)

    def close(self) -> None:
        """End what still runs, and the leases of all that did not stop in order."""
        for child in self._children:
            logger.warning("%s did not stop in time and is killed", child.name)
            child.kill()
        self._reap()
        self._free_what_the_dead_held()
