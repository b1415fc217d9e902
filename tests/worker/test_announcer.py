"""Receivers in a worker: in a thread of their own, so that nothing waits for them; what they do harms nobody (I29)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection, transaction

from django_durable_jobs import call, current_job, durable_job, enqueue_many, pause, signals
from django_durable_jobs.events import JobCompletedEvent, JobPausedEvent, JobReleasedEvent, WorkerStoppedEvent
from django_durable_jobs.models import Job
from django_durable_jobs.operations import facts
from django_durable_jobs.signals import handing_over
from django_durable_jobs.worker import announcer
from django_durable_jobs.worker.announcer import Announcer, announcing
from django_durable_jobs.worker.options import WorkerOptions
from django_durable_jobs.worker.worker import Worker
from tests.durable.running import COMMITS
from tests.jobs import noop
from tests.listening import SIGNALS, connected, kinds, listening
from tests.waiting import eventually

pytestmark = COMMITS

EVENT = WorkerStoppedEvent(worker="one")
THREAD = "durable-jobs-events"


@durable_job
def takes_a_moment(number: int) -> int:
    threading.Event().wait(0.01)
    return number


def drain() -> None:
    """Run a worker in this thread until nothing is left."""
    Worker(WorkerOptions(name="told", queues={"default": 2}, drain=True)).run()


@contextmanager
def worker_beside() -> Iterator[None]:
    """Run a worker in another thread."""
    worker = Worker(WorkerOptions(name="beside", queues={"default": 2}))
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(worker.run)
        try:
            yield
        finally:
            worker.stop()
            running.result(20)


def test_a11_a_worker_tells_of_itself_and_of_how_long_its_jobs_took() -> None:
    threads: set[str] = set()
    takes_a_moment.enqueue(1)
    with connected(lambda **_more: threads.add(threading.current_thread().name)), listening() as told:
        drain()
    assert threads == {THREAD}
    assert kinds(told) == ["worker_started", "job_started", "job_completed", "worker_stopped"]
    completed = told[2]
    assert isinstance(completed, JobCompletedEvent)
    assert completed.worker == "told"
    assert completed.duration is not None
    assert completed.duration.total_seconds() >= 0.01


@durable_job
def pauses_itself() -> None:
    pause(current_job().id, reason="enough", by="itself")
    call(len, "a")
    call(len, "b")


def test_c6_a_job_that_comes_to_be_paused_at_its_call_is_told_of_as_given_back_and_paused() -> None:
    pauses_itself.enqueue()
    # Where orders are announced, the first call may see it already.
    everything_else = [signal for signal in SIGNALS.values() if signal is not signals.checkpoint_saved]
    with listening(*everything_else) as told:
        drain()
    assert kinds(told)[1:-1] == ["job_started", "job_released", "job_paused"]
    released, paused = told[-3:-1]
    assert isinstance(released, JobReleasedEvent)
    assert released.duration is not None
    assert isinstance(paused, JobPausedEvent)
    assert (paused.mode, paused.by, paused.reason) == ("graceful", "itself", "enough")


def test_i29_a_receiver_that_hangs_holds_up_no_job() -> None:
    may_go_on, entered = threading.Event(), threading.Event()
    threads: set[str] = set()

    def hang(**_more: object) -> None:
        threads.add(threading.current_thread().name)
        entered.set()
        may_go_on.wait(20)

    with connected(hang, signals.job_started, signals.job_completed), worker_beside():
        enqueue_many([noop.s(number) for number in range(20)])
        try:
            eventually(lambda: Job.objects.filter(status="completed").count() == 20, what="jobs beside a receiver")
            assert entered.wait(10)
        finally:
            may_go_on.set()
    assert threads == {THREAD}


def test_i29_whatever_a_receiver_does_the_next_event_is_told(caplog: pytest.LogCaptureFixture) -> None:
    def leave(**_more: object) -> None:
        raise SystemExit

    def begin(**_more: object) -> None:
        transaction.set_autocommit(False)
        connection.cursor().execute("SELECT 1")

    told: list[str] = []

    def count(event: Any, **_more: object) -> None:
        told.append(f"{event.worker} {connection.get_autocommit()}")

    with caplog.at_level(logging.ERROR), announcing() as some:
        for receiver in (leave, begin, count):
            with connected(receiver, signals.worker_stopped):
                some.take(signals.worker_stopped, EVENT)
                # It is through when the next event is taken.
                some.take(signals.worker_paused, EVENT)
                eventually(some._waiting.empty)
    assert told == ["one True"]
    assert "A receiver ended abnormally" in caplog.text
    assert "A transaction was left open" in caplog.text
    assert {getattr(record, "worker", None) for record in caplog.records} == {"one"}


def test_what_waits_for_slow_receivers_is_limited_and_what_is_left_out_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(announcer, "MOST_WAITING", 3)
    may_go_on, entered, count = threading.Event(), threading.Event(), [0]

    def slow(**_more: object) -> None:
        count[0] += 1
        entered.set()
        may_go_on.wait(20)

    with connected(slow, signals.worker_stopped), announcing() as some:
        some.take(signals.worker_stopped, EVENT)
        assert entered.wait(10)
        for _ in range(13):
            some.take(signals.worker_stopped, EVENT)
        may_go_on.set()
    assert count == [4]
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        f"Receivers of events are too slow: 3 wait, and {left_out} were not told so far" for left_out in (1, 10)
    ]


def test_receivers_that_do_not_end_do_not_keep_a_process_from_ending(caplog: pytest.LogCaptureFixture) -> None:
    may_go_on = threading.Event()
    some = Announcer()
    with connected(lambda **_more: may_go_on.wait(20), signals.worker_stopped):
        for _ in range(3):
            some.take(signals.worker_stopped, EVENT)
        some.close(0.05)
        may_go_on.set()
    assert "were not done within 0 s; 2 events are not told" in caplog.text
    eventually(lambda: not some._thread.is_alive() if some._thread else True)


def test_i29_what_cannot_be_told_is_committed_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    def no_thread(*_what: object) -> None:
        raise RuntimeError("can't start new thread")

    with listening(signals.job_enqueued) as told, handing_over(no_thread):
        job = noop.enqueue(1)
    assert told == []
    assert job.status == "pending"
    assert "JobEnqueuedEvent could not be told" in caplog.text


def test_where_nobody_listens_no_event_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(**_fields: object) -> None:
        raise AssertionError("an event was made although nobody listens")

    for name in dir(facts):
        if name.endswith("Event"):
            monkeypatch.setattr(facts, name, made)
    takes_a_moment.enqueue(1)
    drain()
    assert Job.objects.get().status == "completed"
    assert THREAD not in {thread.name for thread in threading.enumerate()}
