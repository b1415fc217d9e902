"""The settings of the app: one frozen dataclass, filled from the project's ``DURABLE_JOBS`` dictionary.

Keys of the dictionary are the field names in capitals (``DURABLE_JOBS = {"LEASE": 30}``); lengths of time are
seconds or ``timedelta``. ``get_settings()`` is cheap, cached, and follows ``override_settings``. Ranges are
checked by ``problems()``, which the system checks and the worker's start show to the user.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from functools import cache
from typing import Any

from django.conf import settings as django_settings
from django.core.signals import setting_changed

from .backoff import Backoff
from .determinism import Determinism
from .rendering import safe_repr
from .retention import Retention
from .retention import problem as retention_problem
from .retention import read as read_retention

SETTING = "DURABLE_JOBS"
CHECKS = "durable_jobs"
"""The tag of our system checks."""


def _seconds(value: float) -> timedelta:
    return timedelta(seconds=value)


def _days(value: float) -> timedelta:
    return timedelta(days=value)


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting with its default and, in ``metadata``, what it means and what is allowed."""

    database: str = field(default="default", metadata={"help": "Database alias that holds the jobs."})
    default_queue: str = field(
        default="default",
        metadata={"help": "Queue of jobs that name none.", "pattern": r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}"},
    )
    priority: int = field(
        default=0, metadata={"help": "Priority of jobs that name none, -100 to 100.", "range": (-100, 100)}
    )
    retries: int = field(default=2, metadata={"help": "Attempts after the first one, per job.", "range": (0, 999)})
    backoff: Backoff = field(
        default=Backoff.exponential(base=_seconds(1), cap=timedelta(hours=1)),
        metadata={"help": "Delay between the attempts of a job."},
    )
    call_retries: int = field(
        default=3, metadata={"help": "Repeats of a failing call inside one attempt.", "range": (0, 999)}
    )
    call_backoff: Backoff = field(
        default=Backoff.exponential(base=_seconds(0.1), cap=_seconds(5)),
        metadata={"help": "Delay between the repeats of a call; the attempt waits meanwhile."},
    )
    concurrency: int = field(
        default=10, metadata={"help": "Jobs of one queue that run at once in one process.", "range": (1, 1000)}
    )
    poll_interval: timedelta = field(
        default=_seconds(1), metadata={"help": "How often an idle worker looks for jobs.", "range": (0.01, 3600)}
    )
    idle_poll_interval: timedelta = field(
        default=_seconds(5),
        metadata={"help": "The same while the database's notifications work.", "range": (0.01, 3600)},
    )
    lease: timedelta = field(
        default=_seconds(20), metadata={"help": "How long a silent worker keeps its jobs.", "range": (0.3, 86_400)}
    )
    heartbeat: timedelta = field(
        default=_seconds(5), metadata={"help": "How often a worker renews its leases.", "range": (0.1, 28_800)}
    )
    rescue_interval: timedelta = field(
        default=_seconds(5),
        metadata={"help": "How often a worker looks for jobs of lost workers.", "range": (0.1, 3600)},
    )
    grace: timedelta = field(
        default=_seconds(30), metadata={"help": "Time for running jobs after SIGTERM.", "range": (0, 86_400)}
    )
    hard_timeout: timedelta | None = field(
        default=None,
        metadata={
            "help": "How long an attempt may take before its code is stopped, where neither job nor definition says.",
            "range": (0.001, 10 * 366 * 86_400),
        },
    )
    recycle_after: timedelta = field(
        default=_seconds(5),
        metadata={
            "help": "How long code may go on after it was interrupted (hard timeout, cancel with force); then its "
            "process is replaced.",
            "range": (0, 3600),
        },
    )
    notify: bool = field(
        default=True, metadata={"help": "Use LISTEN/NOTIFY where the database has it; a hint, never needed."}
    )
    prepared_statements: bool = field(
        default=True,
        metadata={
            "help": "Let the worker's own connections prepare their statements (PostgreSQL). Off behind a pooler in "
            "transaction mode, which would give the statement to one session and its execution to another."
        },
    )
    argument_limit: int = field(
        default=256 * 1024, metadata={"help": "Bytes of a job's stored arguments.", "range": (1024, 64 * 1024**2)}
    )
    result_limit: int = field(
        default=1024**2,
        metadata={"help": "Bytes of a stored result, of a job or a call.", "range": (1024, 64 * 1024**2)},
    )
    traceback_limit: int = field(
        default=64 * 1024, metadata={"help": "Bytes of a stored traceback.", "range": (1024, 16 * 1024**2)}
    )
    determinism: Determinism = field(
        default=Determinism.EXPLICIT,
        metadata={"help": "How strictly jobs that name none are held to their recorded calls."},
    )
    call_depth: int = field(default=50, metadata={"help": "How deep calls may nest.", "range": (1, 200)})
    child_depth: int = field(default=50, metadata={"help": "How deep jobs may nest by gather().", "range": (1, 1000)})
    gather_limit: int = field(
        default=8 * 1024**2,
        metadata={
            "help": "Bytes of what one gather() keeps of its children: results, and how errors begin.",
            "range": (1024, 64 * 1024**2),
        },
    )
    retention_completed: timedelta = field(
        default=_days(7),
        metadata={"help": "How long completed, cancelled and expired jobs are kept.", "range": (0, 36_500 * 86_400)},
    )
    retention_failed: timedelta = field(
        default=_days(30), metadata={"help": "How long failed jobs are kept.", "range": (0, 36_500 * 86_400)}
    )
    retention: Retention = field(
        default=Retention(),
        metadata={
            "help": "How long ended jobs of a queue are kept, by status, where it differs: "
            '`{"mail": {"completed": 3600}, "*": {"cancelled": 60}}`.'
        },
    )
    retention_events: timedelta = field(
        default=_days(7),
        metadata={"help": "How long events are kept for jobs that ask later.", "range": (0, 36_500 * 86_400)},
    )
    retention_audit: timedelta = field(
        default=_days(365),
        metadata={"help": "How long it is kept who ordered what.", "range": (0, 36_500 * 86_400)},
    )


