"""The public names with signatures and docstrings, from ``__all__``."""

from __future__ import annotations

import enum
import inspect
import textwrap
import typing
from collections.abc import Callable, Iterator
from dataclasses import fields
from datetime import timedelta
from typing import Any, Final

import django_durable_jobs
from django_durable_jobs import DurableJob, JobContext, JobHandle
from django_durable_jobs.durable.options import EnqueueOptions, JobOptions
from django_durable_jobs.options import DECORATOR_OPTIONS, Options
from tests.docs.facts.markdown_tables import code, listed, markdown_table, prose

GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "Define": ("durable_job", "DurableJob", "Backoff"),
    "Enqueue": ("enqueue", "aenqueue", "enqueue_many", "aenqueue_many", "get_job", "new_job_id"),
    "Change code, run again": ("Determinism", "fork", "afork", "export_history", "check_history"),
    "Look at jobs": (
        *("JobHandle", "Status", "retry", "aretry", "requeue", "arequeue", "cancel", "acancel", "blocked_by"),
        *("move_job", "amove_job", "change_priority", "achange_priority", "explain", "aexplain", "Explanation"),
    ),
    "Whole queues": (
        *("clear_queue", "aclear_queue", "drain_queue", "adrain_queue", "move_jobs", "amove_jobs"),
        *("delete_queue", "adelete_queue"),
    ),
    "Limits": (
        *("limit_queue", "alimit_queue", "unlimit_queue", "aunlimit_queue"),
        *("limit_key", "unlimit_key", "limit_fleet", "unlimit_fleet"),
    ),
    "Pause and resume": (
        *("pause", "apause", "resume", "aresume", "is_paused", "is_pausing", "paused_jobs"),
        *("pause_queue", "apause_queue", "resume_queue", "aresume_queue", "is_queue_paused", "paused_queues"),
        *("pause_worker", "apause_worker", "resume_worker", "aresume_worker", "stop_worker", "astop_worker"),
    ),
    "Inside a job": ("call", "acall", "current_job", "JobContext", "NoRetry", "RetryAfter", "Snooze"),
    "Batches": ("Batch", "BatchProgress"),
    "Many jobs in one call": ("ChunkItem",),
    "Children": ("gather", "agather", "threshold", "Invocation", "Results", "ChildResult"),
    "Exactly once in this database": ("atomic_step", "AtomicStep", "idempotency_key"),
    "Values and progress": (
        *("save_checkpoint", "asave_checkpoint", "load_checkpoint", "aload_checkpoint"),
        *("progress", "aprogress", "Progress"),
    ),
    "Versions": ("get_version", "aget_version", "patched", "apatched"),
    "Undo": ("compensate", "acompensate"),
    "Pipelines": ("Pipeline",),
    "Wait without a slot": ("sleep", "asleep", "sleep_until", "asleep_until"),
    "Messages to a job": ("send_message", "asend_message", "wait_for_message", "await_for_message"),
    "Events for all jobs": ("emit", "aemit", "wait_for_event", "await_for_event"),
    "Decisions of people": (
        "wait_for_approval",
        "await_for_approval",
        "Decision",
        *("approve", "aapprove", "reject", "areject"),
        "pending_approvals",
    ),
}
"""Where each name is shown. Other exceptions have a page of their own."""

MADE_BY_US: Final = (DurableJob, JobContext, JobHandle)
"""Classes whose instances users are given and do not make."""


MEMBERS: Final[dict[str, frozenset[str]]] = {
    "JobContext": frozenset({"id", "definition", "queue", "attempt", "max_attempts", "fencing_token"}),
    "Backoff": frozenset({"none", "fixed", "linear", "exponential"}),
}
"""Which members are for users, where others are for other rooms of the package."""

