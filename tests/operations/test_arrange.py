"""Moving a job to another queue, and giving it another priority (D9)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from django_durable_jobs import amove_job, change_priority, move_job
from django_durable_jobs.errors import JobNotFound, OptionError, QueueNotFound, TransitionRefused
from django_durable_jobs.ids import new_job_id
from django_durable_jobs.models import Job, Queue
from django_durable_jobs.operations.arrange import MOVABLE
from django_durable_jobs.operations.claim import claim
from django_durable_jobs.states import Status
from tests.factories import claim_of, make_job, make_worker, present

pytestmark = pytest.mark.django_db(transaction=True, available_apps=["django_durable_jobs", "tests"])


@pytest.fixture(autouse=True)
def _queue() -> None:
    Queue.objects.create(name="mail")


def row(job: Job) -> dict[str, Any]:
    return dict(Job.objects.values().get(id=job.id))


@pytest.mark.parametrize("status", list(Status))
def test_a_job_is_moved_unless_it_runs_or_has_ended(status: Status) -> None:
    job = make_job(status)
    before = row(job)
    if status in MOVABLE:
        move_job(job, "mail")
        change_priority(job, "critical")
        assert row(job) == {**before, "queue": "mail", "rank": -100}
        return
    with pytest.raises(TransitionRefused, match=f"is {status}: only a job that is paused, pending"):
        move_job(job, "mail")
    with pytest.raises(TransitionRefused, match="can be given another priority"):
        change_priority(job, 5)
    assert row(job) == before


def test_a_moved_job_is_claimed_from_its_new_queue_by_its_new_priority() -> None:
    first, second = (make_job(queue="mail") for _ in range(2))
    moved = make_job(queue="default")
    move_job(moved, "mail")
    change_priority(second, 50)
    worker = make_worker()
    assert claim(claim_of(worker, 5, "default")) == []
    assert [job.id for job in claim(claim_of(worker, 5, "mail"))] == [second.id, first.id, moved.id]


@pytest.mark.parametrize("queue", ["nothing", "", None, 3, "Mail"])
def test_an_unknown_queue_is_refused(queue: Any) -> None:
    job = make_job()
    with pytest.raises(QueueNotFound, match="Known queues"):
        move_job(job, queue)
    assert present(job).queue == "default"


@pytest.mark.parametrize("priority", [101, -101, 1.5, True, None, "urgent", "5"])
def test_what_is_no_priority_is_refused(priority: Any) -> None:
    job = make_job()
    with pytest.raises(OptionError, match="priority must be"):
        change_priority(job, priority)
    assert present(job).rank == 0


def test_an_unknown_job_is_refused() -> None:
    for job in ("x", new_job_id()):
        with pytest.raises(JobNotFound):
            move_job(job, "mail")
        with pytest.raises(JobNotFound):
            change_priority(job, 1)


def test_the_async_twins() -> None:
    job = make_job()
    asyncio.run(amove_job(job, "mail"))
    assert present(job).queue == "mail"
