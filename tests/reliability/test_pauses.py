"""Pauses with real workers in threads and processes: nothing begins, what is held goes back, code is stopped (X57)."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest

from django_durable_jobs import (
    TimedOut,
    acall,
    call,
    is_pausing,
    pause,
    pause_queue,
    pause_worker,
    resume,
    resume_queue,
    resume_worker,
    stop_worker,
)
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.errors import TransitionRefused, WorkerNotFound
from django_durable_jobs.models import Job, Queue, Worker
from tests.durable.running import COMMITS, SCRIPTS, async_scripted, row, scripted
from tests.factories import make_worker
from tests.jobs import noop
from tests.reliability.outages import QUICK, drain, options, working
from tests.waiting import eventually

pytestmark = COMMITS

HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _queue() -> Any:
    Queue.objects.create(name="default")
    yield
    SCRIPTS.clear()


def deaf(dialect: Dialect, **given: Any) -> Any:
    """Return options of a worker that looks for orders by itself only where nothing notifies it."""
    every = HOUR if dialect.has_notifications else QUICK
    return options(poll_interval=every, idle_poll_interval=every, **given)


class Gate:
    """A job's code that says when it has begun, and goes on when it may."""

    def __init__(self) -> None:
        self.begun, self.open, self.runs = threading.Event(), threading.Event(), 0

    def script(self) -> str:
        """Make calls until the gate is open."""
        self.runs += 1
        self.begun.set()
        number = 0
        while not self.open.wait(0.005):
            call(round, number)
            number += 1
        return "done"

    async def async_script(self) -> str:
        """Do the same on the event loop."""
        self.runs += 1
        self.begun.set()
        number = 0
        while not self.open.is_set():
            await asyncio.sleep(0.005)
            await acall(round, number)
            number += 1
        return "done"

    def enqueue(self, kind: str = "sync") -> Any:
        """Enqueue a job with this code."""
        SCRIPTS["gate"] = self.script if kind == "sync" else self.async_script
        return (scripted if kind == "sync" else async_scripted).enqueue("gate")


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_c1_a_running_job_is_paused_at_its_next_call_and_goes_on_elsewhere(kind: str, dialect: Dialect) -> None:
    gate = Gate()
    with working(deaf(dialect)):
        job = gate.enqueue(kind)
        assert gate.begun.wait(20)
        assert pause(job.id) is False
        eventually(lambda: row(job).status == "paused", seconds=20)
        assert not is_pausing(job.id)
        gate.open.set()
        resume(job.id)
        eventually(lambda: row(job).status == "completed", seconds=20)
    assert gate.runs == 2
    assert row(job).attempt == 1


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_c1_the_code_of_a_job_that_was_taken_away_is_stopped(kind: str, dialect: Dialect) -> None:
    gate = Gate()
    with working(deaf(dialect)) as running:
        job = gate.enqueue(kind)
        assert gate.begun.wait(20)
        gate.begun.clear()
        assert pause(job.id, mode="aggressive") is True
        assert row(job).status == "paused"
        # The worker has its slot back: the gate is still closed, and the worker ends at once.
        running.stop()
        running.join(20)
    assert row(job).status == "paused"
    resume(job.id)
    gate.open.set()
    drain()
    assert (row(job).status, row(job).attempt, gate.runs) == ("completed", 1, 2)


@pytest.mark.parametrize("scope", ["queue", "worker"])
def test_an_aggressive_pause_gives_running_jobs_back_and_they_run_again_after_it(scope: str, dialect: Dialect) -> None:
    gate = Gate()
    with working(deaf(dialect)):
        job = gate.enqueue()
        assert gate.begun.wait(20)
        name = Worker.objects.get(stopped_at=None).name
        if scope == "queue":
            pause_queue("default", mode="aggressive")
        else:
            pause_worker(name, mode="aggressive")
        assert (row(job).status, row(job).attempt) == ("pending", 0)
        gate.open.set()
        # It has obeyed: only then it says so.
        eventually(lambda: Worker.objects.get(name=name).obeys, seconds=20)
        assert row(job).status == "pending"
        resume_queue("default") if scope == "queue" else resume_worker(name)
        eventually(lambda: row(job).status == "completed", seconds=20)
    assert gate.runs == 2


