"""Leases, on every database: renewing, and handing back what a worker does not know that it holds."""

from __future__ import annotations

from datetime import timedelta

import pytest

from django_durable_jobs.dialects import Dialect
from django_durable_jobs.operations.claim import claim
from django_durable_jobs.operations.finish import Ending, finish
from django_durable_jobs.operations.leases import Held, expire_leases_of, release_unknown, renew
from django_durable_jobs.operations.rescue import next_expiry, rescue
from django_durable_jobs.outcomes import Completed, Released
from tests.factories import claim_of, claim_one, make_abandoned_job, make_job, make_worker, present

pytestmark = pytest.mark.django_db

MINUTE = timedelta(minutes=1)


def test_renewing_extends_the_lease_from_now_by_the_databases_clock(dialect: Dialect) -> None:
    worker = make_worker()
    job = claim_one(worker, lease=timedelta(seconds=2))
    held = Held(job.id, job.token)
    assert renew(worker.pk, [held], MINUTE) == {held}
    until = present(job).lease_expires_at
    assert until is not None
    assert until - dialect.now() == pytest.approx(MINUTE, abs=timedelta(seconds=5))


def test_i8_a_lease_under_an_old_token_is_not_renewed() -> None:
    worker = make_worker()
    old = claim_one(worker)
    finish([Ending(old, Released())])
    (new,) = claim(claim_of(worker))
    before = present(new).lease_expires_at
    assert renew(worker.pk, [Held(old.id, old.token)], MINUTE) == set()
    assert present(new).lease_expires_at == before


def test_i8_the_lease_of_another_worker_is_not_renewed() -> None:
    job = claim_one()
    before = present(job).lease_expires_at
    assert renew(make_worker().pk, [Held(job.id, job.token)], MINUTE) == set()
    assert present(job).lease_expires_at == before


def test_i4_a_finished_job_gets_no_lease_from_a_late_heartbeat() -> None:
    worker = make_worker()
    job = claim_one(worker)
    finish([Ending(job, Completed("1"))])
    assert renew(worker.pk, [Held(job.id, job.token)], MINUTE) == set()
    assert present(job).lease_expires_at is None


def test_a_job_that_was_taken_back_is_not_renewed() -> None:
    worker = make_worker(lease=timedelta(seconds=-9))
    job = claim_one(worker, lease=timedelta(seconds=-5))
    rescue()
    assert renew(worker.pk, [Held(job.id, job.token)], MINUTE) == set()
    assert present(job).lease_expires_at is None


def test_a_lease_that_is_over_is_renewed_as_long_as_nobody_took_the_job_back() -> None:
    worker = make_worker()
    job = claim_one(worker, lease=timedelta(seconds=-5))
    assert renew(worker.pk, [Held(job.id, job.token)], MINUTE) == {Held(job.id, job.token)}
    assert rescue().returned == []


def test_one_heartbeat_renews_many_leases_and_tells_which_are_lost() -> None:
    worker = make_worker()
    jobs = [claim_one(worker) for _n in range(20)]
    finish([Ending(job, Released()) for job in jobs[:5]])
    held = [Held(job.id, job.token) for job in jobs]
    assert renew(worker.pk, held, MINUTE) == set(held[5:])


def test_no_lease_asks_nothing(django_assert_num_queries: object) -> None:
    with django_assert_num_queries(0):  # type: ignore[operator]
        assert renew(1, [], MINUTE) == set()


def test_jobs_that_a_worker_does_not_know_of_are_handed_back_with_their_attempt() -> None:
    worker = make_worker()
    known, strange, of_another = claim_one(worker), claim_one(worker), claim_one()
    assert release_unknown(worker.pk, [Held(known.id, known.token)]) == 1
    row = present(strange)
    assert (row.status, row.attempt, row.worker_id, row.lease_expires_at) == ("pending", 0, None, None)
    assert present(known).status == present(of_another).status == "running"


def test_a_job_that_is_known_under_an_old_token_is_strange() -> None:
    worker = make_worker()
    old = claim_one(worker)
    finish([Ending(old, Released())])
    (new,) = claim(claim_of(worker))
    assert release_unknown(worker.pk, [Held(old.id, old.token)]) == 1
    assert present(new).status == "pending"


def test_leases_of_a_worker_known_to_be_dead_are_over_at_once() -> None:
    dead, other = make_worker(), make_worker()
    mine, theirs = claim_one(dead), claim_one(other)
    assert expire_leases_of(dead.name) == 1
    assert rescue().returned == [mine.id]
    assert present(theirs).status == "running"


def test_the_next_expiry_is_that_of_the_lease_that_ends_first() -> None:
    assert next_expiry() is None
    claim_one(lease=timedelta(seconds=600))
    claim_one(lease=timedelta(seconds=60))
    make_job("completed")
    left = next_expiry()
    assert left == pytest.approx(timedelta(seconds=60), abs=timedelta(seconds=5))
    make_abandoned_job()
    left = next_expiry()
    assert left is not None
    assert left < timedelta(0)


def test_i9_a_moved_clock_of_the_database_ends_leases_and_no_host_clock_does(
    dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = claim_one(make_worker(), lease=timedelta(seconds=60))
    monkeypatch.setattr("time.time", lambda: 4e9)
    monkeypatch.setattr("time.monotonic", lambda: 4e9)
    assert rescue().returned == []
    dialect.clock_offset = timedelta(seconds=59)
    assert rescue().returned == []
    dialect.clock_offset = timedelta(seconds=61)
    assert rescue().returned == [job.id]
