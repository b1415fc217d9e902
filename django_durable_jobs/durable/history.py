"""Checking recorded histories against the code of today, in a project's CI: ``check_history``.

A document of ``export_history`` is read here, and what came of running the code against it (``rehearsal.py``) is put
into words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import msgspec

from .. import registry
from ..dialects.rows import Claimed
from ..errors import DurableJobsError, HistoryUnreadable, NonDeterminism, SerializationError
from ..operations.checkpoints import Stored
from ..operations.enqueue import with_stored_options
from ..operations.history import FORMAT, VERSION
from ..rendering import safe_str
from ..serialization import parse
from .context import is_parking
from .rehearsal import Rehearsal

SHOWN: Final = 5
LONGEST: Final = 300


class _Call(msgspec.Struct):
    key: str
    name: str
    kind: str
    result: Any = msgspec.UNSET
    error: Any = msgspec.UNSET


class _Job(msgspec.Struct):
    id: UUID
    definition: str
    payload: dict[str, Any]
    options: dict[str, Any] | None = None
    queue: str = "default"
    attempt: int = 1
    generation: int = 0


class _Document(msgspec.Struct):
    job: _Job
    calls: list[_Call]


@dataclass(frozen=True, slots=True)
class Replayed:
    """How far today's code came: of how many recorded calls it made how many, and why not all."""

    made: int
    recorded: int
    note: str = ""


def check_history(document: Mapping[str, Any] | str | bytes) -> None:
    """Check that today's code makes the calls of a recorded history, as ``export_history`` gives it, or of its text.

    The job's function runs, without a database: recorded calls give back what is recorded, and the code ends after
    the last of them, or at the first one that is not recorded; what it calls is not run. Code between the calls does
    run; where it asks a database it is followed no further. Raises ``NonDeterminism`` when it makes other calls or
    fails before it has made them, ``UnknownDefinition``, ``ArgumentError`` when the arguments do not fit any more,
    ``SerializationError`` for a value that cannot be read any more, and ``HistoryUnreadable`` for what is no history.
    """
    replay_history(document)


def replay_history(document: Mapping[str, Any] | str | bytes) -> Replayed:
    """Do what ``check_history`` does and say how far the code came."""
    job, recorded = _read(document)
    definition = registry.get(job.definition)
    options = with_stored_options(definition, job.options)
    args, kwargs = definition.arguments.load(job.payload)
    stage = Rehearsal(job, options, recorded)
    total = len(stage.left)
    if not total:
        return Replayed(0, 0)
    _judge(stage, stage.play(definition, args, kwargs))
    return Replayed(total - len(stage.left), total, _note(stage))


def _judge(stage: Rehearsal, error: BaseException | None) -> None:
    """Raise what is wrong, if anything is."""
    if stage.unreadable is not None:
        raise stage.unreadable
    if stage.history.broken is not None:
        raise stage.history.broken
    if error is None or is_parking(error):
        return
    if isinstance(error, DurableJobsError):
        raise error
    reason = f"{type(error).__name__}: {safe_str(error, LONGEST)}"
    raise NonDeterminism(
        f"The code of job {stage.id} ({stage.definition}) raised {reason} before it made the recorded calls "
        f"{_names(stage)}."
    ) from error


def _note(stage: Rehearsal) -> str:
    if not stage.left:
        return ""
    if stage.asked_database is not None:
        return f"not followed to {_names(stage)}: the code asks the database between its calls ({stage.asked_database})"
    return f"{_names(stage)} not made any more"


def _names(stage: Rehearsal) -> str:
    keys = sorted(stage.left, key=lambda key: [int(part) for part in key.split(".")])
    return ", ".join(keys[:SHOWN]) + (f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else "")


# Reading ----------------------------------------------------------------------------------------------------------


def _read(document: Mapping[str, Any] | str | bytes) -> tuple[Claimed, dict[str, Stored]]:
    given: Any = document
    try:
        if isinstance(document, str | bytes):
            given = parse(document if isinstance(document, str) else document.decode())
    except (SerializationError, UnicodeDecodeError) as error:
        raise HistoryUnreadable(f"This is no JSON: {safe_str(error, LONGEST)}") from error
    if not isinstance(given, Mapping) or given.get("format") != FORMAT:
        raise HistoryUnreadable(f"This is not the recorded history of a job: its format is not {FORMAT!r}.")
    if given.get("version") != VERSION:
        shown = safe_str(given.get("version"), 20)
        raise HistoryUnreadable(f"This history has the version {shown}; this release reads version {VERSION}.")
    try:
        read = msgspec.convert(dict(given), _Document)
        calls = {one.key: _stored(one) for one in read.calls}
    except (msgspec.ValidationError, RecursionError) as error:
        raise HistoryUnreadable(f"This history is damaged: {safe_str(error, LONGEST)}") from error
    if len(calls) < len(read.calls):
        raise HistoryUnreadable("This history is damaged: two of its calls have the same key.")
    return _claimed(read.job), calls


def _stored(call: _Call) -> Stored:
    if (call.result is msgspec.UNSET) is (call.error is msgspec.UNSET):
        raise msgspec.ValidationError(f"call {call.key} must have either a result or an error")
    if call.error is not msgspec.UNSET:
        return Stored(call.name, call.kind, None, _text(call.error))
    return Stored(call.name, call.kind, _text(call.result), None)


def _claimed(job: _Job) -> Claimed:
    known: dict[str, Any] = {
        "id": job.id,
        "token": 1,
        "queue": job.queue,
        "definition": job.definition,
        "payload": _text(job.payload),
        "attempt": max(job.attempt, 1),
        "max_attempts": max(job.attempt, 1),
        "generation": job.generation,
        "rank": 0,
        "options": None if job.options is None else _text(job.options),
    }
    return Claimed(**{**dict.fromkeys(Claimed._fields), **known})


def _text(node: Any) -> str:
    return msgspec.json.encode(node).decode()