OPTIONS: Final[dict[str, tuple[str, str]]] = {
    "queue": ("name of the queue", "`DEFAULT_QUEUE`"),
    "priority": (
        "-100 to 100, higher first, or `critical` (100), `high` (50), `normal` (0), `low` (-50)",
        "`PRIORITY`",
    ),
    "retries": ("attempts after the first one, 0 to 999", "`RETRIES`"),
    "backoff": ("delay between attempts, a `Backoff`", "`BACKOFF`"),
    "call_retries": ("repeats of a failing durable call inside an attempt, 0 to 999", "`CALL_RETRIES`"),
    "call_backoff": ("delay between these repeats, a `Backoff`", "`CALL_BACKOFF`"),
    "delay": ("how long after the enqueue the job is due, `timedelta` or seconds", "at once"),
    "run_at": ("the moment when it is due, an aware `datetime`", "at once"),
    "timeout": ("how long an attempt may take, `timedelta` or seconds; asked for at its durable calls", "no limit"),
    "hard_timeout": (
        "how long an attempt may take until its code is interrupted, then its process replaced; `timedelta` or seconds",
        "`HARD_TIMEOUT`",
    ),
    "on_crash": (
        "`retry` (at least once), or `fail` (at most once): what becomes of the job when its worker died with it",
        "`retry`",
    ),
    "determinism": ("what happens when the code does not make its recorded calls", "`DETERMINISM`"),
    "id": ("a `UUID` from `new_job_id()`: the same enqueue repeated finds the first job", "a new one"),
    "concurrency": ("how many of these jobs run at once over the whole fleet (1 to 1000)", "no limit"),
    "concurrency_key": (
        "a `str`, or a function of the arguments: `concurrency` counts the jobs of one key",
        "one key for the definition",
    ),
    "tenant": ("a `str`, or a function of the arguments: tenants take turns in a queue that is to be fair", "nobody"),
    "sequence_key": (
        "a `str`, or a function of the arguments: jobs with one key run one at a time, in the order of their enqueue",
        "no order",
    ),
    "chunk": ("how many jobs one call of the function handles at most, 1 to 1000; of the decorator only", "one"),
    "chunk_timeout": (
        "how long a worker waits for a fuller chunk, `timedelta` or seconds, at most 5 minutes; of the decorator only",
        "not at all",
    ),
    "debounce": (
        "the job is due so long after the last enqueue of its key; until it begins, one job answers for all",
        "no debounce",
    ),
    "debounce_key": ("a `str`, or a function of the arguments", "one for the definition"),
    "debounce_max": ("how long a job can be put off, `timedelta` or seconds", "for ever"),
    "throttle": ("for so long after an enqueue its job answers for others of its key", "no throttle"),
    "throttle_key": ("a `str`, or a function of the arguments", "one for the definition"),
    "expires_at": ("a moment: unless a worker has begun the job by then, it is over", "never"),
    "expire_after": ("the same, so long after the enqueue, `timedelta` or seconds", "never"),
    "unique_key": ("of the live jobs of this key there is one; a `str`, or a function of the arguments", "not unique"),
    "unique_for": (
        "for so long after its enqueue a completed job answers, too, `timedelta` or seconds",
        "while it lives",
    ),
    "unique_until": ('`"finished"` or `"started"`', '`"finished"`'),
    "on_conflict": ('what a held key does: `"return"`, `"raise"` or `"replace"`', '`"return"`'),
}


def names() -> str:
    """Return a section for each group."""
    shown = {name for group in GROUPS.values() for name in group}
    others = [name for name in django_durable_jobs.__all__ if name not in shown]
    if strange := [name for name in others if not _is_error(getattr(django_durable_jobs, name))]:
        raise SystemExit(f"Put {', '.join(strange)} into a group: tests/docs/facts/api.py")
    parts = []
    for title, group in GROUPS.items():
        parts += [f"## {title}", *(_entry(name, getattr(django_durable_jobs, name)) for name in group)]
    return "\n\n".join([*parts, f"## Errors\n\n{listed(others)}: see [errors](errors.md)."])


