"""A worker that runs for weeks (I31, X69): memory, threads, connections and the query log stay what they were."""

from __future__ import annotations

import gc
import sys
import threading
import time
from datetime import timedelta

import psutil
import pytest
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from pytest_django import Settings

from django_durable_jobs.models import Job
from django_durable_jobs.worker.worker import Worker
from tests.jobs import async_add, noop, sums
from tests.reliability.database_jobs import call_and_query, call_and_query_async
from tests.reliability.harness import RunJobs, Stopwatch, Workers
from tests.reliability.outages import has_sessions, options, sessions, working
from tests.waiting import eventually

pytestmark = pytest.mark.django_db(transaction=True)

MEGABYTE = 1024**2
WAVE, JOBS = 2_000, 20_000
ENOUGH = 15.0
"""Seconds after which fewer jobs will do, where the database is slow."""
SLOTS = 4
WARM, POLLS = 1_000, 20_000
FIXED = 3_000
"""Blocks that may come once, such as buffers of threads; without the guard there are several for each round."""


def run(jobs: int) -> None:
    """Enqueue so many jobs, nearly all of them small, and see them done."""
    before = Job.objects.count()
    few = jobs // 50
    noop.enqueue_many([(n,) for n in range(jobs - 2 * few)])
    sums.enqueue_many([(3,) for _ in range(few)])
    async_add.enqueue_many([(n, 1) for n in range(few)])
    left = Job.objects.filter(status__in=["pending", "running", "retrying", "scheduled"])
    eventually(lambda: not left.exists(), seconds=100)
    assert Job.objects.count() == before + jobs


def size(worker: RunJobs) -> tuple[float, int, int]:
    """Return megabytes, threads and connections of a worker process."""
    process = psutil.Process(worker.pid)
    return process.memory_info().rss / MEGABYTE, process.num_threads(), len(sessions()) if has_sessions() else 0


@pytest.mark.timeout(120)
def test_i31_twenty_thousand_jobs_leave_no_trace_in_the_worker(workers: Workers) -> None:
    worker = workers.start("--queue", f"default={SLOTS}", settings={"LEASE": 30.0})
    run(WAVE)
    sizes = []
    with Stopwatch() as watch:
        while Job.objects.count() < JOBS and watch.seconds < ENOUGH:
            run(WAVE)
            sizes.append(size(worker)[0])
    # In the first half threads and connections come up, each with buffers of its own.
    grown = sizes[-1] - sizes[len(sizes) // 2]
    assert grown < 5, f"grew by {grown:.1f} MB: {sizes}"
    _megabytes, threads, connections = size(worker)
    # Slots, four services, the main thread, the loop, those who write and clean up for it, and a helper for each async
    # job that ran at once.
    assert threads <= 2 * SLOTS + 9
    assert connections <= SLOTS + 8
    assert not Job.objects.exclude(status="completed").exists()


class Hurried:
    """A clock of services whose waits are over at once: a day of rounds takes seconds."""

    def __init__(self) -> None:
        self.rounds = 0
        self.calm = threading.Event()
        """From here on waits are waited for, so that the worker can end as usual."""
        self._ahead = 0.0
        self._guard = threading.Lock()

    def monotonic(self) -> float:
        return time.monotonic() + self._ahead

    def wait(self, event: threading.Event, seconds: float) -> bool:
        if self.calm.is_set():
            return event.wait(seconds)
        with self._guard:
            self.rounds += 1
            self._ahead += seconds
        return event.is_set()


def test_x69_twenty_thousand_polls_with_debug_leave_no_memory_behind(settings: Settings) -> None:
    """The blocks that Python has given out are counted: following each of them would take minutes."""
    settings.DEBUG = True
    clock = Hurried()
    worker = Worker(options(), clock=clock)
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    try:
        eventually(lambda: clock.rounds > WARM, seconds=50)
        before = blocks()
        with Stopwatch() as watch:
            eventually(lambda: clock.rounds > POLLS or watch.seconds > ENOUGH, seconds=50)
        grown = blocks() - before
    finally:
        clock.calm.set()
        worker.stop()
        thread.join(20)
    assert not thread.is_alive()
    assert grown < FIXED + (clock.rounds - WARM) // 10, f"{grown} blocks after {clock.rounds} rounds"


def blocks() -> int:
    gc.collect()
    return sys.getallocatedblocks()


def test_x69_with_debug_no_thread_keeps_its_queries(settings: Settings) -> None:
    """Django keeps up to 9,000 statements per connection, arguments and results with them."""
    settings.DEBUG = True
    longest: dict[str, int] = {}
    opened: list[BaseDatabaseWrapper] = []
    here = threading.get_ident()

    def watch(connection: BaseDatabaseWrapper, **_signal: object) -> None:
        if threading.get_ident() != here:
            opened.append(connection)

    def most() -> int:
        return max(len(connection.queries_log) for connection in opened)

    connection_created.connect(watch, weak=False, dispatch_uid="tests.watch")
    try:
        tiny = timedelta(seconds=0.004)
        quick = options(poll_interval=tiny, idle_poll_interval=tiny, heartbeat=tiny, rescue_interval=tiny)
        with working(quick):
            jobs = [call_and_query.enqueue(20) for _ in range(30)] + [
                call_and_query_async.enqueue(20) for _ in range(30)
            ]
            for job in jobs:
                assert job.result(20) == 20
            # Each round of each service asks at least once, so by now thousands would be kept.
            for _look in range(300):
                longest["most"] = max(longest.get("most", 0), most())
            eventually(lambda: most() < 30)
    finally:
        connection_created.disconnect(dispatch_uid="tests.watch")
    assert opened
    assert longest["most"] < 50
