"""How long to wait after a failed attempt.

Here: the delay as a plain function of the number of failures. Not here: how many attempts there are
(``definitions``), and who writes the due time (``operations``). No clock; randomness comes in as an argument.

Jitter is the "full jitter" of Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015
(https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/)::

    sleep = random_between(0, min(cap, base * 2 ** attempt))

Without it, jobs that failed together (the database was away) come back together, again and again.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import random as _random
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, NotRequired, Self, TypedDict, cast, get_args

from .errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Kind = Literal["none", "fixed", "linear", "exponential"]
KINDS: tuple[Kind, ...] = get_args(Kind)

#: A year. Far below what a timedelta can hold, so that "now + delay" is always a date.
MAX_DELAY = timedelta(days=365)
MAX_FACTOR = 100

_MICROSECOND = timedelta(microseconds=1)
_USUAL_FACTOR = 2


class BackoffForm(TypedDict):
    """A back-off as JSON, for storing it with a job."""

    kind: Kind
    base_seconds: float
    cap_seconds: float
    jitter: bool
    factor: NotRequired[float]


@dataclasses.dataclass(frozen=True, slots=True)
class Backoff:
    """A rule that gives the delay before the next attempt; immutable, equal by value.

    ``none``: no delay. ``fixed``: ``base``. ``linear``: ``base * (n + 1)``. ``exponential``: ``base * factor**n``;
    where n is 0 after the first failure. Never more than ``cap``. With ``jitter`` (True or "full") the delay is
    drawn evenly from zero to that value. Raises ``OptionError`` for an unknown kind, a ``base`` or ``cap`` that is
    negative or over a year, a ``cap`` below ``base``, and a ``factor`` that does not lie between 1 and 100.
    """

    kind: Kind = "exponential"
    base: timedelta = timedelta(seconds=1)
    cap: timedelta = timedelta(hours=1)
    jitter: bool | Literal["full"] = True
    factor: float = _USUAL_FACTOR

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            near = difflib.get_close_matches(str(self.kind), KINDS, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise OptionError(f"Unknown back-off kind {self.kind!r}; known are {', '.join(KINDS)}.{hint}")
        if not (self.jitter is True or self.jitter is False or self.jitter == "full"):
            raise OptionError(f"Back-off jitter must be True, False or 'full', got {self.jitter!r}.")
        object.__setattr__(self, "jitter", bool(self.jitter))
        object.__setattr__(self, "base", _length(self.base, "base"))
        object.__setattr__(self, "cap", _length(self.cap, "cap"))
        if self.cap < self.base:
            raise OptionError(f"Back-off cap ({self.cap}) must not be below its base ({self.base}).")
        if type(self.factor) not in (int, float) or not 1 <= self.factor <= MAX_FACTOR:
            raise OptionError(f"Back-off factor must be a number from 1 to {MAX_FACTOR}, got {self.factor!r}.")

    @classmethod
    def none(cls) -> Self:
        """Return the rule that retries at once."""
        return cls("none", timedelta(0), timedelta(0), jitter=False)

    @classmethod
    def fixed(cls, delay: timedelta | float, *, jitter: bool = False) -> Self:
        """Return the rule that always waits ``delay`` (timedelta or seconds)."""
        length = _length(delay, "delay")
        return cls("fixed", length, length, jitter=jitter)

    @classmethod
    def linear(
        cls, step: timedelta | float, *, cap: timedelta | float = timedelta(hours=1), jitter: bool = False
    ) -> Self:
        """Return the rule that waits one ``step`` more each time, up to ``cap`` (timedelta or seconds)."""
        return cls("linear", _length(step, "step"), _length(cap, "cap"), jitter=jitter)

    @classmethod
    def exponential(
        cls,
        base: timedelta | float = timedelta(seconds=1),
        *,
        cap: timedelta | float = timedelta(hours=1),
        jitter: bool = True,
        factor: float = 2,
    ) -> Self:
        """Return the rule that doubles from ``base`` up to ``cap`` (timedelta or seconds), with full jitter.

        ``factor`` says by what else each delay grows.
        """
        return cls("exponential", _length(base, "base"), _length(cap, "cap"), jitter=jitter, factor=factor)

    def delay(self, n: int, random: Callable[[], float] = _random.random) -> timedelta:
        """Return how long to wait; ``n`` is 0 after the first failed attempt.

        Between zero and ``cap``, for any ``n``: the doubling stops at the cap, so nothing overflows. ``random``
        gives a float in [0, 1). Raises ``OptionError`` if ``n`` is no whole number, or negative.
        """
        if type(n) is not int or n < 0:
            raise OptionError(f"The number of earlier failures must be a whole number from 0 on, got {n!r}.")
        ceiling = self._ceiling(n)
        if not self.jitter:
            return ceiling
        return timedelta(microseconds=int((ceiling // _MICROSECOND) * random()))

    def _ceiling(self, n: int) -> timedelta:
        base, cap = self.base // _MICROSECOND, self.cap // _MICROSECOND
        if self.kind == "none":
            return timedelta(0)
        if self.kind == "fixed":
            return self.base
        if self.kind == "linear":
            return timedelta(microseconds=min(cap, base * (n + 1)))
        if self.factor != _USUAL_FACTOR:
            return timedelta(microseconds=_grown(base, self.factor, n, cap))
        # base << n would be a number of n bits; past the cap's own length the answer is known without it.
        steps = min(n, cap.bit_length())
        return timedelta(microseconds=min(cap, base << steps))

    def to_form(self) -> BackoffForm:
        """Return the rule as a small JSON object; lengths in seconds, exact to the microsecond."""
        form: BackoffForm = {
            "kind": self.kind,
            "base_seconds": self.base.total_seconds(),
            "cap_seconds": self.cap.total_seconds(),
            "jitter": bool(self.jitter),
        }
        return form if self.factor == _USUAL_FACTOR else {**form, "factor": self.factor}

    @classmethod
    def from_form(cls, form: Mapping[str, object]) -> Self:
        """Return the rule that ``to_form`` described. Raises ``OptionError`` for anything else."""
        names = [name for name in BackoffForm.__annotations__ if name != "factor"]
        if sorted({*form, "factor"}) != sorted([*names, "factor"]):
            raise OptionError(f"A stored back-off has the keys {', '.join(names)}; got {', '.join(map(str, form))}.")
        base = _length(form["base_seconds"], "base_seconds")
        cap = _length(form["cap_seconds"], "cap_seconds")
        factor = cast("float", form.get("factor", _USUAL_FACTOR))
        return cls(cast("Kind", form["kind"]), base, cap, cast("bool", form["jitter"]), factor)


def _grown(base: int, factor: float, n: int, cap: int) -> int:
    try:
        return min(cap, int(base * factor**n))
    except OverflowError:
        return cap if base and factor > 1 else base


def _length(value: object, name: str) -> timedelta:
    if isinstance(value, bool) or not isinstance(value, timedelta | int | float):
        raise OptionError(f"Back-off {name} must be a timedelta or a number of seconds, got {value!r}.")
    allowed = f"must lie between 0 and {MAX_DELAY.days} days"
    if isinstance(value, float) and not math.isfinite(value):
        raise OptionError(f"Back-off {name} {allowed}, got {value!r}.")
    largest = MAX_DELAY if isinstance(value, timedelta) else MAX_DELAY.total_seconds()
    smallest = timedelta(0) if isinstance(value, timedelta) else 0
    if not smallest <= value <= largest:  # type: ignore[operator]  # both bounds are of the value's kind
        raise OptionError(f"Back-off {name} {allowed}, got {value!r}.")
    return value if isinstance(value, timedelta) else timedelta(seconds=value)
