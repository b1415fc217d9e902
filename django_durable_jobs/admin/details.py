"""What the page of a job shows below its fields: values, attempts and calls, each read in a bounded query."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from django.db.models import QuerySet
from django.http import QueryDict
from django.utils.translation import gettext_lazy as _

from ..errors import JobNotFound
from ..models import Attempt, Checkpoint, Job
from ..operations import reports
from ..operations.database import alias
from ..operations.explain import explain
from ..operations.sequences import blocked_by
from ..rendering import visible
from ..states import FINAL, Status
from .showing import PAGE_LIMIT, ROW_LIMIT, Shown, cut, in_list, instant_in_list, shown

ATTEMPTS: Final = 20
CALLS: Final = 100
TRIES: Final = 20
"""Of one task."""


@dataclass(frozen=True)
class Value:
    """One stored value of the job."""

    title: Any
    what: str
    shown: Shown


@dataclass(frozen=True)
class Page:
    """Some rows of a table, and where the others are."""

    rows: list[Any]
    number: int
    more: bool

    @property
    def needed(self) -> bool:
        """Whether there is anywhere to go."""
        return self.more or self.number > 1


def _why(job: Job) -> str:
    """Say why the job is not running; nothing of one that runs, has ended, or is gone meanwhile."""
    if job.status in FINAL or job.status == Status.RUNNING:
        return ""
    with suppress(JobNotFound):
        return explain(job).text
    return ""


def job_details(job: Job, address: QueryDict, *, values: bool) -> dict[str, Any]:
    """Return the template's names; without ``values`` no stored value is even read."""
    attempts = Attempt.objects.using(alias()).filter(job_id=job.id).order_by("-id")
    calls = Checkpoint.objects.using(alias()).filter(job_id=job.id).order_by("-generation", "id")
    if values:
        attempts = cut(attempts, PAGE_LIMIT, "error", "traceback")
        calls = cut(calls, ROW_LIMIT, "result", "error")
    else:
        attempts = attempts.defer("error", "traceback")
        calls = calls.defer("result", "error")
    return {
        "may_see_values": values,
        "values": _values(job) if values else [],
        "attempts": _page(attempts, address.get("attempts"), ATTEMPTS, lambda row: _attempt(row, values=values)),
        "calls": _page(calls, address.get("calls"), CALLS, lambda row: _call(row, values=values)),
        "generations": job.generation > 0,
        "why": _why(job),
        "waits_for": in_list(job.waiting_for) if job.waiting_for else "",
        "in_front": blocked_by(job) if job.waiting_for and job.sequence_key else None,
        # A key is made of arguments.
        "sequence": in_list(job.sequence_key) if values and job.sequence_key and not job.concurrency_key else "",
        "concurrency_key": in_list(job.concurrency_key) if values and job.concurrency_key else "",
        "report": _report(job, values=values),
    }


def stored_text(job_id: UUID, what: str, row: int) -> str | None:
    """Return one stored text of a job in full; ``None`` when there is none by this name."""
    own = {"arguments": "payload", "result": "result", "options": "options", "error": "last_error"}
    rows: QuerySet[Any]
    if what in own:
        rows, column = Job.objects.using(alias()).filter(id=job_id), own[what]
    elif what in {"traceback", "attempt-error"}:
        rows = Attempt.objects.using(alias()).filter(job_id=job_id, id=row)
        column = what.removeprefix("attempt-")
    elif what in {"call-result", "call-error"}:
        rows = Checkpoint.objects.using(alias()).filter(job_id=job_id, id=row)
        column = what.removeprefix("call-")
    else:
        return None
    text: str | None = rows.values_list(column, flat=True).first()
    return text


def _values(job: Job) -> list[Value]:
    titles = [
        (_("Error"), "error", "last_error"),
        (_("Arguments"), "arguments", "payload"),
        (_("Result"), "result", "result"),
        (_("Options of this job"), "options", "options"),
    ]
    found = [(title, what, shown(job, column)) for title, what, column in titles]
    said = job.progress.get("message") if isinstance(job.progress, dict) else None
    if isinstance(said, str) and said:
        found.insert(
            0, (_("Progress"), "progress", Shown(visible(said[:ROW_LIMIT], keep="\n\t"), len(said), cut=False))
        )
    return [Value(title, what, text) for title, what, text in found if text is not None]


def _report(job: Job, *, values: bool) -> dict[str, Any] | None:
    """Show what the tasks of a pipeline's run came to, one row per try; errors only with the other values."""
    report = reports.read(job.id) if Status(job.status) in FINAL else None
    if report is None:
        return None
    tasks = [
        {
            "name": in_list(task.name),
            "status": task.status.replace("_", " "),
            "tries": [
                {
                    "number": one.number,
                    "started": instant_in_list(one.started_at),
                    "finished": instant_in_list(one.finished_at),
                    "error": in_list(one.error) if values else "",
                }
                for one in task.attempts[:TRIES]
            ],
        }
        for task in report.tasks
    ]
    return {"outcome": report.outcome.replace("_", " "), "started": instant_in_list(report.started_at), "tasks": tasks}


def _page(rows: QuerySet[Any], asked: str | None, size: int, make: Any) -> Page:
    # Three digits at most: an offset is paid for row by row.
    number = int(asked) if asked and re.fullmatch(r"[1-9][0-9]{0,2}", asked) else 1
    first = (number - 1) * size
    # One more than shown says whether there are more, without counting.
    found = list(rows[first : first + size + 1])
    return Page([make(row) for row in found[:size]], number, more=len(found) > size)


def _attempt(row: Attempt, *, values: bool) -> dict[str, Any]:
    return {
        "id": row.id,
        "number": row.number,
        "end": row.get_end_display(),
        "worker": in_list(row.worker_name),
        "started": instant_in_list(row.started_at),
        "finished": instant_in_list(row.finished_at),
        "error": shown(row, "error") if values else None,
        "traceback": shown(row, "traceback") if values else None,
    }


def _call(row: Checkpoint, *, values: bool) -> dict[str, Any]:
    return {
        "id": row.id,
        "generation": row.generation,
        "key": in_list(row.key),
        "name": in_list(row.name),
        "kind": row.get_kind_display(),
        "created": instant_in_list(row.created_at),
        "result": shown(row, "result") if values else None,
        "error": shown(row, "error") if values else None,
    }
