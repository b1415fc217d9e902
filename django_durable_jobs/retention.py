"""How long ended jobs of some queues are kept: what the setting ``RETENTION`` says beside those for all queues."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from .rendering import safe_repr
from .states import FINAL

ALL_QUEUES: Final = "*"
"""Stands for every queue that is not named; no queue has this name."""
LONGEST_NAME: Final = 100
LONGEST: Final = 36_500 * 86_400
"""Seconds."""
STATUSES: Final = sorted(status.value for status in FINAL)


@dataclass(frozen=True, slots=True)
class Retention:
    """Lengths of time by queue and final status, as a value that can be compared."""

    kept: tuple[tuple[str, str, timedelta], ...] = ()

    def of(self, queue: str) -> dict[str, timedelta]:
        """Return what is said of a queue, by status."""
        return {status: length for name, status, length in self.kept if name == queue}

    @property
    def queues(self) -> list[str]:
        """The queues that are named."""
        return sorted({name for name, _status, _length in self.kept} - {ALL_QUEUES})

    @property
    def shortest(self) -> timedelta | None:
        """The shortest of all lengths."""
        return min((length for _name, _status, length in self.kept), default=None)


def problem(value: object) -> str | None:
    """Say what is wrong with the setting, or ``None``."""
    if not isinstance(value, Mapping):
        return None if isinstance(value, Retention) else f"must be a dictionary of queues, not {safe_repr(value, 80)}."
    for queue, kept in value.items():
        if not isinstance(queue, str) or not 0 < len(queue) <= LONGEST_NAME:
            return f"must have names of queues or {ALL_QUEUES!r} as its keys, not {safe_repr(queue, 80)}."
        if not isinstance(kept, Mapping):
            return f"must say of {queue!r} how long jobs of each status are kept, not {safe_repr(kept, 80)}."
        for status, length in kept.items():
            if status not in STATUSES:
                return f"can say of {queue!r} something for {', '.join(STATUSES)}, not for {safe_repr(status, 80)}."
            if _seconds(length) is None:
                shown = safe_repr(length, 80)
                return (
                    f"must say for {queue!r} and {status} 0 seconds to 100 years (timedelta or seconds), not {shown}."
                )
    return None


def read(value: Retention | Mapping[str, Mapping[str, timedelta | float]]) -> Retention:
    """Return the setting as a value; there is no problem with it."""
    if isinstance(value, Retention):
        return value
    rows = [
        (queue, str(status), timedelta(seconds=_seconds(length) or 0.0))
        for queue, kept in value.items()
        for status, length in kept.items()
    ]
    return Retention(tuple(sorted(rows)))


def _seconds(length: object) -> float | None:
    seconds = length.total_seconds() if isinstance(length, timedelta) else length
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or math.isnan(seconds):
        return None
    return float(seconds) if 0 <= seconds <= LONGEST else None
