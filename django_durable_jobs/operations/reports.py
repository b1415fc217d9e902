"""Execution reports: what the tasks of a pipeline's run came to, put together from what the run has recorded.

The report is written when the run ends, by whoever ends it: the run itself under its token; an order that cancels a
run which does not run; the worker that cancels one, with its ending; whoever takes a run from its last lost worker.
All of it is in the database by then: the beginning of the run is the checkpoint ``1``, the n-th try of task k is a
checkpoint below ``k + 1``, and parallel tasks are children with attempts of their own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, cast
from uuid import UUID

from ..dialects.now import DatabaseNow
from ..models import Attempt, Checkpoint, ExecutionReport
from ..serialization import decode
from ..states import FINAL, Status
from .checkpoints import BEGINNING, BEGUN, fixed_by
from .database import alias, jobs

RUN: Final = "run"
TASK: Final = "task"
RUN_KEY: Final = "1"
"""The key of a run's beginning; task k has its tries below ``k + 1``."""
GATHER_KEY: Final = "2.0"
"""The key of what a parallel run fixes when it begins to gather its tasks."""
TRY_PARTS: Final = 2
"""Parts of the key of a try; its beginning has one more."""

ENDED_OUTSIDE: Final = ("failed_stale", "cancelled")
"""Outcomes that the run itself did not come to."""

RunOutcome = Literal["completed", "completed_with_errors", "failed", "failed_stale", "timeout", "cancelled"]


@dataclass(frozen=True, slots=True)
class TaskAttempt:
    """One try of a task, by the database's clock; one that did not come to its end has no ``finished_at``."""

    number: int
    started_at: datetime | None
    finished_at: datetime | None
    error: str | None


@dataclass(frozen=True, slots=True)
class TaskReport:
    """What became of one task: ``completed``, ``failed``, ``interrupted`` (it had begun) or ``not_started``."""

    name: str
    status: str
    attempts: tuple[TaskAttempt, ...]


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a run of a pipeline came to.

    ``outcome`` is ``completed``, ``completed_with_errors``, ``failed``, ``failed_stale`` (its worker was lost and no
    attempt is left), ``timeout`` or ``cancelled``.
    """

    job_id: UUID
    outcome: RunOutcome
    started_at: datetime | None
    finished_at: datetime
    tasks: tuple[TaskReport, ...]

    @property
    def failures(self) -> tuple[TaskReport, ...]:
        """The tasks that failed."""
        return tuple(task for task in self.tasks if task.status == "failed")


def write(job_id: UUID, generation: int, outcome: RunOutcome) -> RunReport | None:
    """Write and return the report of a run that ends now; nothing for a job that is no pipeline, or never began.

    In a transaction that has the job's row locked. A report that is there is replaced: the run was retried.
    """
    rows = Checkpoint.objects.using(alias()).filter(job_id=job_id, generation=generation)
    begun = rows.filter(key=RUN_KEY, kind=RUN).values_list("result", flat=True).first()
    if begun is None:
        return None
    run = cast("dict[str, Any]", decode(begun))
    found = rows.filter(kind__in=(TASK, BEGUN)).values_list("key", "kind", "result")
    recorded: dict[str, Any] = {
        key: fixed_by(text) if kind == BEGUN else decode(text)
        for key, kind, text in found
        if _is_try(key, kind) and text is not None
    }
    # In the words of the generation that began it, which another one may have taken over.
    gathered = rows.filter(key=GATHER_KEY, kind=BEGUN, name="gather").values_list("result", flat=True).first()
    children = {} if gathered is None else _children(job_id, fixed_by(gathered)["call"], run["children"])
    losses = _losses(job_id)
    tasks = [
        children.get(f"{run['pipeline']}.{name}") or _task(name, _tries(recorded, str(number + 1), losses))
        for number, name in enumerate(run["tasks"], 1)
    ]
    ExecutionReport.objects.using(alias()).update_or_create(
        job_id=job_id,
        defaults={
            "outcome": outcome,
            "tasks": json.dumps(tasks),
            "started_at": run["started"],
            "finished_at": DatabaseNow(),
        },
    )
    return _report(ExecutionReport.objects.using(alias()).get(job_id=job_id))


def write_cancelled(job_id: UUID) -> None:
    """Do the same for a run that its worker cancels; its code may not have run for that, or have ended before."""
    write(job_id, jobs().values_list("generation", flat=True).get(id=job_id), "cancelled")


class Lives(NamedTuple):
    """What has ended the lives of a run: attempts that failed, and an end from outside (an order, a lost worker)."""

    failures: int
    ended_at: datetime | None


def lives(job_id: UUID) -> Lives:
    """Return what has ended the run's lives so far; a worker that was lost with attempts left has ended none."""
    failures = Attempt.objects.using(alias()).filter(job_id=job_id).exclude(end=Attempt.LOST).count()
    ended = ExecutionReport.objects.using(alias()).filter(job_id=job_id, outcome__in=ENDED_OUTSIDE)
    return Lives(failures, ended.values_list("finished_at", flat=True).first())


