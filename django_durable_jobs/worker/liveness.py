"""Whether the services of a process still do their rounds.

A round that takes longer than a lease hangs: a claim takes milliseconds, and a lost connection is noticed sooner. A
thread cannot be ended from outside, but what it waits for can: its connection is cut, so that the statement fails and
the service goes on with a new one, as after any other loss. If that does not help either, the service does not wait for
the database, and nothing less than a new process will do.

Only time in which this process itself ran is counted: one that was stopped, or whose interpreter was held, has hung as
a whole, and none of its threads is to blame.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from ..clock import SYSTEM, Clock
from .service import ServiceThread

logger = logging.getLogger(__name__)

LEAST: Final = 10.0
"""Seconds that a round may take in any case."""
LONGEST_LOOK: Final = 1.0
"""Seconds that count between two looks, however far they are apart."""


class ServiceLost(RuntimeError):
    """A service of this process has ended, or hangs for good."""


@dataclass(slots=True)
class _Seen:
    round: int = 0
    seconds: float = 0.0
    was_cut: bool = False


class Liveness:
    """Looks after service threads; asked every moment by the main thread, which does not touch the database."""

    def __init__(self, threads: Sequence[ServiceThread], lease: timedelta, *, clock: Clock = SYSTEM) -> None:
        """Take whom to watch, and how long their leases are."""
        self._limit = max(LEAST, lease.total_seconds())
        self._clock = clock
        self._looked_at = clock.monotonic()
        self._seen = {thread: _Seen() for thread in threads}

    def look(self) -> bool:
        """Answer whether every service does its rounds. Raises ``ServiceLost`` when one never will again."""
        now = self._clock.monotonic()
        passed, self._looked_at = min(now - self._looked_at, LONGEST_LOOK), now
        # Not all(): each must be looked at.
        return not [thread for thread, seen in self._seen.items() if not self._is_well(thread, seen, passed)]

    def _is_well(self, thread: ServiceThread, seen: _Seen, passed: float) -> bool:
        name = thread.service.name
        if not thread.alive:
            # Errors do not end a service, so this is nothing that this process can go on with.
            raise ServiceLost(f"The service {name!r} of this worker has died; its error is printed above.")
        rounds = thread.in_round
        if rounds is None or rounds != seen.round:
            if seen.was_cut:
                logger.warning("The service %r does its rounds again", name)
            seen.round, seen.seconds, seen.was_cut = rounds or 0, 0.0, False
            return True
        seen.seconds += passed
        if seen.seconds < self._limit:
            return True
        if not seen.was_cut:
            seen.was_cut = True
            logger.error("The service %r hangs for %.0f s; its database connection is cut", name, seen.seconds)
            thread.cut()
        elif seen.seconds > 2 * self._limit:
            raise ServiceLost(
                f"The service {name!r} hangs for {seen.seconds:.0f} s although its connection was cut. This process "
                "ends, so that its supervisor or service manager starts another one."
            )
        return False