def options() -> str:
    """Return the table of options of ``@durable_job`` and ``.using``."""
    if wrong := {field.name for field in fields(Options)} ^ OPTIONS.keys():
        raise SystemExit(f"Describe or drop the options {', '.join(sorted(wrong))}: tests/docs/facts/api.py")
    kinds = typing.get_type_hints(JobOptions) | typing.get_type_hints(EnqueueOptions)
    rows = [
        [code(name), _kind(kinds[name]), "yes" if name in DECORATOR_OPTIONS else "", meaning, default]
        for name, (meaning, default) in OPTIONS.items()
    ]
    return markdown_table(["option", "type", "on the decorator", "meaning", "if not given"], rows)


def _kind(hint: Any) -> str:
    return code(getattr(hint, "__name__", None) if isinstance(hint, type) else str(hint).replace("datetime.", ""))


def _is_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def _entry(name: str, value: Any) -> str:
    members: list[str] = []
    if isinstance(value, type):
        members = list(_members(value))
        made = value not in MADE_BY_US and not issubclass(value, enum.Enum)
        heads = [f"{name}{_signature(vars(value).get('__init__', value), skip=1)}"] if made else []
    elif inspect.isfunction(value):
        heads = _heads(name, value)
    else:  # `call` and `acall`: objects that are called
        heads = _heads(name, type(value).__call__, skip=1)
        members = [_member(f"{name}.using{_signature(type(value).using, skip=1)}", type(value).using)]
        value = type(value).__call__
    listing = ["\n".join(["```text", *heads, "```"])] if heads else []
    return "\n\n".join([f"### {code(name)}", *listing, prose(value), *(["\n".join(members)] if members else [])])


def _members(owner: type) -> Iterator[str]:
    if issubclass(owner, enum.Enum):
        yield f"Values: {listed(member.value for member in owner)}; see [statuses](statuses.md)."
        return
    if _is_error(owner):
        return
    for name, member in vars(owner).items():
        plain = member.__func__ if isinstance(member, classmethod) else member
        if name.startswith("_") or not plain.__doc__ or name not in MEMBERS.get(owner.__name__, {name}):
            continue
        if isinstance(plain, property):
            yield _member(f".{name}", plain)
        elif inspect.isfunction(plain):
            start = "await ." if inspect.iscoroutinefunction(plain) else "."
            start = f"{owner.__name__}." if isinstance(member, classmethod) else start
            yield _member(f"{start}{name}{_signature(plain, skip=1)}", plain)


def _member(head: str, thing: object) -> str:
    return f"- {code(head)}\n\n{textwrap.indent(prose(thing), '  ')}\n"


def _heads(name: str, function: Callable[..., Any], *, skip: int = 0) -> list[str]:
    return [f"{name}{_signature(one, skip=skip)}" for one in typing.get_overloads(function) or [function]]


def _signature(function: Callable[..., Any], *, skip: int = 0) -> str:
    """Write a signature as the source has it: annotations are texts there, the same with every Python."""
    signature = inspect.signature(function)
    empty = inspect.Signature.empty
    kept = [
        parameter.replace(
            annotation=empty if parameter.annotation is empty else _Bare(parameter.annotation),
            default=empty if parameter.default is empty else _Bare(_default(parameter.default)),
        )
        for parameter in list(signature.parameters.values())[skip:]
    ]
    text = str(signature.replace(parameters=kept, return_annotation=empty))
    result = signature.return_annotation
    return text if result in (empty, None, "None") else f"{text} -> {result}"


def _default(value: object) -> str:
    if isinstance(value, timedelta):
        return f"timedelta(seconds={value.total_seconds():g})"
    return repr(value)


class _Bare:
    """A text whose representation is itself: `str(signature)` would put quotes around it."""

    def __init__(self, text: object) -> None:
        self._text = str(text)

    def __repr__(self) -> str:
        return self._text
