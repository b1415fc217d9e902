"""Deleting a job by order."""

from __future__ import annotations

from uuid import uuid4

import pytest
from django.db import transaction

from django_durable_jobs.dialects import dialect_of
from django_durable_jobs.errors import JobNotFound, TransitionRefused
from django_durable_jobs.models import Job
from django_durable_jobs.operations.claim import claim
from django_durable_jobs.operations.delete import delete
from django_durable_jobs.states import Status
from tests.factories import claim_of, make_belongings, make_job, make_worker, present
from tests.waiting import elsewhere


@pytest.mark.django_db
@pytest.mark.parametrize("status", list(Status))
def test_a_job_of_any_status_but_running_is_deleted_with_all_that_is_its_own(status: Status) -> None:
    """N88."""
    job, other = make_job(status), make_job()
    made = [row for each in (job, other) for row in make_belongings(each)]
    tables = {type(row) for row in made}
    if status is Status.RUNNING:
        with pytest.raises(TransitionRefused, match=f"Job {job.id} is running: it can be deleted when"):
            delete(job)
        assert present(job).status == "running"
        assert {table._default_manager.count() for table in tables} == {2}
        return
    delete(job.id if status is Status.FAILED else str(job.id))
    assert [found.id for found in Job.objects.all()] == [other.id]
    for table in tables:
        assert [found.job_id for found in table._default_manager.all()] == [other.id], table


@pytest.mark.django_db
@pytest.mark.parametrize("name", [uuid4(), "nonsense", "", "x" * 10_000])
def test_a_job_that_is_not_there_is_not_found(name: object) -> None:
    with pytest.raises(JobNotFound, match="There is no job") as caught:
        delete(name)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 200


@pytest.mark.django_db(transaction=True)
def test_the_status_that_counts_is_the_present_one() -> None:
    """Not the one that the operator saw."""
    seen, worker = make_job(), make_worker()
    assert len(claim(claim_of(worker))) == 1
    with pytest.raises(TransitionRefused):
        delete(seen)
    assert Job.objects.filter(id=seen.id, status="running").exists()


@pytest.mark.django_db(transaction=True)
def test_a_job_that_is_being_deleted_is_not_claimed() -> None:
    if not dialect_of("default").has_parallel_writers:
        pytest.skip("a claim beside an open deletion needs two connections that write at once: has_parallel_writers")
    job, worker = make_job(), make_worker()
    with transaction.atomic():
        delete(job)
        assert elsewhere(lambda: claim(claim_of(worker))) == []
    assert not Job.objects.exists()