def read(job_id: UUID) -> RunReport | None:
    """Return the report of a run that has ended, or ``None``."""
    ended = jobs().final().filter(id=job_id)
    row = ExecutionReport.objects.using(alias()).filter(job_id__in=ended.values("id")).first()
    return None if row is None else _report(row)


def _report(row: ExecutionReport) -> RunReport:
    tasks = tuple(
        TaskReport(task["name"], task["status"], tuple(_attempt(one) for one in task["attempts"]))
        for task in json.loads(row.tasks)
    )
    return RunReport(row.job_id, cast("RunOutcome", row.outcome), row.started_at, row.finished_at, tasks)


def _is_try(key: str, kind: str) -> bool:
    parts = key.split(".")
    return len(parts) == (TRY_PARTS if kind == TASK else TRY_PARTS + 1) and (kind == TASK or key.endswith(BEGINNING))


class _Loss(NamedTuple):
    """A worker that was lost with the run, which then went on elsewhere."""

    seen_at: datetime
    error: str
    again_at: datetime


def _losses(job_id: UUID) -> list[_Loss]:
    """Return the losses after which the run went on, in their order."""
    attempts = list(
        Attempt.objects.using(alias())
        .filter(job_id=job_id)
        .order_by("id")
        .values_list("started_at", "finished_at", "end", "error")
    )
    begun = [row[0] for row in attempts] + list(jobs().filter(id=job_id).values_list("started_at", flat=True))
    found = []
    for _started, seen_at, end, error in attempts:
        again_at = next((at for at in begun if at is not None and at >= seen_at), None)
        if end == Attempt.LOST and again_at is not None:
            found.append(_Loss(seen_at, error, again_at))
    return found


def _tries(recorded: Mapping[str, Any], path: str, losses: Sequence[_Loss]) -> list[dict[str, Any]]:
    """Return the tries of one task in their order; those that never ended have a beginning only.

    A try during which a worker was lost is made again by the next one, under the first one's beginning: here it is as
    many tries as were made.
    """
    keys = {key.removesuffix(BEGINNING) if key.count(".") == TRY_PARTS else key for key in recorded}
    mine = sorted((key for key in keys if key.partition(".")[0] == path), key=lambda key: int(key.partition(".")[2]))
    tries: list[dict[str, Any]] = []
    for key in mine:
        begun, ended = recorded.get(f"{key}{BEGINNING}"), recorded.get(key)
        finished, error = (None, None) if ended is None else (ended["finished"], ended["error"])
        for loss in losses:
            if begun is not None and begun <= loss.seen_at and (finished is None or loss.seen_at <= finished):
                tries.append(_tried(len(tries) + 1, begun, None, loss.error))
                begun = loss.again_at
        tries.append(_tried(len(tries) + 1, begun, finished, error))
    return tries


def _task(name: str, tries: list[dict[str, Any]]) -> dict[str, Any]:
    if not tries:
        status = "not_started"
    elif tries[-1]["finished_at"] is None:
        status = "interrupted"
    else:
        status = "completed" if tries[-1]["error"] is None else "failed"
    return {"name": name, "status": status, "attempts": tries}


def _children(job_id: UUID, call: str, names: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return the reports of tasks that are jobs of their own, by their definition."""
    rows = jobs().of_call(job_id, call).filter(definition__in=list(names))
    found = list(rows.values_list("id", "definition", "status", "started_at", "finished_at", "last_error"))
    attempts: dict[UUID, list[dict[str, Any]]] = {}
    failed = Attempt.objects.using(alias()).filter(job_id__in=[row[0] for row in found]).order_by("id")
    for child, started, finished, error in failed.values_list("job_id", "started_at", "finished_at", "error"):
        tries = attempts.setdefault(child, [])
        tries.append(_tried(len(tries) + 1, started, finished, error))
    return {row[1]: _child(names[row[1]], row, attempts.get(row[0], [])) for row in found}


def _child(name: str, row: tuple[Any, ...], tries: list[dict[str, Any]]) -> dict[str, Any]:
    _id, _definition, status, started, finished, error = row
    if status == Status.COMPLETED:
        return {
            "name": name,
            "status": "completed",
            "attempts": [*tries, _tried(len(tries) + 1, started, finished, None)],
        }
    if status == Status.FAILED:
        return {"name": name, "status": "failed", "attempts": tries or [_tried(1, started, finished, error)]}
    if started is None:
        return {"name": name, "status": "not_started", "attempts": []}
    ended = finished if Status(status) in FINAL else None
    return {
        "name": name,
        "status": "interrupted",
        "attempts": [*tries, _tried(len(tries) + 1, started, None, error if ended else None)],
    }


def _tried(number: int, started: datetime | None, finished: datetime | None, error: str | None) -> dict[str, Any]:
    return {"number": number, "started_at": _text(started), "finished_at": _text(finished), "error": error}


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _attempt(form: Mapping[str, Any]) -> TaskAttempt:
    return TaskAttempt(form["number"], _moment(form["started_at"]), _moment(form["finished_at"]), form["error"])


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
