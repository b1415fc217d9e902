"""What is recorded of a job, as one JSON document that can be kept in a file: for ``check_history``, and for people."""

from __future__ import annotations

import json
from typing import Any, Final
from uuid import UUID

from ..errors import JobNotFound, SerializationError
from ..ids import Identified, id_of
from ..models import Checkpoint
from ..serialization import parse
from .database import alias, jobs

FORMAT: Final = "django-durable-jobs history"
VERSION: Final = 1


def export_history(job: Identified | UUID | str) -> dict[str, Any]:
    """Return the recorded calls of a job with its arguments and options, in the order in which they were stored.

    Values are in their stored form, which JSON can hold; ``history_text`` makes a text of it. They are what the job
    was given and what its calls returned, so treat the document like the database. Raises ``JobNotFound``, and
    ``SerializationError`` for a stored text that cannot be read.
    """
    job_id = id_of(job)
    row = jobs().filter(id=job_id).first()
    if row is None:
        raise JobNotFound(f"There is no job {job_id}.")
    rows = Checkpoint.objects.using(alias()).filter(job_id=row.id, generation=row.generation).order_by("id")
    return {
        "format": FORMAT,
        "version": VERSION,
        "job": {
            "id": str(row.id),
            "definition": row.definition,
            "payload": _node(row.payload, "arguments"),
            "options": None if row.options is None else _node(row.options, "options"),
            "queue": row.queue,
            "status": row.status,
            "attempt": row.attempt,
            "generation": row.generation,
            "result": None if row.result is None else _node(row.result, "result"),
        },
        "calls": [_call(one) for one in rows],
    }


def history_text(document: dict[str, Any]) -> str:
    """Return the document as text: ASCII, a line for each value, the same for the same document."""
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def _call(row: Checkpoint) -> dict[str, Any]:
    what, text = ("result", row.result) if row.result is not None else ("error", row.error)
    return {"key": row.key, "name": row.name, "kind": row.kind, what: _node(text or "", f"{what} of call {row.key}")}


def _node(text: str, what: str) -> Any:
    try:
        return parse(text)
    except SerializationError as error:
        raise SerializationError(f"The {what} of the job cannot be exported: {error}") from error
