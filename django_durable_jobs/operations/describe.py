"""Rows as plain values, for the API and the command.

Values of a job's code (arguments, results, errors) are for who may see them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..ids import parse_id
from ..models import Approval, Attempt, Job, JobBatch, Limit, Queue, Worker
from ..states import Status
from .batches import batches, members
from .database import alias, can_be_asked_for, jobs
from .limited_claim import QUEUE
from .queues import live_counts

ATTEMPTS: int = 100
"""How many unsuccessful attempts are shown with a job, the last ones."""


def job(row: Job, *, values: bool) -> dict[str, Any]:
    """Return the line of a list; the error only for who may see values."""
    found = {
        "id": str(row.id),
        "definition": row.definition,
        "queue": row.queue,
        "status": row.status,
        "priority": row.priority,
        "attempt": row.attempt,
        "max_attempts": row.max_attempts,
        "created_at": row.created_at,
        "run_at": row.run_at,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
        "worker": row.worker.name if row.worker is not None else None,
        "parent": None if row.parent_id is None else str(row.parent_id),
        "waiting_for": row.waiting_for,
        "paused_from": row.paused_from,
        "paused_by": row.paused_by,
        "pause_reason": row.pause_reason,
        "pausing": row.status == Status.RUNNING and row.pause_requested_at is not None,
        "cancelling": row.status == Status.RUNNING and row.cancel_requested_at is not None,
    }
    return {**found, "last_error": row.last_error} if values else found


def job_detail(row: Job, *, values: bool) -> dict[str, Any]:
    """Return a job with its unsuccessful attempts; what its code was given and said only for who may see it."""
    attempts = Attempt.objects.using(alias()).filter(job_id=row.id).order_by("-id")[:ATTEMPTS]
    found = {**job(row, values=values), "attempts": [attempt(one, values=values) for one in reversed(attempts)]}
    if values:
        found |= {"arguments": row.payload, "result": row.result, "progress": row.progress}
    return found


def attempt(row: Attempt, *, values: bool) -> dict[str, Any]:
    """Return an unsuccessful attempt."""
    found = {
        "number": row.number,
        "end": row.end,
        "worker": row.worker_name,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
    }
    return {**found, "error": row.error, "traceback": row.traceback} if values else found


def queues(rows: Iterable[Queue]) -> list[dict[str, Any]]:
    """Return queues with how many of their jobs are in each status; history is not counted."""
    found = list(rows)
    counts = live_counts(queue.name for queue in found)
    limits = {row.key: limit(row) for row in Limit.objects.using(alias())}
    return [
        {
            "name": queue.name,
            "paused": queue.paused_at is not None,
            "paused_at": queue.paused_at,
            "paused_by": queue.paused_by,
            "pause_mode": queue.pause_mode,
            "pause_reason": queue.pause_reason,
            "resume_at": queue.resume_at,
            "limits": limits.get(f"{QUEUE}{queue.name}"),
            "pending": counts[queue.name][Status.PENDING],
            "running": counts[queue.name][Status.RUNNING],
            "live": {status.value: number for status, number in counts[queue.name].items()},
        }
        for queue in found
    ]


def limit(row: Limit) -> dict[str, Any]:
    """Return what is limited, and who ordered it."""
    return {
        "concurrency": row.concurrency,
        "rate": row.rate,
        "per": None if row.rate is None else row.per,
        "burst": row.burst,
        "fair": row.fair,
        "ordered_at": row.ordered_at,
        "ordered_by": row.ordered_by,
        "reason": row.reason,
    }


def worker(row: Any) -> dict[str, Any]:
    """Return a worker; needs ``WorkerQuerySet.with_state``."""
    found: Worker = row
    return {
        "name": found.name,
        "state": row.state,
        "host": found.host,
        "pid": found.pid,
        "queues": found.queues,
        "started_at": found.started_at,
        "seen_at": found.seen_at,
        "stopped_at": found.stopped_at,
        "stop_requested_at": found.stop_requested_at,
        "paused": found.paused_at is not None,
        "paused_at": found.paused_at,
        "paused_by": found.paused_by,
        "pause_mode": found.pause_mode,
        "pause_reason": found.pause_reason,
    }


def approval(row: Approval, *, values: bool) -> dict[str, Any]:
    """Return a question and its answer; the details only for who may see values."""
    found = {
        "id": row.pk,
        "job": str(row.job_id),
        "title": row.title,
        "requested_at": row.requested_at,
        "expires_at": row.expires_at,
        "decision": row.decision,
        "decided_by": row.decided_by,
        "decided_at": row.decided_at,
        "comment": row.comment,
    }
    return {**found, "details": row.details} if values else found


def batch(row: JobBatch) -> dict[str, Any]:
    """Return a batch with its members by status, counted now."""
    state = "open" if row.closed_at is None else "closed" if row.finished_at is None else "ended"
    return {
        "id": str(row.id),
        "description": row.description,
        "state": state,
        "counts": members(row.id).counted_by("status"),
        "callbacks": dict(row.enqueued),
        "created_at": row.created_at,
        "closed_at": row.closed_at,
        "finished_at": row.finished_at,
    }


def find(target: str, key: str, *, values: bool) -> dict[str, Any] | None:
    """Return what is shown of one row; ``None`` when there is none."""
    if not can_be_asked_for(key):
        return None
    match target:
        case "job":
            job_id = parse_id(key)
            found = None if job_id is None else jobs().filter(id=job_id).select_related("worker").first()
            return None if found is None else job_detail(found, values=values)
        case "queue":
            return next(iter(queues(Queue.objects.using(alias()).filter(name=key))), None)
        case "worker":
            holder = Worker.objects.using(alias()).with_state().filter(name=key).order_by("-id").first()
            return None if holder is None else worker(holder)
        case "approval":
            number = int(key) if key.isascii() and key.isdigit() and len(key) < len(str(2**63)) else 0
            asked = Approval.objects.using(alias()).filter(pk=number).first()
            return None if asked is None else approval(asked, values=values)
    return _find_batch(key) if target == "jobbatch" else None


def _find_batch(key: str) -> dict[str, Any] | None:
    batch_id = parse_id(key)
    found = None if batch_id is None else batches().filter(id=batch_id).first()
    return None if found is None else batch(found)
