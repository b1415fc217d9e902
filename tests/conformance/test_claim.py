"""Claiming, on every database: order, numbers, several queues, and the two halves of a queue."""

from __future__ import annotations

from datetime import timedelta

import pytest

from django_durable_jobs.dialects import Dialect
from django_durable_jobs.models import Job
from django_durable_jobs.operations.claim import claim
from django_durable_jobs.operations.finish import Ending, finish
from django_durable_jobs.outcomes import Released
from django_durable_jobs.states import Status
from tests.factories import claim_of, make_job, make_worker, present

pytestmark = pytest.mark.django_db


def test_jobs_are_claimed_by_priority_then_by_creation() -> None:
    low, first, urgent, second = (make_job(rank=rank) for rank in (50, 0, -100, 0))
    claimed = claim(claim_of(make_worker(), 4))
    assert [job.id for job in claimed] == [urgent.id, first.id, second.id, low.id]


def test_jobs_claimed_one_by_one_come_in_the_same_order() -> None:
    jobs = [make_job(rank=rank) for rank in (1, 0, -1, 0, 1)]
    expected = [job.id for job in sorted(jobs, key=lambda job: (job.rank, job.id))]
    worker = make_worker()
    assert [claim(claim_of(worker))[0].id for _job in jobs] == expected


@pytest.mark.parametrize("wanted", [1, 3, 7])
def test_never_more_jobs_are_claimed_than_wanted(wanted: int) -> None:
    for _n in range(10):
        make_job()
    assert len(claim(claim_of(make_worker(), wanted))) == wanted
    assert Job.objects.running().count() == wanted


def test_fewer_jobs_than_wanted_are_all_claimed() -> None:
    jobs = {make_job().id for _n in range(3)}
    assert {job.id for job in claim(claim_of(make_worker(), 50))} == jobs
    assert claim(claim_of(make_worker(), 50)) == []


def test_one_claim_takes_from_several_queues_each_up_to_its_own_number() -> None:
    for queue in ("mail", "video", "other"):
        for _n in range(4):
            make_job(queue=queue)
    worker = make_worker()
    order = claim_of(worker, 2, "mail")
    claimed = claim(order._replace(wants=[*order.wants, *claim_of(worker, 3, "video").wants]))
    assert sorted(job.queue for job in claimed) == ["mail", "mail", "video", "video", "video"]
    assert not Job.objects.running().filter(queue="other").exists()


def test_a_queue_name_is_compared_exactly() -> None:
    make_job(queue="Mail")
    make_job(queue="mail2")
    assert claim(claim_of(make_worker(), 5, "mail")) == []


@pytest.mark.parametrize("status", sorted(set(Status) - {Status.PENDING}))
def test_only_pending_jobs_are_claimed(status: Status) -> None:
    job = make_job(status)
    assert claim(claim_of(make_worker(), 5)) == []
    assert present(job).status == status


def test_rescued_jobs_are_claimed_by_themselves_only() -> None:
    lost, usual = make_job(rescues=1), make_job()
    worker = make_worker()
    assert [job.id for job in claim(claim_of(worker, 5))] == [usual.id]
    assert [job.id for job in claim(claim_of(worker, 5, rescued=True))] == [lost.id]


def test_a_claim_sets_holder_lease_start_and_attempt_by_the_databases_clock(dialect: Dialect) -> None:
    job, worker = make_job(), make_worker()
    before = dialect.now()
    (claimed,) = claim(claim_of(worker, lease=timedelta(seconds=60)))
    after = dialect.now()
    row = present(job)
    assert (row.status, row.worker_id, row.attempt, row.token) == ("running", worker.pk, 1, 1)
    assert (claimed.attempt, claimed.token) == (1, 1)
    assert row.started_at is not None
    assert row.lease_expires_at is not None
    tick = timedelta(milliseconds=1)  # SQLite tells time in milliseconds
    assert before - tick <= row.started_at <= after + tick
    assert row.lease_expires_at - row.started_at == pytest.approx(timedelta(seconds=60), abs=tick)


def test_i7_the_token_grows_with_every_claim_and_is_never_reset() -> None:
    job, worker = make_job(), make_worker()
    tokens = []
    for _n in range(5):
        (claimed,) = claim(claim_of(worker))
        tokens.append(claimed.token)
        assert finish([Ending(claimed, Released())])[0] == {job.id}
        assert present(job).token == claimed.token
    assert tokens == [1, 2, 3, 4, 5]


def test_a_claimed_job_is_handed_over_as_it_is_stored() -> None:
    job = make_job(queue="mail", rank=7, payload='{"args":["ü\\u2028"]}', options='{"call_retries": 1}', generation=2)
    (claimed,) = claim(claim_of(make_worker(), 1, "mail"))
    row = present(job)
    assert {name: getattr(row, name) for name in claimed._fields} == claimed._asdict()


def test_a_claim_beyond_the_last_attempt_is_counted_and_allowed() -> None:
    # An operator's retry or a rescue has decided that the job runs again; the constraint must not stop the claim.
    job = make_job(attempt=3, max_attempts=3)
    (claimed,) = claim(claim_of(make_worker()))
    assert (claimed.attempt, claimed.max_attempts) == (4, 4)
    row = present(job)
    assert (row.attempt, row.max_attempts) == (4, 4)


def test_a_claim_that_wants_nothing_asks_nothing(django_assert_num_queries: object) -> None:
    make_job()
    order = claim_of(make_worker())
    with django_assert_num_queries(0):  # type: ignore[operator]
        assert claim(order._replace(wants=[])) == []
