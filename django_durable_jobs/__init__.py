"""Durable background jobs for Django, on the project's own database.

The public names are loaded at first use, so that Django can import the app before its models may load.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backoff import Backoff
    from .determinism import Determinism
    from .durable.call import acall, call
    from .durable.context import JobContext
    from .durable.decorator import durable_job
    from .durable.fork import fork
    from .durable.frames import current_job
    from .durable.handle import JobHandle
    from .durable.history import check_history
    from .durable.job import DurableJob, aenqueue, enqueue, enqueue_many, get_job
    from .durable.timers import asleep, asleep_until, sleep, sleep_until
    from .errors import (
        ArgumentError,
        CallError,
        DurableJobsError,
        HistoryUnreadable,
        JobCancelled,
        JobFailed,
        JobNotFound,
        LeaseLost,
        NonDeterminism,
        NoRetry,
        OptionError,
        RetryAfter,
        SerializationError,
        Snooze,
        TimedOut,
        TransitionRefused,
        UnknownDefinition,
    )
    from .ids import new_job_id
    from .operations.cancel import cancel
    from .operations.history import export_history
    from .operations.retry import retry
    from .states import Status

__version__ = "0.1.0"

_HOMES = {
    "backoff": ("Backoff",),
    "determinism": ("Determinism",),
    "durable.call": ("acall", "call"),
    "durable.context": ("JobContext",),
    "durable.fork": ("fork",),
    "durable.frames": ("current_job",),
    "durable.decorator": ("durable_job",),
    "durable.handle": ("JobHandle",),
    "durable.history": ("check_history",),
    "durable.job": ("DurableJob", "aenqueue", "enqueue", "enqueue_many", "get_job"),
    "durable.timers": ("asleep", "asleep_until", "sleep", "sleep_until"),
    "errors": (
        "ArgumentError",
        "CallError",
        "DurableJobsError",
        "HistoryUnreadable",
        "JobCancelled",
        "JobFailed",
        "JobNotFound",
        "LeaseLost",
        "NoRetry",
        "NonDeterminism",
        "OptionError",
        "RetryAfter",
        "SerializationError",
        "Snooze",
        "TimedOut",
        "TransitionRefused",
        "UnknownDefinition",
    ),
    "ids": ("new_job_id",),
    "operations.cancel": ("cancel",),
    "operations.history": ("export_history",),
    "operations.retry": ("retry",),
    "states": ("Status",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "ArgumentError",
    "Backoff",
    "CallError",
    "Determinism",
    "DurableJob",
    "DurableJobsError",
    "HistoryUnreadable",
    "JobCancelled",
    "JobContext",
    "JobFailed",
    "JobHandle",
    "JobNotFound",
    "LeaseLost",
    "NoRetry",
    "NonDeterminism",
    "OptionError",
    "RetryAfter",
    "SerializationError",
    "Snooze",
    "Status",
    "TimedOut",
    "TransitionRefused",
    "UnknownDefinition",
    "acall",
    "aenqueue",
    "asleep",
    "asleep_until",
    "call",
    "cancel",
    "check_history",
    "current_job",
    "durable_job",
    "enqueue",
    "enqueue_many",
    "export_history",
    "fork",
    "get_job",
    "new_job_id",
    "retry",
    "sleep",
    "sleep_until",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
