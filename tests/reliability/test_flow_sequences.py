"""Sequences under real workers: order, retries in between, and a worker that is killed with the job in front (F15)."""

from __future__ import annotations

import threading
from collections import defaultdict

import pytest

from django_durable_jobs import Backoff, current_job, durable_job
from django_durable_jobs.models import Job, Sequence
from django_durable_jobs.operations import sequences
from tests.factories import present
from tests.reliability.harness import Workers
from tests.reliability.outages import options, working
from tests.reliability.process_jobs import hold, remember
from tests.waiting import eventually

KEYS, STEPS = 4, 6

LEDGER: list[tuple[int, int, str]] = []
UNDER_WAY: dict[int, int] = defaultdict(int)
TOGETHER: list[int] = []
GUARD = threading.Lock()


@durable_job(sequence_key=lambda key, _number: f"key {key}", retries=2, backoff=Backoff.none())
def ordered(key: int, number: int) -> None:
    """Note the beginning and the end; every other step fails once."""
    with GUARD:
        LEDGER.append((key, number, "begin"))
        UNDER_WAY[key] += 1
        TOGETHER.append(UNDER_WAY[key])
    try:
        if number % 2 and current_job().attempt == 1:
            raise ValueError("not yet")
    finally:
        with GUARD:
            UNDER_WAY[key] -= 1
            LEDGER.append((key, number, "end"))


@pytest.mark.django_db(transaction=True)
@pytest.mark.timeout(90)
def test_three_workers_keep_the_order_of_each_key_through_retries() -> None:
    LEDGER.clear()
    TOGETHER.clear()
    with working(*(options() for _ in range(3))):
        for number in range(STEPS):
            for key in range(KEYS):
                ordered.enqueue(key, number)
        done = Job.objects.filter(status="completed")
        eventually(lambda: done.count() == KEYS * STEPS, seconds=60)
        eventually(lambda: not Sequence.objects.exists())
    for key in range(KEYS):
        mine = [(number, what) for k, number, what in LEDGER if k == key]
        expected = [(n, what) for n in range(STEPS) for _ in range(1 + n % 2) for what in ("begin", "end")]
        assert mine == expected
    assert set(TOGETHER) == {1}


@pytest.mark.django_db(transaction=True)
def test_a_worker_finds_a_sequence_that_nobody_let_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the process had died between the commit of its enqueue and the look after it."""
    with monkeypatch.context() as patch:
        patch.setattr(sequences, "advance", lambda _keys: 0)
        stuck = ordered.enqueue(0, 0)
    with working(options()):
        eventually(lambda: str(stuck.status) == "completed")


def test_a_worker_that_is_killed_with_the_job_in_front_holds_up_its_sequence_until_that_has_run(
    workers: Workers,
) -> None:
    gate = workers.gate()
    front = hold.using(sequence_key="one").enqueue(workers.ledger, "front", str(gate))
    following = [remember.using(sequence_key="one").enqueue(workers.ledger, f"next {n}") for n in range(3)]
    doomed = workers.start("--queue", "default=4")
    workers.noted("begin front")
    doomed.kill()
    workers.start("--queue", "default=4")
    workers.noted("begin front", 2)
    assert workers.lines("next") == []
    assert {str(job.status) for job in following} == {"waiting"}
    gate.touch()
    for job in following:
        job.result(30)
    assert workers.lines("next") == ["next 0", "next 1", "next 2"]
    assert present(front.id).attempt == 2
