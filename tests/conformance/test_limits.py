"""Limits of queues and of the fleet, at the claim, on every database (I25, I26, X61, X62, N: bad limits)."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from django_durable_jobs import OptionError, enqueue_many, limit_queue, pause_queue, resume_queue, unlimit_queue
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.dialects.now import DatabaseNow
from django_durable_jobs.errors import NotLimited, QueueNotFound
from django_durable_jobs.models import Job, Limit, Queue, Worker
from django_durable_jobs.operations.claim import claim
from django_durable_jobs.operations.control import WHOLE_WORKER, gates_for
from django_durable_jobs.operations.finish import Ending, finish
from django_durable_jobs.operations.limited_claim import FLEET, Taken, claim_limited
from django_durable_jobs.operations.limits import limit_fleet, unlimit_fleet
from django_durable_jobs.operations.rescue import rescue
from django_durable_jobs.outcomes import Completed
from tests.factories import claim_of, make_job, make_worker, present
from tests.jobs import noop
from tests.waiting import together

pytestmark = pytest.mark.django_db(transaction=True, available_apps=["django_durable_jobs", "tests"])


@pytest.fixture(autouse=True)
def _queues() -> None:
    for name in ("mail", "video"):
        Queue.objects.create(name=name)


def fill(count: int, queue: str = "mail") -> None:
    """Enqueue this many jobs."""
    enqueue_many([noop.using(queue=queue).s(n) for n in range(count)])


def take(worker: Worker, amount: int, *queues: str) -> Taken:
    """Claim as a worker does that knows of limits."""
    return claim_limited(claim_of(worker, amount, *queues or ("mail",)))


# Concurrency ---------------------------------------------------------------------------------------------------------


def test_no_more_jobs_of_a_queue_run_at_once_than_its_limit() -> None:
    fill(5)
    limit_queue("mail", concurrency=2)
    worker, other = make_worker(), make_worker()
    first = take(worker, 5)
    assert (len(first.jobs), first.full) == (2, {"mail"})
    assert take(other, 5) == Taken([], {"mail"}, {}, set())
    finish([Ending(first.jobs[0], Completed(None))])
    assert len(take(other, 5).jobs) == 1
    assert Job.objects.running().count() == 2


def test_a_claim_that_does_not_know_of_the_limit_takes_nothing() -> None:
    fill(3)
    fill(1, "video")
    limit_queue("mail", concurrency=1)
    assert [job.queue for job in claim(claim_of(make_worker(), 5, "mail", "video"))] == ["video"]
    unlimit_queue("mail")
    assert len(claim(claim_of(make_worker(), 5, "mail"))) == 3


def test_a_claim_that_believes_in_a_limit_that_is_gone_takes_what_there_is() -> None:
    fill(3)
    taken = take(make_worker(), 5)
    assert len(taken.jobs) == 3
    assert taken == Taken(taken.jobs, set(), {}, set())


def test_a_full_queue_holds_up_no_other_one() -> None:
    fill(3)
    fill(3, "video")
    limit_queue("mail", concurrency=1)
    limit_queue("video", concurrency=2)
    taken = take(make_worker(), 5, "mail", "video")
    assert sorted(job.queue for job in taken.jobs) == ["mail", "video", "video"]
    assert taken.full == {"mail", "video"}


def test_i25_three_claimers_at_once_never_exceed_a_concurrency(dialect: Dialect) -> None:
    fill(60)
    limit_queue("mail", concurrency=4)
    running, highest, guard = 0, 0, threading.Lock()

    def work() -> int:
        nonlocal running, highest
        worker, done = make_worker(), 0
        while done < 15:
            jobs = take(worker, 3).jobs
            with guard:
                running += len(jobs)
                highest = max(highest, running)
            with guard:
                running -= len(jobs)
            done += len(finish([Ending(job, Completed(None)) for job in jobs])[0])
            if not Job.objects.pending().exists():
                break
        return done

    together(work, work, work)
    assert highest <= 4


def test_x62_places_of_a_dead_worker_come_back_with_its_lease(dialect: Dialect) -> None:
    fill(4)
    limit_queue("mail", concurrency=2)
    dead, alive = make_worker(), make_worker()
    assert len(take(dead, 5).jobs) == 2
    assert take(alive, 5).jobs == []
    dialect.clock_offset += timedelta(hours=1)
    assert len(rescue().returned) == 2
    assert len(take(alive, 5).jobs) == 2


def test_x62_a_zombie_frees_no_place(dialect: Dialect) -> None:
    fill(4)
    limit_queue("mail", concurrency=2)
    dead, alive = make_worker(), make_worker()
    zombies = take(dead, 5).jobs
    dialect.clock_offset += timedelta(hours=1)
    rescue()
    assert len(take(alive, 5).jobs) == 2
    stored, _claimed = finish([Ending(job, Completed(None)) for job in zombies])
    assert stored == set()
    assert take(alive, 5).jobs == []
    assert Job.objects.running().count() == 2


def test_unlimited_queues_make_no_query_about_limits() -> None:
    fill(4)
    worker = make_worker()
    with CaptureQueriesContext(connection) as queries:
        finish(
            [Ending(job, Completed(None)) for job in claim(claim_of(worker, 2, "mail"))], claim_of(worker, 2, "mail")
        )
    assert Job.objects.running().count() == 2
    assert not [query["sql"] for query in queries if Limit._meta.db_table in query["sql"]]


# Rates ---------------------------------------------------------------------------------------------------------------


def test_no_more_jobs_begin_in_a_window_than_the_rate(dialect: Dialect) -> None:
    fill(12)
    limit_queue("mail", rate=5, per=60)
    worker = make_worker()
    first = take(worker, 8)
    assert len(first.jobs) == 5
    assert 0 < first.later["mail"] <= 60.1
    finish([Ending(job, Completed(None)) for job in first.jobs])
    assert take(worker, 8).jobs == []
    dialect.clock_offset += timedelta(seconds=30)
    assert take(worker, 8).jobs == []
    dialect.clock_offset += timedelta(seconds=31)
    assert len(take(worker, 8).jobs) == 5


def test_x61_several_workers_never_exceed_a_rate_by_the_databases_clock(dialect: Dialect) -> None:
    fill(40)
    limit_queue("mail", rate=5, per=1)

    def work() -> None:
        worker = make_worker()
        for _look in range(12):
            take(worker, 3)

    for _step in range(4):
        together(work, work, work, work)
        dialect.clock_offset += timedelta(seconds=0.3)
    begun = sorted(row[0] for row in Job.objects.running().values_list("started_at") if row[0] is not None)
    assert len(begun) >= 5
    assert all(later - earlier >= timedelta(seconds=1) for earlier, later in zip(begun, begun[5:], strict=False))


def test_a_burst_lets_fewer_begin_at_one_moment(dialect: Dialect) -> None:
    fill(10)
    limit_queue("mail", rate=60, per=timedelta(minutes=1), burst=2)
    worker = make_worker()
    assert len(take(worker, 8).jobs) == 2
    dialect.clock_offset += timedelta(seconds=1)
    assert len(take(worker, 8).jobs) == 1


def test_a_rate_that_is_ordered_again_does_not_begin_its_window_anew() -> None:
    fill(10)
    worker = make_worker()
    limit_queue("mail", rate=3, per=60)
    assert len(take(worker, 8).jobs) == 3
    limit_queue("mail", rate=4, per=60)
    assert len(take(worker, 8).jobs) == 1


# The fleet -----------------------------------------------------------------------------------------------------------


def test_e12_no_more_jobs_run_at_once_over_the_fleet() -> None:
    fill(5)
    fill(5, "video")
    make_job("running", queue="elsewhere", worker=make_worker())
    workers = [make_worker(), make_worker()]
    limit_fleet(concurrency=4)
    assert claim(claim_of(workers[0], 5, "mail")) == []
    assert gates_for(workers[0].pk).limited.keys() == {WHOLE_WORKER}
    assert sum(len(take(worker, 5, "mail", "video").jobs) for worker in workers) == 3
    unlimit_fleet()
    assert len(claim(claim_of(workers[0], 5, "mail", "video"))) == 7
    with pytest.raises(NotLimited, match="fleet is not limited"):
        unlimit_fleet()


def test_a_worker_that_missed_an_order_to_the_fleet_makes_up_for_it() -> None:
    fill(3)
    worker = make_worker()
    Limit.objects.create(key=FLEET, concurrency=1, ordered_at=DatabaseNow())
    gates_for(worker.pk)
    assert claim(claim_of(worker, 5, "mail")) == []
    Limit.objects.all().delete()
    gates_for(worker.pk)
    assert len(claim(claim_of(worker, 5, "mail"))) == 3


# Orders --------------------------------------------------------------------------------------------------------------


def test_a_limit_is_stored_with_who_and_why_replaced_and_removed() -> None:
    limit_queue("mail", concurrency=3, rate=10, per=60, burst=5, by="ada", reason="their server is slow")
    row = Limit.objects.get(key="queue mail")
    assert (row.concurrency, row.rate, row.per, row.burst) == (3, 10, 60.0, 5)
    assert (row.ordered_by, row.reason) == ("ada", "their server is slow")
    limit_queue("mail", concurrency=1)
    row.refresh_from_db()
    assert (row.concurrency, row.rate, row.burst, row.ordered_by) == (1, None, None, "")
    unlimit_queue("mail")
    assert not Limit.objects.exists()
    assert not Queue.objects.filter(limited=True).exists()
    with pytest.raises(NotLimited, match="'mail' is not limited"):
        unlimit_queue("mail")


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({}, "needs a concurrency, a rate, or both"),
        ({"concurrency": 0}, "1 to 100000, not 0. To let none run, pause"),
        ({"concurrency": -1}, "1 to 100000"),
        ({"concurrency": True}, "1 to 100000"),
        ({"concurrency": 1.5}, "1 to 100000"),
        ({"concurrency": float("nan")}, "1 to 100000"),
        ({"concurrency": "3"}, "1 to 100000"),
        ({"rate": 0}, "rate must be a whole number from 1"),
        ({"rate": 2_000_000}, "rate must be a whole number from 1"),
        ({"rate": 5, "per": 0}, "0.1 seconds to 30 days"),
        ({"rate": 5, "per": -1}, "0.1 seconds to 30 days"),
        ({"rate": 5, "per": float("nan")}, "0.1 seconds to 30 days"),
        ({"rate": 5, "per": float("inf")}, "0.1 seconds to 30 days"),
        ({"rate": 5, "per": True}, "0.1 seconds to 30 days"),
        ({"rate": 5, "per": timedelta(days=31)}, "0.1 seconds to 30 days"),
        ({"rate": 5, "burst": 6}, "burst must be a whole number from 1 to 5"),
        ({"concurrency": 5, "burst": 2}, "together with rate only"),
        ({"concurrency": 5, "per": 2}, "together with rate only"),
        ({"concurrency": 5, "by": "x" * 201}, "by must be a text"),
        ({"concurrency": 5, "reason": None}, "reason must be a text"),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(map(str, value)) or "nothing",
)
def test_a_bad_limit_is_refused_and_nothing_stored(bad: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        limit_queue("mail", **bad)
    with pytest.raises(OptionError, match=said):
        limit_fleet(**bad)
    assert not Limit.objects.exists()
    assert not Queue.objects.filter(limited=True).exists()


def test_an_unknown_queue_is_refused() -> None:
    with pytest.raises(QueueNotFound, match=r"Known queues: .*mail"):
        limit_queue("nothing", concurrency=1)
    with pytest.raises(QueueNotFound):
        unlimit_queue("nothing")
    assert not Limit.objects.exists()


def test_a_limited_queue_can_be_paused() -> None:
    fill(3)
    limit_queue("mail", concurrency=2)
    pause_queue("mail")
    assert take(make_worker(), 5).jobs == []
    resume_queue("mail")
    assert len(take(make_worker(), 5).jobs) == 2


def test_an_order_waits_for_a_claim_that_is_on_its_way(dialect: Dialect) -> None:
    if not dialect.has_parallel_writers:
        pytest.skip("has_parallel_writers: one writer at a time, whoever it is")
    job = make_job(queue="mail")
    worker = make_worker()
    claimed, ordered = threading.Event(), threading.Event()
    seen: list[str] = []

    def work() -> None:
        with transaction.atomic():
            assert len(claim(claim_of(worker, 1, "mail"))) == 1
            claimed.set()
            assert not ordered.wait(0.2)
            seen.append("claim")

    def order() -> None:
        assert claimed.wait(10)
        limit_queue("mail", concurrency=1)
        seen.append("limit")
        ordered.set()

    together(work, order)
    assert seen == ["claim", "limit"]
    assert present(job).status == "running"


def test_a_claim_does_not_wait_for_an_order_that_is_not_committed(dialect: Dialect) -> None:
    if not dialect.has_parallel_writers:
        pytest.skip("has_parallel_writers: one writer at a time, whoever it is")
    fill(2)
    fill(2, "video")
    limit_queue("mail", concurrency=1)
    worker = make_worker()
    ordered, claimed = threading.Event(), threading.Event()

    def order() -> None:
        with transaction.atomic():
            limit_queue("mail", concurrency=2)
            ordered.set()
            assert claimed.wait(10), "the claim waits for the order"

    def work() -> Taken:
        assert ordered.wait(10)
        found = take(worker, 5, "mail", "video")
        claimed.set()
        return found

    _none, found = together(order, work)
    assert found is not None
    assert found.in_hand == {"mail"}
    assert [job.queue for job in found.jobs] == ["video", "video"]
