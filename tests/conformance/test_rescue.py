"""Taking jobs back from lost workers, on every database: who pays with an attempt, and what is never touched."""

from __future__ import annotations

from datetime import timedelta

import pytest

from django_durable_jobs.dialects.now import DatabaseNow
from django_durable_jobs.models import Attempt, Job, Worker
from django_durable_jobs.operations.claim import claim
from django_durable_jobs.operations.finish import Ending, finish
from django_durable_jobs.operations.rescue import BATCH, STALE, rescue, rescued_waiting
from django_durable_jobs.operations.workers import beat
from django_durable_jobs.outcomes import Released
from django_durable_jobs.states import Status
from tests.factories import (
    claim_of,
    claim_one,
    make_abandoned_job,
    make_job,
    make_worker,
    present,
)

pytestmark = pytest.mark.django_db

OVER = timedelta(seconds=-5)


def lost_worker() -> Worker:
    return make_worker(lease=OVER)


def test_i11_a_job_that_was_alone_with_its_worker_pays_with_the_attempt() -> None:
    job = make_abandoned_job()
    result = rescue()
    assert (result.returned, result.failed) == ([job.id], [])
    row = present(job)
    assert (row.status, row.attempt, row.rescues, row.token) == ("pending", 1, 1, 1)
    assert (row.worker_id, row.lease_expires_at, row.finished_at) == (None, None, None)
    (attempt,) = row.attempts.all()
    assert job.worker is not None
    assert (attempt.number, attempt.end, attempt.worker_name) == (1, "lost", job.worker.name)
    assert job.worker.name in attempt.error
    assert row.last_error == attempt.error


def test_i11_jobs_in_company_of_a_lost_worker_get_their_attempt_back_once() -> None:
    worker = lost_worker()
    jobs = [make_abandoned_job(worker=worker) for _n in range(3)]
    assert sorted(rescue().returned) == [job.id for job in jobs]
    assert {(row.status, row.attempt, row.rescues) for row in map(present, jobs)} == {("pending", 0, 1)}
    assert not Attempt.objects.exists()


def test_i11_in_company_a_job_that_was_rescued_before_pays() -> None:
    worker = lost_worker()
    first, again = make_abandoned_job(worker=worker), make_abandoned_job(worker=worker, rescues=1)
    rescue()
    assert (present(first).attempt, present(again).attempt) == (0, 1)


def test_i11_company_counts_all_jobs_that_the_worker_held_also_when_they_are_rescued_in_several_rounds() -> None:
    worker = lost_worker()
    jobs = [make_abandoned_job(worker=worker) for _n in range(BATCH + 1)]
    assert len(rescue().returned) == BATCH
    (last,) = rescue().returned
    assert last == jobs[-1].id
    assert present(last).attempt == 0, "it was not alone when its worker was lost"


def test_a_worker_that_comes_back_counts_its_company_anew() -> None:
    worker = lost_worker()
    for _n in range(2):
        make_abandoned_job(worker=worker)
    rescue()
    assert beat(worker.pk, timedelta(seconds=-5))
    alone = make_abandoned_job(worker=worker)
    rescue()
    assert present(alone).attempt == 1


def test_i11_a_job_that_kills_its_worker_every_time_fails_after_its_attempts() -> None:
    job = make_job(max_attempts=3)
    seen: list[int] = []
    while present(job).status == Status.PENDING:
        assert len(seen) < 3, "it has no attempt left and goes on"
        rescued = present(job).rescues > 0
        (claimed,) = claim(claim_of(lost_worker(), 1, lease=OVER, rescued=rescued))
        seen.append(claimed.attempt)
        rescue()
    row = present(job)
    assert (seen, row.status, row.attempt) == ([1, 2, 3], "failed", 3)
    assert row.finished_at is not None
    assert row.last_error is not None
    assert "was lost" in row.last_error
    assert row.attempts.count() == 3


def test_a_rescued_job_that_a_clean_stop_hands_back_loses_nothing() -> None:
    make_abandoned_job()
    rescue()
    (claimed,) = claim(claim_of(make_worker(), rescued=True))
    finish([Ending(claimed, Released())])
    row = present(claimed)
    assert (row.status, row.attempt, row.rescues) == ("pending", 1, 1)


def test_a_lease_that_is_not_over_is_left_alone() -> None:
    job = claim_one(lost_worker(), lease=timedelta(seconds=5))
    assert rescue().returned == []
    assert present(job).status == "running"


@pytest.mark.parametrize("status", sorted(set(Status) - {Status.RUNNING}))
def test_i4_only_running_jobs_are_rescued(status: Status) -> None:
    job = make_job(status)
    before = Job.objects.values().get(id=job.id)
    assert (rescue().returned, rescue().failed) == ([], [])
    assert Job.objects.values().get(id=job.id) == before


def test_one_round_takes_a_limited_number() -> None:
    worker = lost_worker()
    for _n in range(BATCH + 3):
        make_abandoned_job(worker=worker)
    assert (len(rescue().returned), len(rescue().returned), len(rescue().returned)) == (BATCH, 3, 0)


def test_a_job_whose_workers_row_is_gone_is_rescued_too() -> None:
    worker = lost_worker()
    job = make_abandoned_job(worker=worker)
    Worker.objects.filter(id=worker.pk).delete()
    assert rescue().returned == [job.id]


def test_a_worker_is_told_of_rescued_jobs_in_its_own_queues_only() -> None:
    assert not rescued_waiting(["default", "mail"])
    make_job(queue="mail", rescues=1)
    make_job(queue="default")
    make_abandoned_job(queue="default", rescues=1)
    assert rescued_waiting(["default", "mail"])
    assert not rescued_waiting(["default"])


def test_a_job_that_must_not_run_twice_fails_with_its_worker() -> None:
    """E11: at most once, also where others would get their attempt back and where attempts are left."""
    worker = lost_worker()
    stale, usual = (make_abandoned_job(worker=worker, options=text) for text in ('{"on_crash": "fail"}', None))
    result = rescue()
    assert (result.returned, [one.id for one in result.failed]) == ([usual.id], [stale.id])
    row = present(stale)
    assert (row.status, row.attempt, row.worker_id, row.finished_at is None) == ("failed", 1, None, False)
    assert row.last_error == f"WorkerLost: worker {worker.name} was lost while it held this job. {STALE}"
    assert [attempt.end for attempt in row.attempts.all()] == ["lost"]
    assert (present(usual).status, present(usual).attempt) == ("pending", 0)


def test_a_job_that_must_not_run_twice_and_is_to_be_cancelled_is_cancelled() -> None:
    """Its code does not run again: the next worker undoes what is to be undone, and stores that it is cancelled."""
    job = make_abandoned_job(options='{"on_crash": "fail"}', cancel_requested_at=DatabaseNow())
    assert rescue().returned == [job.id]
    assert present(job).status == "pending"
