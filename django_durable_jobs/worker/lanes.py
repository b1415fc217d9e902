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
FALLING: Final = 0.5
RISING: Final = 0.02


class Lane:
    """One queue in this process. Safe for threads.

    A slot is taken by a thread for as long as it works here, or by an async job for as long as it runs; so jobs of
    one thread follow each other without a lock.
    """

    def __init__(self, queue: str, concurrency: int) -> None:
        """Take the queue's name and how many of its jobs may run at once."""
        self.queue = queue
        self.concurrency = concurrency
        self.delivered_at = 0.0
        """When jobs were last added, by the dispatcher's clock."""
        self._guard = threading.Lock()
        self._for_threads: deque[Claimed] = deque()
        self._for_loop: deque[Claimed] = deque()
        self._used = 0
        self._mean: float | None = None
        self._quick = 0.0

    @property
    def waiting(self) -> int:
        """How many jobs are claimed but not begun."""
        return len(self._for_threads) + len(self._for_loop)

    @property
    def _free(self) -> int:
        return self.concurrency - self._used

    def room(self) -> int:
        """Return how many jobs to claim now."""
        return max(0, self._free + self._prefetch() - self.waiting)

    def _prefetch(self) -> int:
        if self._mean is None:
            return 0
        return min(PREFETCHED_MOST, int(self.concurrency * PREFETCHED_SECONDS / max(self._mean, 1e-6)))

    def add(self, job: Claimed, *, for_loop: bool) -> None:
        """Take in a claimed job."""
        (self._for_loop if for_loop else self._for_threads).append(job)

    def enter(self) -> bool:
        """Take a slot for a thread, if one is free; the thread must ``leave``."""
        with self._guard:
            if self._used >= self.concurrency:
                return False
            self._used += 1
            return True

    def leave(self) -> None:
        """Give the slot of a thread or of an async job back."""
        with self._guard:
            self._used -= 1

    def next_for_thread(self) -> Claimed | None:
        """Return the next job for a thread that has a slot."""
        try:
            return self._for_threads.popleft()
        except IndexError:
            return None

    def next_for_loop(self) -> Claimed | None:
        """Return the next async job together with a slot for it; it must ``leave``."""
        if not self._for_loop or not self.enter():
            return None
        try:
            return self._for_loop.popleft()
        except IndexError:
            self.leave()
            return None

    def took(self, seconds: float) -> None:
        """Note how long a job's code took."""
        # Threads may overwrite each other here: an estimate can bear it, a lock per job would cost more.
        mean, quick = self._mean, self._quick
        self._mean = seconds if mean is None else mean + SMOOTHING * (seconds - mean)
        # Waiting for the interpreter's lock makes short jobs look long once several threads run them.
        self._quick = quick + (FALLING if seconds < quick else RISING) * (seconds - quick)

    def give_back(self) -> list[Claimed]:
        """Take out everything that has not begun."""
        back: list[Claimed] = []
        for jobs in (self._for_threads, self._for_loop):
            while True:
                try:
                    back.append(jobs.popleft())
                except IndexError:
                    break
        return back

    def slow_down(self, seconds: float) -> None:
        """Note that jobs take at least so long, though none has ended yet: prefetch less."""
        self._mean = max(seconds, self._mean or 0.0)

    def has_work_for_loop(self) -> bool:
        """Answer whether an async job can begin."""
        return bool(self._for_loop) and self._free > 0

    def has_work_for_threads(self) -> bool:
        """Answer whether jobs for threads wait."""
        return bool(self._for_threads)

    def threads_wanted(self, *, at_once: bool) -> int:
        """Return how many more threads this lane can use now.

        Very short jobs are left to few threads, since a change of thread costs more than such a job; what still
        waits at the next look (``at_once``) gets every free slot.
        """
        waiting, free = len(self._for_threads), self._free
        if waiting == 0 or free <= 0:
            return 0
        if at_once or self._mean is None:
            return min(free, waiting)
        useful = math.ceil(waiting * self._quick / SHORT_TURN) - self._used
        return max(0, min(free, waiting, useful))
