"""The database refuses rows that contradict themselves, whoever writes them (I3, I6)."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError, OperationalError, connection, transaction
from django.db.models import F

from django_durable_jobs.dialects.now import DatabaseNow
from django_durable_jobs.models import Job
from django_durable_jobs.states import DUE_LATER, FINAL, Status
from tests.factories import make_job, present

pytestmark = pytest.mark.django_db

NOT_RUNNING = sorted(set(Status) - {Status.RUNNING})


def refused(job: Job, **columns: Any) -> None:
    """Write columns past every operation; the database must refuse and leave the row as it was."""
    before = Job.objects.values().get(id=job.id)
    # MySQL's drivers report a violated CHECK as an operational error.
    with pytest.raises((IntegrityError, OperationalError)) as caught, transaction.atomic():
        Job.objects.filter(id=job.id).update(**columns)
    assert "ddj_job_" in str(caught.value)
    assert Job.objects.values().get(id=job.id) == before


@pytest.mark.parametrize("status", sorted(Status))
def test_i3_a_row_of_every_status_is_possible(status: Status) -> None:
    job = make_job(status)
    assert present(job).status == status
    job.full_clean(exclude=["parent", "origin", "worker"])


def test_i3_an_unknown_status_is_refused() -> None:
    refused(make_job(), status="sleeping")


@pytest.mark.parametrize("status", NOT_RUNNING)
def test_i6_a_lease_belongs_to_running_jobs_only(status: Status) -> None:
    job = make_job(status)
    refused(job, lease_expires_at=DatabaseNow())
    refused(job, worker_id=1)
    refused(job, worker_id=1, lease_expires_at=DatabaseNow())


@pytest.mark.parametrize(
    "missing", [{"worker": None}, {"lease_expires_at": None}, {"worker": None, "lease_expires_at": None}]
)
def test_i6_a_running_job_has_holder_and_lease(missing: dict[str, None]) -> None:
    refused(make_job("running"), **missing)


@pytest.mark.parametrize("status", sorted(FINAL))
def test_i3_a_job_whose_life_has_ended_has_a_time_of_end(status: Status) -> None:
    refused(make_job(status), finished_at=None)


@pytest.mark.parametrize("status", sorted(set(Status) - FINAL))
def test_i3_a_job_whose_life_goes_on_has_no_time_of_end(status: Status) -> None:
    refused(make_job(status), finished_at=DatabaseNow())


@pytest.mark.parametrize("status", sorted(DUE_LATER))
def test_i5_a_job_that_waits_for_a_time_has_one(status: Status) -> None:
    refused(make_job(status), run_at=None)


def test_a_paused_job_knows_where_it_goes_back_to() -> None:
    refused(make_job("paused"), paused_from=None)


@pytest.mark.parametrize("status", sorted(set(Status) - {Status.PAUSED}))
def test_only_a_paused_job_remembers_where_it_was(status: Status) -> None:
    refused(make_job(status), paused_from="pending")


def test_a_job_never_has_more_attempts_than_it_may() -> None:
    refused(make_job(), attempt=F("max_attempts") + 1)
    refused(make_job(), attempt=-1)


@pytest.mark.parametrize("status", sorted(Status))
def test_i3_no_status_becomes_another_by_its_name_alone_unless_the_columns_agree(status: Status) -> None:
    # What a careless `UPDATE … SET status` would do: either the row stays consistent, or it is refused.
    for other in sorted(Status):
        job = make_job(status)
        try:
            with transaction.atomic():
                Job.objects.filter(id=job.id).update(status=other.value)
        except (IntegrityError, OperationalError) as error:
            assert "ddj_job_" in str(error)  # noqa: PT017 - both endings are right, each has its own assertion
        row = present(job)
        assert (row.lease_expires_at is not None) == (row.worker_id is not None) == (row.status == Status.RUNNING)
        assert (row.finished_at is not None) == (row.status in FINAL)
        assert (row.paused_from is not None) == (row.status == Status.PAUSED)
        assert row.run_at is not None or row.status not in DUE_LATER


def test_the_constraints_are_in_the_database_and_not_in_the_model_alone() -> None:
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, Job._meta.db_table)
    checks = {name for name, constraint in found.items() if constraint["check"]}
    expected = {constraint.name for constraint in Job._meta.constraints}
    assert expected <= checks