@pytest.mark.parametrize("scope", ["queue", "worker"])
def test_a_graceful_pause_lets_running_jobs_end(scope: str, dialect: Dialect) -> None:
    gate = Gate()
    with working(deaf(dialect)):
        job = gate.enqueue()
        assert gate.begun.wait(20)
        name = Worker.objects.get(stopped_at=None).name
        pause_queue("default") if scope == "queue" else pause_worker(name)
        waiting = noop.enqueue(1)
        gate.open.set()
        eventually(lambda: row(job).status == "completed", seconds=20)
        assert row(waiting).status == "pending"
        resume_queue("default") if scope == "queue" else resume_worker(name)
        eventually(lambda: row(waiting).status == "completed", seconds=20)
    assert gate.runs == 1


def test_x57_with_wait_nothing_begins_after_the_pause_has_returned(dialect: Dialect) -> None:
    """Three workers with prefetch on very many short jobs; each job notes when it begins."""
    begun: list[int] = []
    returned, paused = threading.Event(), threading.Event()
    late: list[int] = []

    def note() -> None:
        (late if returned.is_set() else begun).append(1)
        paused.wait(0.002)  # so that they are not all done before the order

    SCRIPTS["note"] = note
    with working(*[deaf(dialect) for _ in range(3)]):
        scripted.enqueue_many([("note",)] * 5000)
        eventually(lambda: len(begun) > 300, seconds=20)
        pause_queue("default", wait=20)
        returned.set()
        paused.set()
        held = Job.objects.running().count()
        number = len(begun)
        assert 300 < number < 5000
        # What was handed back comes back, and nothing else begins.
        eventually(lambda: not Job.objects.running().exists(), seconds=20)
        assert Job.objects.pending().count() == 5000 - Job.objects.filter(status="completed").count()
        assert (len(begun), late) == (number, []), f"{held} were held"
        returned.clear()
        resume_queue("default")
        eventually(lambda: Job.objects.filter(status="completed").count() == 5000, seconds=50)
    assert len(begun) == 5000
    assert not Job.objects.filter(attempt__gt=1).exists()


def test_waiting_for_a_worker_that_does_not_answer_ends_in_time_and_the_queue_is_paused() -> None:
    silent = make_worker(name="silent", lease=HOUR)
    with pytest.raises(TimedOut, match=r"'default' is paused, but after 0.2 s 'silent' has not said"):
        pause_queue("default", wait=0.2)
    assert Queue.objects.get(name="default").paused_at is not None
    # One that is gone is not waited for.
    resume_queue("default")
    Worker.objects.filter(pk=silent.pk).update(lease_expires_at=silent.started_at)
    pause_queue("default", wait=20)


def test_a_worker_that_starts_while_a_queue_is_paused_begins_nothing_of_it() -> None:
    job = noop.enqueue(1)
    pause_queue("default")
    drain()
    assert row(job).status == "pending"
    with working():
        resume_queue("default")
        eventually(lambda: row(job).status == "completed", seconds=20)


def test_a_queue_is_resumed_by_the_workers_at_its_time(dialect: Dialect) -> None:
    with working(deaf(dialect)):
        pause_queue("default", resume_at=dialect.now() + timedelta(seconds=0.3))
        job = noop.enqueue(1)
        eventually(lambda: row(job).status == "completed", seconds=20)
    assert Queue.objects.get(name="default").paused_at is None


# Stop ---------------------------------------------------------------------------------------------------------------


def test_a_worker_that_is_stopped_by_order_ends_its_job_and_then_itself(dialect: Dialect) -> None:
    gate = Gate()
    with working(deaf(dialect)) as running:
        job = gate.enqueue()
        assert gate.begun.wait(20)
        worker = Worker.objects.get(stopped_at=None)
        stop_worker(worker.name, by="ada", reason="the host goes away")
        with pytest.raises(TransitionRefused, match="has been asked to stop already"):
            stop_worker(worker)
        gate.open.set()
        running.join(20)
        worker.refresh_from_db()
        assert worker.stopped_at is not None
    assert (row(job).status, row(job).attempt) == ("completed", 1)
    with pytest.raises(WorkerNotFound):
        stop_worker(worker.name)
