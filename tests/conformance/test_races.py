"""Real threads on real connections against one row or one queue, on every database (X8, X9, X21, X23)."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from uuid import UUID

import pytest
from django.db import connection, transaction

from django_durable_jobs import faults
from django_durable_jobs.dialects import dialect_of
from django_durable_jobs.dialects.now import DatabaseNow
from django_durable_jobs.dialects.rows import Claimed
from django_durable_jobs.models import Checkpoint, Job
from django_durable_jobs.operations.checkpoints import save
from django_durable_jobs.operations.claim import claim
from django_durable_jobs.operations.finish import Ending, finish
from django_durable_jobs.operations.leases import Held, renew
from django_durable_jobs.operations.rescue import Rescued, rescue
from django_durable_jobs.outcomes import Completed, Released
from tests.factories import checkpoint_of, claim_of, claim_one, make_worker, present
from tests.jobs import noop
from tests.waiting import eventually, together

pytestmark = pytest.mark.django_db(transaction=True)

OVER = timedelta(seconds=-1)
LEASE = timedelta(seconds=30)


def store(count: int) -> None:
    noop.enqueue_many([(n,) for n in range(count)])


def claim_until_empty(worker_id: int, batch: int, *, then_complete: bool = False) -> list[Claimed]:
    """Claim, `batch` at a time, until the queue is empty; return all that was claimed."""
    mine: list[Claimed] = []
    ended: list[Claimed] = []
    while True:
        endings = [Ending(job, Completed("1")) for job in ended] if then_complete else []
        stored, got = finish(endings, claim_of(worker_id, batch))
        assert len(got) <= batch, "more rows than wanted"
        assert len(stored) == len(endings)
        mine += got
        ended = got
        if not got:
            return mine


@pytest.mark.parametrize("batch", [1, 7])
def test_x21_each_of_500_jobs_goes_to_exactly_one_of_three_workers(batch: int) -> None:
    store(500)
    workers = [make_worker().pk for _n in range(3)]
    claims = together(*[partial(claim_until_empty, worker, batch) for worker in workers])
    counted = Counter(job.id for claimed in claims for job in claimed)
    assert len(counted) == 500
    assert set(counted.values()) == {1}
    assert set(Job.objects.values_list("token", "attempt", "status")) == {(1, 1, "running")}
    for worker, claimed in zip(workers, claims, strict=True):
        assert Job.objects.held_by(worker).count() == len(claimed)


def test_x21_workers_that_complete_and_claim_in_one_step_share_the_jobs_too() -> None:
    store(500)
    claims = together(*[partial(claim_until_empty, make_worker().pk, 5, then_complete=True) for _n in range(3)])
    counted = Counter(job.id for claimed in claims for job in claimed)
    assert (len(counted), set(counted.values())) == (500, {1})
    assert set(Job.objects.values_list("status", "attempt")) == {("completed", 1)}


def test_x23_a_claim_takes_no_more_than_its_limit_under_any_plan() -> None:
    # With a nested loop a planner may run the locking subquery once per row, each time with other rows to skip.
    forbid = {"postgresql": [f"SET enable_{plan} = off" for plan in ("hashjoin", "mergejoin", "material")]}

    def claim_under_the_plan(worker_id: int) -> list[Claimed]:
        with connection.cursor() as cursor:
            for statement in forbid.get(connection.vendor, []):
                cursor.execute(statement)
        return claim_until_empty(worker_id, 5)

    store(400)
    claims = together(*[partial(claim_under_the_plan, make_worker().pk) for _n in range(4)])
    counted = Counter(job.id for claimed in claims for job in claimed)
    assert (len(counted), set(counted.values())) == (400, {1})


# Rescue against those who still hold the job ---------------------------------------------------------------


@contextmanager
def at_fault(point: str, action: Callable[[], object]) -> Iterator[None]:
    """Do something once, when the code first comes to this point."""
    done = threading.Event()

    def hook(reached: str) -> None:
        if reached == point and not done.is_set():
            done.set()
            action()

    faults.install(hook)
    try:
        yield
    finally:
        faults.install(None)
    assert done.is_set(), f"{point} was never reached"


def test_x8_what_the_rescuer_read_is_compared_again_when_it_writes() -> None:
    # The completion comes inside the rescuer's own transaction, past any lock: only the WHERE is left.
    job = claim_one(make_worker(lease=OVER), lease=OVER)
    with at_fault("before-rescue", lambda: finish([Ending(job, Completed("1"))])):
        result = rescue()
    row = present(job)
    assert (row.status, row.result, row.rescues, result) == ("completed", "1", 0, Rescued([], []))
    assert not row.attempts.exists()


def test_x8_a_completion_that_comes_while_the_rescuer_holds_the_job_is_refused() -> None:
    job = claim_one(make_worker(lease=OVER), lease=OVER)
    rescuing = threading.Event()
    results: list[Collection[UUID]] = []

    def rescue_slowly() -> None:
        with at_fault("before-rescue", rescuing.set):
            results.append(rescue().returned)

    def complete() -> None:
        assert rescuing.wait(10)
        results.append(finish([Ending(job, Completed("1"))])[0])

    together(rescue_slowly, complete)
    assert sorted(map(len, results)) == [0, 1], "both or none of them had the job"
    assert present(job).status == ("pending" if [job.id] in results else "completed")


def test_x8_a_completion_that_is_not_committed_yet_is_not_rescued_over() -> None:
    job = claim_one(make_worker(lease=OVER), lease=OVER)
    completed = threading.Event()

    def complete_slowly() -> None:
        with transaction.atomic():
            assert finish([Ending(job, Completed("1"))])[0]
            completed.set()
            if dialect_of("default").has_skip_locked:
                eventually(lambda: rescued, what="the rescuer passes over the locked row")

    rescued: list[Rescued] = []

    def rescue_meanwhile() -> None:
        assert completed.wait(10)
        rescued.append(rescue())

    together(complete_slowly, rescue_meanwhile)
    assert rescued == [Rescued([], [])]
    assert (present(job).status, present(job).result) == ("completed", "1")


@pytest.mark.parametrize("count", [1, 2])
def test_i8_a_checkpoint_waits_for_those_who_are_about_to_take_its_job_back(count: int) -> None:
    # A bare guarded INSERT would read the job as it was before, and store beside the next attempt.
    jobs = [claim_one(make_worker()) for _n in range(count)]
    given_back, tried = threading.Event(), threading.Event()
    stored: list[object] = []

    def give_back() -> None:
        with transaction.atomic():
            finish([Ending(job, Released()) for job in jobs])
            given_back.set()
            tried.wait(0.3)  # it must not come through; nothing tells that it waits

    def save_late() -> None:
        assert given_back.wait(10)
        stored.append(save([checkpoint_of(job) for job in jobs]).stored)
        tried.set()

    together(give_back, save_late)
    assert stored == [set()]
    assert not Checkpoint.objects.exists()


def test_x9_a_lease_renewed_between_the_rescuers_read_and_its_write_stays() -> None:
    worker = make_worker(lease=OVER)
    job = claim_one(worker, lease=OVER)
    with at_fault("before-rescue", lambda: renew(worker.pk, [Held(job.id, job.token)], LEASE)):
        result = rescue()
    row = present(job)
    assert (row.status, row.worker_id, result) == ("running", worker.pk, Rescued([], []))


@pytest.mark.timeout(120)
def test_x9_of_rescuer_and_late_heartbeat_exactly_one_wins_200_times() -> None:
    worker = make_worker()
    store(200)
    jobs = claim(claim_of(worker, 200, lease=LEASE))
    begin = threading.Barrier(2)

    def beat() -> list[bool]:
        renewed = []
        for job in jobs:
            begin.wait(30)
            renewed.append(bool(renew(worker.pk, [Held(job.id, job.token)], LEASE)))
        return renewed

    def take_back() -> list[bool]:
        taken = []
        for job in jobs:
            Job.objects.filter(id=job.id).update(lease_expires_at=DatabaseNow() - timedelta(seconds=1))
            begin.wait(30)
            taken.append(rescue().returned == [job.id])
        return taken

    renewed, taken = together(beat, take_back, seconds=100)
    for job, kept, lost in zip(jobs, renewed, taken, strict=True):
        row = present(job)
        assert kept != lost, "both or none of them won"
        assert row.status == ("running" if kept else "pending")
        assert (row.lease_expires_at is not None) == (row.worker_id is not None) == kept
