"""When it is worth to ask the database for jobs of a queue.

All queues are asked at an ending, when somebody said that there is work, and otherwise less and less often while
nothing comes. One whose limit is used up is left out of that: it is asked at the time that the database has told, or,
where no more may run at once, when a job has ended here. That one ended elsewhere is found by looking, less and less
often; the worker where it ended has looked at once.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Final

from ..clock import Clock
from ..dialects.rows import Want
from ..operations.control import WHOLE_WORKER
from ..operations.limited_claim import Taken
from .options import WorkerOptions

FIRST_LOOK: Final = 0.01
"""Seconds after work was seen until the queues are asked again; doubles while nothing comes."""


class Looks:
    """Of the dispatcher's thread, but for ``heed`` and ``at_once``."""

    def __init__(self, options: WorkerOptions, clock: Clock) -> None:
        """Take how often to look at least."""
        self._clock = clock
        self._often = options.poll_interval.total_seconds()
        self._seldom = options.idle_poll_interval.total_seconds()
        self._at = 0.0
        self._pause = FIRST_LOOK
        self._limits: Mapping[str, str] = {}
        self._heeded: Mapping[str, str] = {}
        self._due: dict[str, float] = {}
        self._pause_of_full: dict[str, float] = {}

    def at_once(self) -> None:
        """Ask the queues at the next round: somebody said that there is work."""
        self._at = 0.0
        self._pause = FIRST_LOOK

    def heed(self, limits: Mapping[str, str]) -> None:
        """Claim from these queues under their limits; with each comes a text that says which limit it is."""
        self._limits = limits

    def is_limited(self, queue: str) -> bool:
        """Answer whether a queue is claimed from under a limit."""
        return queue in self._limits or WHOLE_WORKER in self._limits

    def is_due(self, queue: str, *, anyway: bool) -> bool:
        """Answer whether to ask for a queue now; ``anyway`` when something else is written."""
        return self.seconds(queue) <= 0 or (anyway and queue not in self._due)

    def seconds(self, queue: str) -> float:
        """Return how long until a queue is to be asked."""
        if self._heeded is not self._limits:
            # An order has come: it may allow what the old one did not.
            self._heeded = self._limits
            self._due.clear()
        return self._due.get(queue, self._at) - self._clock.monotonic()

    def ended(self, queues: set[str]) -> None:
        """Take note that jobs of these queues have ended here: places are free, in the queues and in the fleet."""
        full = self._pause_of_full.keys()
        self._due.update(dict.fromkeys(full if queues and WHOLE_WORKER in self._limits else queues & full, 0.0))

    def came(self, count: int, asked: int, *, told: bool) -> None:
        """Take note of how many jobs came of those that were asked for; ``told`` when new ones are announced."""
        if count:
            self._pause = FIRST_LOOK
        if count < asked:
            self._at = self._clock.monotonic() + self._pause
            self._pause = min(self._pause * 2, self._seldom if told else self._often)
        elif asked:
            self._at = 0.0

    def came_limited(self, wants: Iterable[Want], taken: Taken, *, told: bool) -> None:
        """Take note of what a claim under limits has brought, and why not more."""
        free = [want for want in wants if not self._is_used_up(want.queue, taken)]
        queues = {want.queue for want in free}
        count = sum(job.queue in queues for job in taken.jobs)
        self.came(count, sum(want.amount for want in free), told=told)

    def _is_used_up(self, queue: str, taken: Taken) -> bool:
        now = self._clock.monotonic()
        if queue in taken.full:
            pause = self._pause_of_full.get(queue, FIRST_LOOK)
            self._pause_of_full[queue] = min(2 * pause, self._often)
            self._due[queue] = now + pause
            return True
        self._pause_of_full.pop(queue, None)
        self._due.pop(queue, None)
        # A little later than possible, and not all workers at one moment.
        if queue in taken.later:
            seconds = taken.later[queue]
            self._due[queue] = now + seconds + random.uniform(0, min(FIRST_LOOK, seconds))  # noqa: S311 -- spreads looks
        elif queue in taken.in_hand:
            self._due[queue] = now + random.uniform(FIRST_LOOK / 2, FIRST_LOOK)  # noqa: S311 -- spreads looks
        return queue in self._due
