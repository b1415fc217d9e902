"""Rows for tests, consistent in every column: ``make_job(status="completed")`` sets all that this status implies.

The database's own CHECK constraints are the judge: a row from here always passes them, also after a column was
overridden by the caller. Times are the database's. Nothing is enqueued, claimed or finished here; a test of those
goes through the operations.
"""

from __future__ import annotations

from datetime import timedelta
from itertools import count
from typing import Any, Final, TypeVar
from uuid import UUID

from django.db.models import Model

from django_durable_jobs.dialects.now import DatabaseNow
from django_durable_jobs.dialects.rows import Claim, Claimed, NewCheckpoint, Want
from django_durable_jobs.models import (
    Approval,
    Attempt,
    Checkpoint,
    EventWait,
    ExecutionReport,
    Job,
    Message,
    NamedValue,
    Worker,
)
from django_durable_jobs.operations.claim import claim
from django_durable_jobs.states import FINAL, Status

LEASE: Final = timedelta(seconds=30)
"""The lease that rows and claims made here have, unless a test says otherwise."""

Row = TypeVar("Row", bound=Model)

_numbers = count(1)


def make_worker(*, lease: timedelta = LEASE, **columns: Any) -> Worker:
    """Store the row of a live worker; a negative ``lease`` makes it a lost one."""
    number = next(_numbers)
    given = {
        "name": f"worker-{number}",
        "host": "test-host",
        "pid": 100_000 + number,
        "queues": {"default": 4},
        "lease_expires_at": DatabaseNow() + lease,
        "seen_at": DatabaseNow(),
        **columns,
    }
    return _fresh(Worker, Worker.objects.create(**given).pk)


def make_job(status: Status | str = Status.PENDING, **columns: Any) -> Job:
    """Store a job in this status, with every column that depends on the status set to match.

    ``columns`` overrides any of them. A running job gets a live worker of its own unless one is given.
    """
    status = Status(status)
    given: dict[str, Any] = {
        "definition": "tests.jobs.noop",
        "queue": "default",
        "payload": '{"args":[1]}',
        "max_attempts": 3,
        "created_at": DatabaseNow(),
        **_of_status(status),
    }
    if status is Status.RUNNING and not {"worker", "worker_id"} & set(columns):
        given["worker"] = make_worker()
    return _fresh(Job, Job.objects.create(**{**given, **columns, "status": status.value}).pk)


def make_abandoned_job(*, worker: Worker | None = None, ago: timedelta = timedelta(seconds=5), **columns: Any) -> Job:
    """Store a running job whose lease ended some time ago, held by a worker that was lost with it."""
    holder = worker or make_worker(lease=-ago)
    return make_job(Status.RUNNING, worker=holder, lease_expires_at=DatabaseNow() - ago, **columns)


def make_checkpoint(job: Job, key: str = "1", **columns: Any) -> Checkpoint:
    """Store a checkpoint of a job."""
    given = {
        "generation": job.generation,
        "name": "tests.jobs.add",
        "result": None if columns.get("error") else "1",
        **columns,
    }
    return Checkpoint.objects.create(job=job, key=key, **given)


def make_attempt(job: Job, number: int = 1, **columns: Any) -> Attempt:
    """Store an unsuccessful attempt of a job."""
    given = {"end": "failed", "error": "ValueError: no", "started_at": DatabaseNow(), "finished_at": DatabaseNow()}
    return _fresh(Attempt, Attempt.objects.create(job=job, number=number, **{**given, **columns}).pk)


def make_belongings(job: Job) -> list[Any]:
    """Store a row for a job in every table whose rows belong to one; a table that is forgotten here is noticed."""
    made: list[Model] = [
        make_checkpoint(job),
        make_attempt(job),
        Message.objects.create(job=job, name="go", payload="1"),
        EventWait.objects.create(job=job, key="2", name="go"),
        Approval.objects.create(job=job, key="3", title="Ship it"),
        NamedValue.objects.create(job=job, name="cursor", value="1"),
        ExecutionReport.objects.create(job=job, outcome="completed", tasks="[]"),
    ]
    tables = {relation.related_model for relation in Job._meta.related_objects} - {Job}
    assert {type(one) for one in made} == tables
    return made


def claim_of(
    worker: Worker | int, amount: int = 1, *queues: str, lease: timedelta = LEASE, rescued: bool = False
) -> Claim:
    """Describe a claim of ``amount`` jobs from each of these queues (default: "default")."""
    worker_id = worker if isinstance(worker, int) else worker.pk
    return Claim(worker_id, lease, [Want(queue, amount) for queue in queues or ("default",)], rescued=rescued)


def claim_one(worker: Worker | None = None, *, lease: timedelta = LEASE, **columns: Any) -> Claimed:
    """Store a pending job and claim it as a worker would; no other job may be pending in its queue."""
    job = make_job(Status.PENDING, **columns)
    rescued = job.rescues > 0
    (claimed,) = claim(claim_of(worker or make_worker(), 1, job.queue, lease=lease, rescued=rescued))
    assert claimed.id == job.id, "another job of this queue was pending"
    return claimed


def checkpoint_of(
    job: Claimed, key: str = "1", *, result: str | None = "1", error: str | None = None, token: int | None = None
) -> NewCheckpoint:
    """Describe a checkpoint that the holder of a claimed job is about to store."""
    held = job.token if token is None else token
    return NewCheckpoint(job.id, held, job.generation, key, "tests.jobs.add", "call", result, error)


def present(job: Job | Claimed | UUID) -> Job:
    """Read a job as it is now."""
    return _fresh(Job, job if isinstance(job, UUID) else job.id)


def _fresh(model: type[Row], key: object) -> Row:
    return model._default_manager.get(pk=key)


def _of_status(status: Status) -> dict[str, Any]:
    """Return the columns that a job of this status has, besides those that every job has."""
    begun: dict[str, Any] = {"token": 1, "attempt": 1, "started_at": DatabaseNow() - timedelta(seconds=2)}
    soon = DatabaseNow() + timedelta(hours=1)
    columns: dict[Status, dict[str, Any]] = {
        Status.SCHEDULED: {"run_at": soon},
        Status.PENDING: {},
        Status.RUNNING: {**begun, "lease_expires_at": DatabaseNow() + LEASE},
        Status.WAITING: {**begun, "waiting_for": "message:go"},
        Status.RETRYING: {**begun, "run_at": soon, "last_error": "ValueError: no"},
        Status.PAUSED: {"paused_from": Status.PENDING.value},
        Status.COMPLETED: begun,
        Status.FAILED: {**begun, "attempt": 3, "token": 3, "last_error": "ValueError: no"},
        Status.CANCELLED: {"cancel_requested_at": DatabaseNow()},
        Status.EXPIRED: {"expires_at": DatabaseNow() - timedelta(seconds=1)},
    }
    ended = {"finished_at": DatabaseNow()} if status in FINAL else {}
    return {**columns[status], **ended}
