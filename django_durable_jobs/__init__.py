"""Durable background jobs for Django, on the project's own database.

The public names are loaded at first use, so that Django can import the app before its models may load.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backoff import Backoff
    from .chunks import ChunkItem
    from .determinism import Determinism
    from .durable.approvals import Decision, await_for_approval, wait_for_approval
    from .durable.batches import Batch, BatchProgress
    from .durable.call import acall, call, idempotency_key
    from .durable.compensations import acompensate, compensate
    from .durable.context import JobContext
    from .durable.decorator import durable_job
    from .durable.fork import afork, fork
    from .durable.frames import current_job
    from .durable.gather import agather, gather, threshold
    from .durable.handle import JobHandle, Progress
    from .durable.history import check_history
    from .durable.job import DurableJob, Invocation, aenqueue, aenqueue_many, enqueue, enqueue_many, get_job
    from .durable.messages import await_for_event, await_for_message, wait_for_event, wait_for_message
    from .durable.pipeline import Pipeline
    from .durable.progress import aprogress, progress
    from .durable.results import ChildResult, Results
    from .durable.steps import AtomicStep, atomic_step
    from .durable.timers import asleep, asleep_until, sleep, sleep_until
    from .durable.values import aload_checkpoint, asave_checkpoint, load_checkpoint, save_checkpoint
    from .durable.versions import aget_version, apatched, get_version, patched
    from .errors import (
        AlreadyPaused,
        ApprovalDecided,
        ApprovalExpired,
        ApprovalNotFound,
        ArgumentError,
        BatchClosed,
        BatchNotFound,
        CallError,
        CannotPause,
        ChildFailed,
        DurableJobsError,
        HardTimedOut,
        HistoryUnreadable,
        JobCancelled,
        JobEnded,
        JobFailed,
        JobNotFound,
        JobPaused,
        LeaseLost,
        NonDeterminism,
        NoRetry,
        NotLimited,
        NotPaused,
        OptionError,
        QueueNotEmpty,
        QueueNotFound,
        RetryAfter,
        SerializationError,
        Snooze,
        TaskFailed,
        TimedOut,
        TransitionRefused,
        UnknownDefinition,
        WorkerNotFound,
    )
    from .ids import new_job_id
    from .operations.approvals import aapprove, approve, areject, pending_approvals, reject
    from .operations.arrange import achange_priority, amove_job, change_priority, move_job
    from .operations.cancel import acancel, cancel
    from .operations.clearing import (
        aclear_queue,
        adelete_queue,
        adrain_queue,
        amove_jobs,
        clear_queue,
        delete_queue,
        drain_queue,
        move_jobs,
    )
    from .operations.events import aemit, emit
    from .operations.explain import Explanation, aexplain, explain
    from .operations.history import export_history
    from .operations.limits import (
        alimit_queue,
        aunlimit_queue,
        limit_fleet,
        limit_key,
        limit_queue,
        unlimit_fleet,
        unlimit_key,
        unlimit_queue,
    )
    from .operations.messages import asend_message, send_message
    from .operations.pause import apause, aresume, is_paused, is_pausing, pause, paused_jobs, resume
    from .operations.queues import (
        apause_queue,
        aresume_queue,
        is_queue_paused,
        pause_queue,
        paused_queues,
        resume_queue,
    )
    from .operations.retry import arequeue, aretry, requeue, retry
    from .operations.sequences import blocked_by
    from .operations.workers import (
        apause_worker,
        aresume_worker,
        astop_worker,
        pause_worker,
        resume_worker,
        stop_worker,
    )
    from .states import Status

__version__ = "0.1.0"

_HOMES = {
    "backoff": ("Backoff",),
    "chunks": ("ChunkItem",),
    "determinism": ("Determinism",),
    "durable.batches": ("Batch", "BatchProgress"),
    "durable.approvals": ("Decision", "await_for_approval", "wait_for_approval"),
    "durable.call": ("acall", "call", "idempotency_key"),
    "durable.context": ("JobContext",),
    "durable.decorator": ("durable_job",),
    "durable.fork": ("afork", "fork"),
    "durable.frames": ("current_job",),
    "durable.gather": ("agather", "gather", "threshold"),
    "durable.handle": ("JobHandle", "Progress"),
    "durable.history": ("check_history",),
    "durable.job": ("DurableJob", "Invocation", "aenqueue", "aenqueue_many", "enqueue", "enqueue_many", "get_job"),
    "durable.messages": ("await_for_event", "await_for_message", "wait_for_event", "wait_for_message"),
    "durable.pipeline": ("Pipeline",),
    "durable.progress": ("aprogress", "progress"),
    "durable.results": ("ChildResult", "Results"),
    "durable.compensations": ("acompensate", "compensate"),
    "durable.steps": ("AtomicStep", "atomic_step"),
    "durable.timers": ("asleep", "asleep_until", "sleep", "sleep_until"),
    "durable.values": ("aload_checkpoint", "asave_checkpoint", "load_checkpoint", "save_checkpoint"),
    "durable.versions": ("aget_version", "apatched", "get_version", "patched"),
    "errors": (
        *("AlreadyPaused", "CannotPause", "NotLimited", "NotPaused", "QueueNotEmpty", "QueueNotFound"),
        *("JobPaused", "ApprovalDecided", "ApprovalExpired", "ApprovalNotFound", "ArgumentError"),
        *("CallError", "ChildFailed", "DurableJobsError", "HistoryUnreadable", "JobCancelled", "JobEnded"),
        *("HardTimedOut", "JobFailed", "JobNotFound", "LeaseLost", "NoRetry", "NonDeterminism", "OptionError"),
        *("RetryAfter", "SerializationError", "Snooze", "TaskFailed", "TimedOut", "TransitionRefused"),
        *("BatchClosed", "BatchNotFound", "UnknownDefinition", "WorkerNotFound"),
    ),
    "ids": ("new_job_id",),
    "operations.approvals": ("aapprove", "approve", "areject", "pending_approvals", "reject"),
    "operations.arrange": ("achange_priority", "amove_job", "change_priority", "move_job"),
    "operations.cancel": ("acancel", "cancel"),
    "operations.clearing": (
        *("aclear_queue", "adelete_queue", "adrain_queue", "amove_jobs"),
        *("clear_queue", "delete_queue", "drain_queue", "move_jobs"),
    ),
    "operations.events": ("aemit", "emit"),
    "operations.explain": ("Explanation", "aexplain", "explain"),
    "operations.history": ("export_history",),
    "operations.messages": ("asend_message", "send_message"),
    "operations.limits": (
        *("alimit_queue", "aunlimit_queue", "limit_queue", "unlimit_queue"),
        *("limit_fleet", "limit_key", "unlimit_fleet", "unlimit_key"),
    ),
    "operations.pause": ("apause", "aresume", "is_paused", "is_pausing", "pause", "paused_jobs", "resume"),
    "operations.queues": (
        *("apause_queue", "aresume_queue", "is_queue_paused", "pause_queue", "paused_queues"),
        *("resume_queue",),
    ),
    "operations.retry": ("arequeue", "aretry", "requeue", "retry"),
    "operations.sequences": ("blocked_by",),
    "operations.workers": (
        *("apause_worker", "aresume_worker", "astop_worker", "pause_worker", "resume_worker", "stop_worker"),
    ),
    "states": ("Status",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

# fmt: off
# A line for each name would make this file as long as a chapter.
__all__ = [
    "AlreadyPaused", "ApprovalDecided", "ApprovalExpired", "ApprovalNotFound", "ArgumentError", "AtomicStep",
    "Backoff", "Batch", "BatchClosed", "BatchNotFound", "BatchProgress", "CallError", "CannotPause", "ChildFailed",
    "ChildResult", "ChunkItem", "Decision", "Determinism", "DurableJob", "DurableJobsError", "Explanation",
    "HardTimedOut", "HistoryUnreadable", "Invocation", "JobCancelled", "JobContext", "JobEnded", "JobFailed",
    "JobHandle", "JobNotFound", "JobPaused", "LeaseLost", "NoRetry", "NonDeterminism", "NotLimited", "NotPaused",
    "OptionError", "Pipeline", "Progress", "QueueNotEmpty", "QueueNotFound", "Results", "RetryAfter",
    "SerializationError", "Snooze", "Status", "TaskFailed", "TimedOut", "TransitionRefused", "UnknownDefinition",
    "WorkerNotFound", "aapprove", "acall", "acancel", "achange_priority", "aclear_queue", "acompensate",
    "adelete_queue", "adrain_queue", "aemit", "aenqueue", "aenqueue_many", "aexplain", "afork", "agather",
    "aget_version", "alimit_queue", "aload_checkpoint", "amove_job", "amove_jobs", "apatched", "apause",
    "apause_queue", "apause_worker", "approve", "aprogress", "areject", "arequeue", "aresume", "aresume_queue",
    "aresume_worker", "aretry", "asave_checkpoint", "asend_message", "asleep", "asleep_until", "astop_worker",
    "atomic_step", "aunlimit_queue", "await_for_approval", "await_for_event", "await_for_message", "blocked_by",
    "call", "cancel", "change_priority", "check_history", "clear_queue", "compensate", "current_job", "delete_queue",
    "drain_queue", "durable_job", "emit", "enqueue", "enqueue_many", "explain", "export_history", "fork", "gather",
    "get_job", "get_version", "idempotency_key", "is_paused", "is_pausing", "is_queue_paused", "limit_fleet",
    "limit_key", "limit_queue", "load_checkpoint", "move_job", "move_jobs", "new_job_id", "patched", "pause",
    "pause_queue", "pause_worker", "paused_jobs", "paused_queues", "pending_approvals", "progress", "reject",
    "requeue", "resume", "resume_queue", "resume_worker", "retry", "save_checkpoint", "send_message", "sleep",
    "sleep_until", "stop_worker", "threshold", "unlimit_fleet", "unlimit_key", "unlimit_queue", "wait_for_approval",
    "wait_for_event", "wait_for_message",
]
# fmt: on


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
