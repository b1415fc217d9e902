"""Workers that heed limits: what they claim, when they ask again, and what reaches them at run time."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest

from django_durable_jobs import durable_job, limit_fleet, limit_queue, unlimit_queue
from django_durable_jobs.dialects.rows import Want
from django_durable_jobs.models import Job, Queue
from django_durable_jobs.operations.control import WHOLE_WORKER
from django_durable_jobs.operations.limited_claim import Taken
from django_durable_jobs.worker.looks import FIRST_LOOK, Looks
from django_durable_jobs.worker.options import WorkerOptions
from tests.durable.running import COMMITS
from tests.jobs import noop
from tests.reliability.outages import drain, options, working
from tests.waiting import eventually

pytestmark = COMMITS

RUNNING: list[int] = []
HIGHEST: list[int] = []
GATE = threading.Event()


@durable_job
def counted(number: int) -> None:
    """Note how many run at once, and wait until all may go on."""
    RUNNING.append(number)
    HIGHEST.append(len(RUNNING))
    GATE.wait(20)
    RUNNING.remove(number)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    RUNNING.clear()
    HIGHEST.clear()
    GATE.clear()
    for name in ("default", "mail"):
        Queue.objects.create(name=name)


def completed(queue: str) -> int:
    return Job.objects.filter(queue=queue, status="completed").count()


def serving(**given: Any) -> WorkerOptions:
    return options(queues={"default": 5, "mail": 5}, **given)


@pytest.mark.parametrize("scope", ["queue", "fleet"])
def test_a_worker_runs_no_more_at_once_and_others_in_its_queues_go_on(scope: str) -> None:
    limit_queue("mail", concurrency=2)
    if scope == "fleet":
        limit_fleet(concurrency=3)
    counted.using(queue="mail").enqueue_many([(number,) for number in range(6)])
    with working(serving()):
        eventually(lambda: len(RUNNING) == 2, seconds=20)
        noop.using(queue="default").enqueue_many([(number,) for number in range(20)])
        eventually(lambda: completed("default") == 20, seconds=20)
        assert Job.objects.filter(queue="mail").running().count() == 2
        GATE.set()
        eventually(lambda: completed("mail") == 6, seconds=20)
    assert max(HIGHEST) <= 2


def test_a_limit_that_is_raised_or_taken_back_reaches_a_running_worker() -> None:
    noop.using(queue="mail").enqueue_many([(number,) for number in range(9)])
    limit_queue("mail", rate=2, per=timedelta(days=1))
    with working(serving()):
        eventually(lambda: completed("mail") == 2, seconds=20)
        limit_queue("mail", rate=5, per=timedelta(days=1))
        eventually(lambda: completed("mail") == 5, seconds=20)
        unlimit_queue("mail")
        eventually(lambda: completed("mail") == 9, seconds=20)


def test_a_draining_worker_waits_for_what_a_rate_holds_back() -> None:
    noop.using(queue="default").enqueue_many([(number,) for number in range(7)])
    limit_queue("default", rate=3, per=0.1)
    drain()
    assert completed("default") == 7
    begun = sorted(row[0] for row in Job.objects.values_list("started_at") if row[0] is not None)
    assert all(later - earlier >= timedelta(seconds=0.1) for earlier, later in zip(begun, begun[3:], strict=False))


# When to ask again ----------------------------------------------------------------------------------------------------


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


WANTS = [Want("mail", 5), Want("default", 5)]


def looks(limits: dict[str, str]) -> tuple[Looks, Clock]:
    clock = Clock()
    found = Looks(WorkerOptions(name="looks"), clock)  # type: ignore[arg-type]  # what it needs of a clock
    found.heed(limits)
    assert found.is_due("mail", anyway=False)
    return found, clock


@pytest.mark.once
def test_a_queue_whose_rate_is_used_up_is_not_asked_before_its_time_whatever_ends() -> None:
    found, clock = looks({"mail": "1"})
    found.came_limited(WANTS[:1], Taken([], set(), {"mail": 3.0}, set()), told=False)
    assert not found.is_due("mail", anyway=True)
    assert found.is_due("default", anyway=False)
    found.ended({"mail"})
    found.at_once()
    assert not found.is_due("mail", anyway=True)
    clock.now += 3.0 + FIRST_LOOK
    assert found.is_due("mail", anyway=False)


@pytest.mark.once
def test_a_full_queue_is_asked_when_a_job_of_it_ends_here_and_else_less_and_less_often() -> None:
    found, clock = looks({"mail": "1"})
    pauses = []
    for _look in range(4):
        found.came_limited(WANTS[:1], Taken([], {"mail"}, {}, set()), told=False)
        pauses.append(found.seconds("mail"))
        clock.now += pauses[-1]
    assert pauses == pytest.approx([FIRST_LOOK * 2**n for n in range(4)])
    found.came_limited(WANTS[:1], Taken([], {"mail"}, {}, set()), told=False)
    found.ended({"default"})
    assert not found.is_due("mail", anyway=True)
    found.ended({"mail"})
    assert found.is_due("mail", anyway=False)


@pytest.mark.once
def test_under_a_limit_of_the_fleet_any_ending_frees_a_place() -> None:
    found, _clock = looks({WHOLE_WORKER: "1"})
    found.came_limited(WANTS, Taken([], {"mail", "default"}, {}, set()), told=False)
    assert not found.is_due("mail", anyway=True)
    found.ended({"default"})
    assert found.is_due("mail", anyway=False)


@pytest.mark.once
def test_a_new_order_has_all_queues_asked() -> None:
    found, _clock = looks({"mail": "1"})
    found.came_limited(WANTS[:1], Taken([], set(), {"mail": 3000.0}, set()), told=False)
    found.heed({"mail": "2"})
    assert found.is_due("mail", anyway=False)
