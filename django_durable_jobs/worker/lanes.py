"""What one queue may run in this process, and how much it holds in advance.

A lane knows how many of its jobs run, which are claimed but not begun, and how long a job takes. From that it
derives how many more to claim: free slots, and for short jobs a little more, so that threads do not wait for the
database. Prefetched work is bounded by time (20 ms of it), not by a number that would be wrong for long jobs.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import Final

from ..dialects.rows import Claimed

PREFETCHED_SECONDS: Final = 0.02
"""How much work is held in advance, by the lane's measured speed."""
PREFETCHED_MOST: Final = 400
SHORT_TURN: Final = 0.002
"""Seconds of work that are worth waking another thread for."""
SMOOTHING: Final = 0.2


class Lane:
    """One queue in this process. Safe for threads."""

    def __init__(self, queue: str, concurrency: int) -> None:
        """Take the queue's name and how many of its jobs may run at once."""
        self.queue = queue
        self.concurrency = concurrency
        self._guard = threading.Lock()
        self._for_threads: deque[Claimed] = deque()
        self._for_loop: deque[Claimed] = deque()
        self._running = 0
        self._threads = 0
        self._mean: float | None = None
        self.delivered_at = 0.0
        """When jobs were last added, by the dispatcher's clock."""

    @property
    def running(self) -> int:
        """How many jobs run now."""
        return self._running

    @property
    def waiting(self) -> int:
        """How many jobs are claimed but not begun."""
        return len(self._for_threads) + len(self._for_loop)

    def room(self) -> int:
        """Return how many jobs to claim now."""
        return max(0, self.concurrency + self._prefetch() - self._running - self.waiting)

    def _prefetch(self) -> int:
        if self._mean is None:
            return 0
        return min(PREFETCHED_MOST, int(self.concurrency * PREFETCHED_SECONDS / max(self._mean, 1e-6)))

    def add(self, job: Claimed, *, for_loop: bool) -> None:
        """Take in a claimed job."""
        (self._for_loop if for_loop else self._for_threads).append(job)

    def take(self, *, for_loop: bool) -> Claimed | None:
        """Begin the next job if a slot is free; the caller must ``done`` it."""
        jobs = self._for_loop if for_loop else self._for_threads
        with self._guard:
            if not jobs or self._running >= self.concurrency:
                return None
            self._running += 1
            return jobs.popleft()

    def done(self, seconds: float) -> None:
        """Note that a job's code ended after so long."""
        with self._guard:
            self._running -= 1
            self._mean = seconds if self._mean is None else self._mean + SMOOTHING * (seconds - self._mean)

    def give_back(self) -> list[Claimed]:
        """Take out everything that has not begun."""
        with self._guard:
            back = [*self._for_threads, *self._for_loop]
            self._for_threads.clear()
            self._for_loop.clear()
        return back

    def slow_down(self, seconds: float) -> None:
        """Note that jobs take at least so long, though none has ended yet: prefetch less."""
        with self._guard:
            self._mean = max(seconds, self._mean or 0.0)

    def has_work_for_loop(self) -> bool:
        """Answer whether an async job can begin."""
        return bool(self._for_loop) and self._running < self.concurrency

    def threads_wanted(self, *, at_once: bool) -> int:
        """Return how many more threads this lane can use now.

        Very short jobs are left to few threads, since a change of thread costs more than such a job; what still
        waits at the next look (``at_once``) gets every free slot.
        """
        waiting = len(self._for_threads)
        free = self.concurrency - self._running - max(0, self._threads - self._running)
        if waiting == 0 or free <= 0:
            return 0
        if at_once or self._mean is None:
            return min(free, waiting)
        return max(0, min(free, waiting, math.ceil(waiting * self._mean / SHORT_TURN) - self._threads))

    def thread_came(self) -> None:
        """Note that a thread was sent to this lane."""
        with self._guard:
            self._threads += 1

    def thread_left(self) -> None:
        """Note that a thread found nothing more to do here."""
        with self._guard:
            self._threads -= 1
