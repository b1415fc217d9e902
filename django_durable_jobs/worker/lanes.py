"""What one queue may run in this process, and how much it holds in advance.

A lane knows how many of its jobs run, which are claimed but not begun, and how long a job takes. From that it
derives how many more to claim: free slots, and for short jobs a little more, so that threads do not wait for the
database. Prefetched work is bounded by time (20 ms of it), not by a number that would be wrong for long jobs.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass, field
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


@dataclass(slots=True)
class Chunk:
    """Jobs of one definition that run in one call."""

    due: float
    """Until when it may grow, by the dispatcher's clock."""
    for_loop: bool
    jobs: list[Claimed] = field(default_factory=list)


Unit = Claimed | Chunk
"""What takes one slot."""


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
        self._for_threads: deque[Unit] = deque()
        self._for_loop: deque[Unit] = deque()
        # Chunks belong to the dispatcher's thread until they are among the others.
        self._forming: dict[str, Chunk] = {}
        self._size = 0
        self._chunked = 0
        self._used = 0
        self._mean: float | None = None
        self._quick = 0.0

    @property
    def waiting(self) -> int:
        """How many jobs or chunks could begin, but for a slot."""
        return len(self._for_threads) + len(self._for_loop)

    @property
    def _free(self) -> int:
        return self.concurrency - self._used

    def room(self) -> int:
        """Return how many jobs to claim now."""
        units = self._free + self._prefetch() - self.waiting
        return max(0, units if not self._chunked else self._room_in_chunks())

    def _room_in_chunks(self) -> int:
        # How many jobs a slot takes is learnt: where other jobs are among them, a claim of many would hoard those.
        units = self._free + min(1, self._prefetch()) - self.waiting
        each = min(self._size, 2 * self._chunked + 1)
        return units * each - sum(len(chunk.jobs) for chunk in self._forming.values())

    def _prefetch(self) -> int:
        if self._mean is None:
            return 0
        return min(PREFETCHED_MOST, int(self.concurrency * PREFETCHED_SECONDS / max(self._mean, 1e-6)))

    def add(self, job: Claimed, *, for_loop: bool) -> None:
        """Take in a claimed job."""
        if self._chunked:
            self._chunked //= 2
        (self._for_loop if for_loop else self._for_threads).append(job)

    def gather(self, job: Claimed, size: int, due: float, *, for_loop: bool) -> None:
        """Take in a claimed job that runs together with others; ``due`` is for a chunk that begins with it."""
        self._size = size
        self._chunked = min(size, self._chunked + 1)
        chunk = self._forming.setdefault(job.definition, Chunk(due, for_loop))
        chunk.jobs.append(job)
        if len(chunk.jobs) >= size:
            self._formed(job.definition)

    @property
    def forms_until(self) -> float | None:
        """When the next chunk has grown for long enough; ``None`` while none is forming."""
        return min((chunk.due for chunk in self._forming.values()), default=None)

    def form(self, now: float) -> None:
        """Let the chunks begin that have grown for long enough."""
        for name in [name for name, chunk in self._forming.items() if chunk.due <= now]:
            self._formed(name)
            self.delivered_at = now

    def _formed(self, name: str) -> None:
        chunk = self._forming.pop(name)
        (self._for_loop if chunk.for_loop else self._for_threads).append(chunk)

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

    def next_for_thread(self) -> Unit | None:
        """Return the next job for a thread that has a slot."""
        try:
            return self._for_threads.popleft()
        except IndexError:
            return None

    def next_for_loop(self) -> Unit | None:
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

    def give_back(self, *, forming: bool) -> list[Claimed]:
        """Take out everything that has not begun; chunks that may still grow only if ``forming`` says so."""
        back: list[Claimed] = []
        while forming and self._forming:
            back += self._forming.popitem()[1].jobs
        for units in (self._for_threads, self._for_loop):
            while True:
                try:
                    unit = units.popleft()
                except IndexError:
                    break
                back += unit.jobs if isinstance(unit, Chunk) else [unit]
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
