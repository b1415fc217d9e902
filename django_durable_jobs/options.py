"""Which options a durable job may have, and which values each of them.

``Options`` is what a decorator gives and what ``.using(...)`` changes for one enqueue, so the rules for a value stand
here once.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from .backoff import Backoff
from .chunks import check_chunk, check_chunk_timeout
from .combinations import refuse_combinations
from .crashes import OnCrash, check_on_crash
from .determinism import Determinism
from .errors import DefinitionError, OptionError, _as_delay
from .ids import is_job_id
from .keys import KEY_LENGTH, TENANT_LENGTH, Key, choice_rule, key_rule

MAX_ATTEMPTS: Final = 1000
MAX_PRIORITY: Final = 100
MOST_AT_ONCE: Final = 1000  # concurrency of a definition
PRIORITY_NAMES: Final = {"critical": 100, "high": 50, "normal": 0, "low": -50}
QUEUE_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}")
EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(9000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Options:
    """How a job is enqueued. Fields that are ``None`` fall back to the project's setting, at enqueue."""

    queue: str | None = None
    priority: int | None = None
    retries: int | None = None
    backoff: Backoff | None = None
    call_retries: int | None = None
    call_backoff: Backoff | None = None
    delay: timedelta | None = None
    run_at: datetime | None = None
    expires_at: datetime | None = None
    expire_after: timedelta | None = None
    id: UUID | None = None
    timeout: timedelta | None = None
    hard_timeout: timedelta | None = None
    on_crash: OnCrash | None = None
    sequence_key: Key | None = None
    concurrency: int | None = None
    concurrency_key: Key | None = None
    tenant: Key | None = None
    chunk: int | None = None
    chunk_timeout: timedelta | None = None
    debounce: timedelta | None = None
    debounce_key: Key | None = None
    debounce_max: timedelta | None = None
    throttle: timedelta | None = None
    throttle_key: Key | None = None
    unique_key: Key | None = None
    unique_for: timedelta | None = None
    unique_until: str | None = None
    on_conflict: str | None = None
    determinism: Determinism | None = None

    def changed(self, given: Mapping[str, object]) -> Options:
        """Return a copy with the given options, each checked: ``OptionError`` names value and range."""
        checked: dict[str, Any] = {}
        for name, value in given.items():
            rule = _RULES.get(name)
            if rule is None:
                near = difflib.get_close_matches(name, _RULES, n=1)
                known = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(sorted(_RULES))}."
                raise DefinitionError(f"There is no option {name!r}. {known}")
            checked[name] = rule(value)
        # The later word wins: a length given now replaces a moment given earlier, and the other way round.
        for length, moment in (("delay", "run_at"), ("expire_after", "expires_at")):
            if checked.get(length) is not None and checked.get(moment) is not None:
                raise OptionError(f"Give {length} or {moment}, not both.")
            if checked.get(length) is not None:
                checked[moment] = None
            elif checked.get(moment) is not None:
                checked[length] = None
        result = replace(self, **checked)
        refuse_combinations(result)
        return result

    @property
    def coalesces(self) -> bool:
        """Whether an enqueue may be answered with a job that is there already."""
        return self.debounce is not None or self.throttle is not None


def shown(value: object) -> str:
    """Return a value as a message may show it."""
    return ascii(value)[:80] if isinstance(value, str) else f"{value!r:.80}"


def check_queue(value: object) -> str:
    """Return a usable queue name, or raise ``OptionError`` that shows the pattern."""
    if isinstance(value, str) and QUEUE_PATTERN.fullmatch(value):
        return str(value)
    raise OptionError(
        f"queue {shown(value)} is not a usable name: letters, digits and _ . : - only, "
        f"beginning with a letter or digit, at most 100 characters (pattern {QUEUE_PATTERN.pattern})."
    )


def check_priority(value: object) -> int:
    """Return a priority as a number: -100 to 100 (higher runs first) or one of the names."""
    if isinstance(value, str) and value in PRIORITY_NAMES:
        return PRIORITY_NAMES[value]
    if isinstance(value, int) and not isinstance(value, bool) and -MAX_PRIORITY <= value <= MAX_PRIORITY:
        return int(value)
    names = ", ".join(f"{name}={number}" for name, number in PRIORITY_NAMES.items())
    raise OptionError(f"priority must be a whole number from -100 to 100 or a name ({names}), not {shown(value)}.")


