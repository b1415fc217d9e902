"""How many jobs a rate lets begin now: a sliding window and a token bucket.

Here: arithmetic on what was admitted. Not here: where that is stored, and whose clock it is.

In **any** window of ``per`` seconds at most ``number`` begin. A plain token bucket does not give that: full at the
beginning of a window, it lets through its burst and what flows in meanwhile, up to twice the number. So the window is
counted, by a short log, and the bucket bounds what may begin at one moment.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

PARTS: Final = 64
"""Into how many parts a window is cut at most, which bounds the log. What is admitted in one part counts as admitted
at the last of its moments: so a busy log admits later than it might, by less than this part of the window."""


class Entry(NamedTuple):
    """Admitted jobs: the moments of the first and the last of them, in seconds, and how many there are."""

    first: float
    last: float
    number: int


class Admitted(NamedTuple):
    """What a rate has admitted: the bucket's level at a moment, and the log of the last window."""

    level: float
    at: float
    log: list[Entry]

    @classmethod
    def of(cls, form: Any) -> Admitted | None:
        """Read what ``form`` has written; ``None`` while nothing was admitted."""
        return None if form is None else cls(form[0], form[1], [Entry(*entry) for entry in form[2]])


class Rate(NamedTuple):
    """At most ``number`` in any ``per`` seconds, and at most ``burst`` of them at one moment."""

    number: int
    per: float
    burst: int

    def free(self, admitted: Admitted | None, now: float) -> int:
        """Return how many may begin now."""
        window = self.number - sum(entry.number for entry in self._inside(admitted, now))
        return max(0, math.floor(min(window, self._open(admitted, now)) + 1e-9))

    def wait(self, admitted: Admitted | None, now: float, count: int) -> float:
        """Return in how many seconds ``count`` may begin at once; that must not be more than ``burst``."""
        log = self._inside(admitted, now)
        free, seconds = self.number - sum(entry.number for entry in log), 0.0
        for entry in log:
            if free >= count:
                break
            free, seconds = free + entry.number, entry.last + self.per - now
        return max(0.0, seconds, (count - self._open(admitted, now)) * self.per / self.number)

    def noted(self, admitted: Admitted | None, first: float, last: float, count: int) -> Admitted:
        """Return what was admitted when ``count`` more are, at some moment between these two."""
        log = self._inside(admitted, first)
        if log and first - log[-1].first < self.per / PARTS:
            newest = log.pop()
            log.append(Entry(newest.first, max(last, newest.last), newest.number + count))
        else:
            log.append(Entry(first, last, count))
        return Admitted(self._level(admitted, first) - count, first, log)

    def _inside(self, admitted: Admitted | None, now: float) -> list[Entry]:
        # What lies a window ahead was admitted before the clock was set back.
        log = [] if admitted is None else admitted.log
        return [entry for entry in log if now - self.per < entry.last <= now + self.per]

    def _open(self, admitted: Admitted | None, now: float) -> float:
        # A bucket that holds the whole number never closes before the window does, but it would close after an order
        # that has raised the number.
        return math.inf if self.burst >= self.number else self._level(admitted, now)

    def _level(self, admitted: Admitted | None, now: float) -> float:
        if admitted is None:
            return float(self.burst)
        # A clock that was set back fills nothing.
        return min(float(self.burst), admitted.level + max(0.0, now - admitted.at) * self.number / self.per)
