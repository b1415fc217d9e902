"""Jobs whose time has come, on every database: only due ones, in order, by the database's clock."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest

from django_durable_jobs.dialects import Dialect
from django_durable_jobs.dialects.now import DatabaseNow
from django_durable_jobs.models import Job
from django_durable_jobs.operations.claim import claim
from django_durable_jobs.operations.promote import BATCH, promote
from django_durable_jobs.states import CLOCKED, Status
from tests.factories import claim_of, make_job, make_worker, present
from tests.jobs import noop

pytestmark = pytest.mark.django_db

PAST = DatabaseNow() - timedelta(seconds=1)


@pytest.mark.parametrize("status", sorted(CLOCKED))
def test_a_job_that_is_due_becomes_pending(status: Status) -> None:
    job = make_job(status, run_at=PAST)
    assert promote().moved == 1
    row = present(job)
    assert (row.status, row.finished_at, row.attempt) == ("pending", None, job.attempt)


@pytest.mark.parametrize("status", sorted(CLOCKED))
def test_a_job_that_is_not_due_stays(status: Status) -> None:
    job = make_job(status)
    assert promote().moved == 0
    assert present(job).status == status


@pytest.mark.parametrize("status", sorted(set(Status) - CLOCKED))
def test_a_job_that_waits_for_no_time_stays_whatever_its_run_at_says(status: Status) -> None:
    job = make_job(status, run_at=PAST)
    before = Job.objects.values().get(id=job.id)
    assert promote().moved == 0
    assert Job.objects.values().get(id=job.id) == before


def test_the_earliest_are_moved_first_when_one_round_cannot_take_all() -> None:
    def stored(count: int, seconds: int) -> set[UUID]:
        due_at = DatabaseNow() - timedelta(seconds=seconds)
        jobs = [
            Job(definition="tests.jobs.noop", queue="default", status=Status.SCHEDULED.value, run_at=due_at)
            for _n in range(count)
        ]
        return {job.id for job in Job.objects.bulk_create(jobs)}

    later, earlier = stored(3, 10), stored(BATCH, 60)
    moved, due_in, _lines = promote()
    assert moved == BATCH
    assert due_in is not None
    assert due_in < timedelta(0)
    assert set(Job.objects.pending().values_list("id", flat=True)) == earlier
    assert promote().moved == 3
    assert not Job.objects.filter(id__in=later).exclude(status="pending").exists()


def test_promoted_jobs_are_claimed_by_priority_not_by_the_time_they_were_due() -> None:
    first = make_job("scheduled", rank=0, run_at=DatabaseNow() - timedelta(hours=2))
    urgent = make_job("scheduled", rank=-50, run_at=DatabaseNow() - timedelta(hours=1))
    promote()
    assert [job.id for job in claim(claim_of(make_worker(), 2))] == [urgent.id, first.id]


def test_i9_x10_the_clock_of_a_host_promotes_nothing_the_databases_does(
    dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = noop.using(delay=600).enqueue(1).job()
    monkeypatch.setattr("time.time", lambda: 4e9)
    assert promote().moved == 0
    dialect.clock_offset = timedelta(seconds=590)
    assert promote().moved == 0
    dialect.clock_offset = timedelta(seconds=610)
    assert promote().moved == 1
    assert present(job).status == "pending"


def test_x10_a_delay_counts_from_the_databases_time(dialect: Dialect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 4e9)
    dialect.clock_offset = timedelta(hours=-10)
    job = noop.using(delay=600).enqueue(1).job()
    assert job.run_at is not None
    assert job.run_at - dialect.now() == pytest.approx(timedelta(seconds=600), abs=timedelta(seconds=5))


def test_the_next_due_time_is_known_in_advance() -> None:
    assert promote().due_in is None
    make_job("scheduled", run_at=DatabaseNow() + timedelta(seconds=600))
    make_job("retrying", run_at=DatabaseNow() + timedelta(seconds=60))
    make_job("pending", run_at=PAST)
    assert promote().due_in == pytest.approx(timedelta(seconds=60), abs=timedelta(seconds=5))
    make_job("scheduled", run_at=PAST)
    moved, due_in, _lines = promote()
    assert moved == 1
    assert due_in == pytest.approx(timedelta(seconds=60), abs=timedelta(seconds=5))