_FIELDS = {entry.name.upper(): entry for entry in fields(Settings)}


@cache
def get_settings() -> Settings:
    """Return the project's settings; unusable entries keep their default (the checks report them)."""
    raw = getattr(django_settings, SETTING, {})
    values: dict[str, Any] = {}
    if isinstance(raw, Mapping):
        for key, value in raw.items():
            entry = _FIELDS.get(key)
            if entry is not None and _problem(key, value) is None:
                values[entry.name] = _coerced(entry.default, value)
    return Settings(**values)


def problems() -> Iterator[tuple[str, str, str]]:
    """Yield (check id, message, hint) for everything in ``DURABLE_JOBS`` that cannot be used."""
    raw = getattr(django_settings, SETTING, {})
    if not isinstance(raw, Mapping):
        yield (
            "E001",
            f"{SETTING} must be a dictionary, not {type(raw).__name__}.",
            f'Write {SETTING} = {{"LEASE": 30}}.',
        )
        return
    for key, value in raw.items():
        if key not in _FIELDS:
            near = difflib.get_close_matches(str(key).upper(), _FIELDS, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(sorted(_FIELDS))}."
            yield "E002", f"{SETTING} has no setting {_shown(key)}.", hint
        elif (text := _problem(key, value)) is not None:
            yield "E003", f"{SETTING}[{key!r}] {text}", _FIELDS[key].metadata["help"]
    chosen = get_settings()
    if chosen.lease < 3 * chosen.heartbeat:
        lease, beat = chosen.lease.total_seconds(), chosen.heartbeat.total_seconds()
        yield (
            "E004",
            f"{SETTING}: LEASE ({lease:g} s) is shorter than three HEARTBEATs ({beat:g} s each).",
            "A worker that misses one beat would lose its jobs: raise LEASE or lower HEARTBEAT.",
        )


def _problem(key: str, value: object) -> str | None:  # noqa: PLR0911 -- one answer per kind of value
    """Say what is wrong with the value of a known key, or ``None``."""
    entry = _FIELDS[key]
    default = entry.default
    if isinstance(default, bool):
        return None if isinstance(value, bool) else f"must be True or False, not {_shown(value)}."
    if isinstance(default, Determinism):
        return (
            None
            if value in list(Determinism)
            else f"must be {' or '.join(map(repr, map(str, Determinism)))}, not {_shown(value)}."
        )
    if isinstance(default, str):
        pattern = entry.metadata.get("pattern", ".+")
        if isinstance(value, str) and re.fullmatch(pattern, value):
            return None
        return f"must be a text that matches {pattern}, not {_shown(value)}."
    if isinstance(default, Retention):
        return retention_problem(value)
    if isinstance(default, Backoff):
        return None if isinstance(value, Backoff) else f"must be a Backoff, not {_shown(value)}."
    if default is None and value is None:
        return None
    return _not_in_range(value, *entry.metadata["range"], is_time=isinstance(default, timedelta | None))


def _not_in_range(value: object, low: float, high: float, *, is_time: bool) -> str | None:
    if is_time:
        if isinstance(value, timedelta):
            value = value.total_seconds()
        if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
            return f"must be a timedelta or a number of seconds, not {_shown(value)}."
        return None if low <= value <= high else f"must lie between {low} and {high} seconds, not {_shown(value)}."
    if isinstance(value, bool) or not isinstance(value, int):
        return f"must be a whole number, not {_shown(value)}."
    return None if low <= value <= high else f"must lie between {low} and {high}, not {_shown(value)}."


def _shown(value: object) -> str:
    """Return a value of the wrong kind in one short line."""
    return safe_repr(value, 80)


def _coerced(default: object, value: Any) -> Any:
    if isinstance(default, timedelta | None) and isinstance(value, int | float):
        return timedelta(seconds=value)
    if isinstance(default, Determinism):
        return Determinism(value)
    if isinstance(default, Retention):
        return read_retention(value)
    return value


def _forget(*, setting: str, **_kwargs: object) -> None:
    if setting == SETTING:
        get_settings.cache_clear()


setting_changed.connect(_forget)