def _check_count(name: str, least: int = 0, most: int = MAX_ATTEMPTS - 1) -> Callable[[object], int]:
    def check(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return int(value)
        raise OptionError(f"{name} must be a whole number from {least} to {most}, not {shown(value)}.")

    return check


def _check_backoff(value: object) -> Backoff | None:
    if value is None or isinstance(value, Backoff):
        return value
    raise OptionError(f"backoff must be a Backoff, e.g. Backoff.fixed(timedelta(seconds=10)), not {shown(value)}.")


def _check_delay(value: object) -> timedelta | None:
    return None if value is None else _as_delay(value, "delay")  # type: ignore[arg-type]  # it checks the type


def _check_determinism(value: object) -> Determinism | None:
    if value is None or value in list(Determinism):
        return None if value is None else Determinism(str(value))
    names = ", ".join(f"Determinism.{mode.name}" for mode in Determinism)
    raise OptionError(f"determinism must be one of {names}, not {shown(value)}.")


def check_timeout(value: object, what: str = "timeout") -> timedelta | None:
    """Return a length of time of more than zero, at most ten years, or raise ``OptionError``; ``None`` is no limit."""
    if value is None:
        return None
    length = _as_delay(value, what)  # type: ignore[arg-type]  # it checks the type
    if not length:
        raise OptionError(f"{what} must be longer than 0 seconds.")
    return length


def check_label(value: object, what: str, longest: int = 200) -> str:
    """Return a text that any database tells apart from others and a person can read, or raise ``OptionError``."""
    if isinstance(value, str) and 0 < len(value) <= longest and value.isprintable() and value == value.strip():
        return str(value)
    raise OptionError(
        f"{what} must be a text of 1 to {longest} printable characters that neither begins nor ends with a space, "
        f"not {shown(value)}."
    )


def check_run_at(value: object, what: str = "run_at") -> datetime | None:
    """Return an instant in UTC between 1970 and 9000, or raise ``OptionError``; ``None`` stays ``None``."""
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise OptionError(f"{what} must be a datetime, not {type(value).__name__}.")
    if value.tzinfo is None or value.utcoffset() is None:
        raise OptionError(f"{what} must have a time zone, {value.isoformat()} has none: use django.utils.timezone.")
    try:
        instant = value.astimezone(UTC)
    except OverflowError:
        instant = None
    if instant is None or not EARLIEST <= instant <= LATEST:
        raise OptionError(f"{what} must lie between 1970 and 9000, not {value.isoformat()}.")
    return instant


def _check_id(value: object) -> UUID | None:
    if value is None or (isinstance(value, UUID) and is_job_id(value)):
        return value
    given = f"{value} of version {value.version}" if isinstance(value, UUID) else shown(value)
    # Claims and retention walk the primary key by time: another id would be out of turn, and kept for ever.
    raise OptionError(
        f"id must be a uuid.UUID of version 7, since ids of jobs sort by their creation, not {given}. Make one with "
        "django_durable_jobs.new_job_id() and store it with your own row: a repeated enqueue finds the first job."
    )


def _length(name: str) -> Callable[[object], timedelta | None]:
    return lambda value: check_timeout(value, name)


_RULES: Final[dict[str, Callable[[object], Any]]] = {
    "queue": check_queue,
    "priority": check_priority,
    "retries": _check_count("retries"),
    "backoff": _check_backoff,
    "call_retries": _check_count("call_retries"),
    "call_backoff": _check_backoff,
    "delay": _check_delay,
    "run_at": check_run_at,
    "expires_at": lambda value: check_run_at(value, "expires_at"),
    "expire_after": _length("expire_after"),
    "id": _check_id,
    "timeout": check_timeout,
    "hard_timeout": _length("hard_timeout"),
    "on_crash": check_on_crash,
    "sequence_key": key_rule("sequence_key"),
    "concurrency": _check_count("concurrency", 1, MOST_AT_ONCE),
    "concurrency_key": key_rule("concurrency_key", longest=KEY_LENGTH - 1),
    "tenant": key_rule("tenant", longest=TENANT_LENGTH),
    "chunk": check_chunk,
    "chunk_timeout": check_chunk_timeout,
    "debounce": _length("debounce"),
    "debounce_key": key_rule("debounce_key"),
    "debounce_max": _length("debounce_max"),
    "throttle": _length("throttle"),
    "throttle_key": key_rule("throttle_key"),
    "unique_key": key_rule("unique_key"),
    "unique_for": _length("unique_for"),
    "unique_until": choice_rule("unique_until", "finished", "started"),
    "on_conflict": choice_rule("on_conflict", "return", "raise", "replace"),
    "determinism": _check_determinism,
}
assert set(_RULES) == {entry.name for entry in fields(Options)}  # noqa: S101 -- a slip of ours, seen at import

DECORATOR_OPTIONS: Final = frozenset(_RULES) - {"run_at", "expires_at", "id"}
"""Options that make sense for every job of a definition; a moment or an id belong to one enqueue."""
OF_THE_FUNCTION: Final = frozenset({"chunk", "chunk_timeout", "concurrency"})
"""Options that say how the function is to be called, and how often at once: the same for all its jobs."""


def given_not_for_decorator(options: Mapping[str, object]) -> list[str]:
    """Return the known options among the given ones that only ``.using`` takes."""
    return [name for name in options if name in _RULES and name not in DECORATOR_OPTIONS]
