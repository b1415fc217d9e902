"""Chunks under real workers: how they fill, how many run at once, and what a dead worker leaves (F15, I11)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from django_durable_jobs import Backoff, ChunkItem, durable_job
from django_durable_jobs.models import Attempt, Job
from tests.reliability.harness import Workers
from tests.reliability.outages import drain, options, working
from tests.reliability.process_jobs import gathered, remember
from tests.waiting import eventually

JOBS = 200

SIZES: list[int] = []
ALONE: list[int] = []
AT_ONCE: list[int] = []
GATE = threading.Event()
GUARD = threading.Lock()
_running = 0


def _handle(items: list[ChunkItem[int, int]]) -> None:
    with GUARD:
        SIZES.append(len(items))
    for item in items:
        if item.argument % 10 == 3 and item.attempt == 1:
            item.fail(ValueError("not yet"))
        else:
            item.result = item.argument


@durable_job(chunk=20, backoff=Backoff.none())
def filled(items: list[ChunkItem[int, int]]) -> None:
    """Give back the arguments; one in ten fails once."""
    _handle(items)


@durable_job(chunk=20, backoff=Backoff.none())
async def async_filled(items: list[ChunkItem[int, int]]) -> None:
    """Do the same on the event loop."""
    _handle(items)


@durable_job(chunk=10, chunk_timeout=timedelta(seconds=30))
def patient(items: list[ChunkItem[int, int]]) -> None:
    """Wait for a full chunk."""
    _handle(items)


@durable_job(chunk=10, chunk_timeout=timedelta(seconds=0.4))
def short(items: list[ChunkItem[int, int]]) -> None:
    """Wait a little for a full chunk."""
    _handle(items)


@durable_job(chunk=5)
def gated(items: list[ChunkItem[int, int]]) -> None:
    """Count how many calls run at once."""
    global _running  # noqa: PLW0603 -- counted under the guard
    with GUARD:
        _running += 1
        AT_ONCE.append(_running)
    GATE.wait(10)
    with GUARD:
        _running -= 1


@durable_job
def lonely(number: int) -> None:
    """Run as every other job."""
    ALONE.append(number)


@pytest.fixture(autouse=True)
def _empty() -> Iterator[None]:
    for one in (SIZES, ALONE, AT_ONCE):
        one.clear()
    GATE.clear()
    yield
    GATE.set()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("job", [filled, async_filled], ids=["sync", "async"])
def test_every_job_of_many_chunks_gets_its_own_result(job: Any) -> None:
    handles = job.enqueue_many([(number,) for number in range(JOBS)])
    with working(options(), options()):
        eventually(lambda: Job.objects.filter(status="completed").count() == JOBS, seconds=30)
    assert [handle.result() for handle in handles] == list(range(JOBS))
    assert Attempt.objects.count() == JOBS // 10
    assert max(SIZES) == 20, "a worker learns that a slot takes a whole chunk"
    assert len(SIZES) < JOBS / 4


@pytest.mark.django_db(transaction=True)
def test_a_chunk_waits_until_it_is_full(dialect: Any) -> None:
    with working(options(queues={"default": 1})):
        for number in range(9):
            patient.enqueue(number)
        eventually(lambda: Job.objects.running().count() == 9)
        assert SIZES == []
        patient.enqueue(9)
        eventually(lambda: Job.objects.filter(status="completed").count() == 9)
    assert SIZES == [10]


@pytest.mark.django_db(transaction=True)
def test_a_chunk_that_does_not_fill_runs_when_its_time_is_over() -> None:
    with working(options(queues={"default": 1})):
        short.enqueue(1)
        eventually(lambda: Job.objects.filter(status="completed").exists())
    assert SIZES == [1]


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_stops_hands_a_growing_chunk_back() -> None:
    with working(options(queues={"default": 1})):
        handles = [patient.enqueue(number) for number in range(3)]
        eventually(lambda: Job.objects.running().count() == 3)
    assert [(row.status, row.attempt) for row in (handle.job() for handle in handles)] == [("pending", 0)] * 3
    assert SIZES == []


@pytest.mark.django_db(transaction=True)
def test_a_chunk_takes_one_slot() -> None:
    gated.enqueue_many([(number,) for number in range(40)])
    with working(options(queues={"default": 2})):
        eventually(lambda: len(AT_ONCE) == 2)
        GATE.set()
        eventually(lambda: Job.objects.filter(status="completed").count() == 40)
    assert max(AT_ONCE) == 2


@pytest.mark.django_db(transaction=True)
def test_other_jobs_of_the_queue_run_beside_chunks() -> None:
    for number in range(40):
        filled.enqueue(number * 10)
        lonely.enqueue(number)
    drain(options())
    assert sorted(ALONE) == list(range(40))
    assert sum(SIZES) == 40
    assert set(Job.objects.values_list("status", "attempt")) == {("completed", 1)}


@pytest.mark.django_db(transaction=True)
def test_a_worker_for_lost_jobs_does_not_wait_for_a_chunk() -> None:
    handle = patient.enqueue(1)
    Job.objects.filter(id=handle.id).update(rescues=1)
    with working(options(queues={"default": 1}, alone=True)):
        eventually(lambda: str(handle.status) == "completed")
    assert SIZES == [1]


def test_a_worker_that_is_killed_in_a_chunk_costs_none_of_its_jobs_an_attempt(workers: Workers) -> None:
    """I11: one of them may have been guilty; each runs alone once, and then nothing is lost."""
    handles = gathered.enqueue_many([([workers.ledger, str(workers.gate()), str(n)],) for n in range(5)])
    doomed = workers.start("--queue", "default=1")
    workers.noted("chunk of 5")
    doomed.kill()
    workers.gate().touch()
    workers.start("--queue", "default=1")
    assert [handle.result(40) for handle in handles] == ["0", "1", "2", "3", "4"]
    assert set(Job.objects.values_list("attempt", "token")) == {(1, 2)}
    assert len(workers.lines("chunk of 1")) == 5
    assert remember.enqueue(workers.ledger, "good").result(10) == "good"
