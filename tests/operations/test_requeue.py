"""Running a job again from its start (D9)."""

from __future__ import annotations

import asyncio

import pytest

from django_durable_jobs import arequeue, requeue, retry
from django_durable_jobs.errors import JobNotFound, TransitionRefused
from django_durable_jobs.ids import new_job_id
from django_durable_jobs.models import Attempt, Checkpoint
from django_durable_jobs.operations.checkpoints import load
from django_durable_jobs.states import TRANSITIONS, Status
from tests.factories import make_attempt, make_checkpoint, make_job, present

pytestmark = pytest.mark.django_db(transaction=True, available_apps=["django_durable_jobs", "tests"])


@pytest.mark.parametrize("status", sorted(TRANSITIONS["retry"].sources))
def test_nothing_that_was_recorded_is_used_again_and_the_attempts_stay(status: Status) -> None:
    job, other = make_job(status), make_job(status)
    for one in (job, other):
        make_attempt(one, 1)
        make_checkpoint(one, "1")
    requeue(job)
    retry(other)
    assert (present(job).status, present(job).generation) == ("pending", 1)
    assert not load(job.id, 1)
    assert load(other.id, present(other).generation)
    assert Attempt.objects.filter(job=job).count() == 1
    assert Checkpoint.objects.filter(job=job).count() == 1  # as history


@pytest.mark.parametrize("status", sorted(set(Status) - TRANSITIONS["retry"].sources))
def test_a_job_that_cannot_be_retried_cannot_be_requeued(status: Status) -> None:
    job = make_job(status)
    with pytest.raises(TransitionRefused, match="can be retried"):
        requeue(job)
    assert (present(job).status, present(job).generation) == (status, 0)
    with pytest.raises(JobNotFound):
        requeue(new_job_id())


def test_the_async_twin() -> None:
    job = make_job("failed")
    asyncio.run(arequeue(job))
    assert present(job).status == "pending"
