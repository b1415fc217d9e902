"""Worker ids: one live worker has a name, whoever else asks for it and when (N63)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Final

import pytest

from django_durable_jobs import faults
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.errors import WorkerNameTaken
from django_durable_jobs.models import Worker
from django_durable_jobs.operations.workers import register, stopped
from tests.waiting import together

pytestmark = pytest.mark.django_db(transaction=True)

LEASE: Final = timedelta(seconds=30)
LONG_ENOUGH: Final = 0.3
"""Seconds for which one registration holds the others up; without a lock they need less to come as far."""


def begins(pid: int = 1, name: str = "mail") -> int | None:
    """Register a worker and return its id; ``None`` when its name is taken."""
    try:
        return register(name, host="here", pid=pid, queues={"default": 1}, lease=LEASE)
    except WorkerNameTaken:
        return None


def alive() -> list[int]:
    return list(Worker.objects.alive().values_list("id", flat=True))


def test_n63_the_id_of_a_live_worker_is_refused_and_leaves_no_row() -> None:
    first = begins()
    assert begins() is None
    assert [first] == alive()
    assert Worker.objects.count() == 1


def test_n63_the_id_of_a_worker_that_has_stopped_is_free_at_once() -> None:
    first = begins()
    assert first is not None
    stopped(first)
    second = begins()
    assert [second] == alive()


def test_n63_the_id_of_a_lost_worker_is_free_when_its_lease_is_over(dialect: Dialect) -> None:
    begins()
    dialect.clock_offset = LEASE + timedelta(seconds=1)
    second = begins()
    assert [second] == alive()


def test_n63_other_ids_are_not_concerned() -> None:
    both = [begins(name="mail"), begins(name="print")]
    assert set(both) == set(alive())


@pytest.mark.parametrize("count", [2, 4])
def test_n63_of_workers_that_start_at_the_same_instant_exactly_one_lives(count: int) -> None:
    meeting = threading.Barrier(count)

    def meet(point: str) -> None:
        # All have looked before any of them decides, if that can be.
        if point == "before-worker-begins":
            with suppress(threading.BrokenBarrierError):
                meeting.wait(LONG_ENOUGH)

    faults.install(meet)
    starts: list[Callable[[], int | None]] = [partial(begins, pid) for pid in range(count)]
    ids = together(*starts)
    assert [id_ for id_ in ids if id_ is not None] == alive()
    assert len(alive()) == 1


def test_n63_twenty_free_races_have_one_winner_each() -> None:
    for number in range(20):
        name = f"worker-{number}"
        ids = together(*[partial(begins, pid, name) for pid in range(4)])
        assert len([id_ for id_ in ids if id_ is not None]) == 1, name
    assert len(alive()) == 20
