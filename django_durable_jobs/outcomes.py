"""How an attempt ended, before anything is stored.

The executor turns every ending of a job's code into exactly one of these frozen values. What is stored for each stands
in ``operations/finish.py``, and nothing else stores them; only a job with ``atomic=True`` has ``Stored`` its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

CHILDREN: Final = "children"
"""How the name of a wait for child jobs begins."""
LINED_UP: Final = "sequence"
"""How the name of a wait for the turn in a line begins."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What is kept of an exception: texts that any database takes, already cut to their limits."""

    error: str
    """Class name and message, for lists."""
    traceback: str


@dataclass(frozen=True, slots=True)
class Completed:
    """The function returned; ``result`` is the stored form, ``None`` for a plain ``None``."""

    result: str | None


@dataclass(frozen=True, slots=True)
class Failed:
    """No attempt is left, or none is wanted."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class BackedOff:
    """The attempt failed; the next one is due ``delay`` from now on the database's clock."""

    failure: Failure
    delay: timedelta


@dataclass(frozen=True, slots=True)
class Snoozed:
    """The job asked to come back after ``delay``; the attempt is given back."""

    delay: timedelta


@dataclass(frozen=True, slots=True)
class Parked:
    """The job waits without a slot for something outside; the attempt is given back.

    ``waits`` says for what (in the words of ``operations/wake.py``): whichever comes first. ``until`` is when a
    clock ends the wait.
    """

    waits: tuple[str, ...]
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The job was asked to stop for good, and has; ``asked`` says when, if the row does not any more."""

    reason: str
    asked: datetime | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """The job stored its own ending, together with its writes; nothing is left to write."""


@dataclass(frozen=True, slots=True)
class Released:
    """The worker stops or hands the job back: it goes to its queue with its attempt.

    ``begun`` says whether its code may have run.
    """

    begun: bool = True


@dataclass(frozen=True, slots=True)
class Lost:
    """The lease is gone: nothing may be written."""


Outcome = Completed | Failed | BackedOff | Snoozed | Parked | Cancelled | Stored | Released | Lost
