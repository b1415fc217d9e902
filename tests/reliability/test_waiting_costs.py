"""Jobs that wait are rows and nothing else: ten thousand of them cost a worker neither memory nor threads (A13)."""

from __future__ import annotations

import psutil
import pytest

from django_durable_jobs.dialects import Dialect
from django_durable_jobs.models import Job
from tests.reliability.harness import RunJobs, Stopwatch, Workers
from tests.reliability.outages import has_sessions, sessions
from tests.reliability.process_jobs import sleep_long
from tests.waiting import eventually

pytestmark = pytest.mark.django_db(transaction=True)

MEGABYTE = 1024**2
FIRST, WAVE, JOBS, FEWEST = 500, 500, 10_000, 2_000
ENOUGH = 8.0
"""Seconds after which fewer jobs will do, but not fewer than FEWEST; PostgreSQL gets all of them."""


def parked() -> int:
    return Job.objects.filter(status="waiting").count()


def park(count: int) -> None:
    """Let so many jobs more wait."""
    expected = parked() + count
    sleep_long.enqueue_many([(n,) for n in range(count)])
    eventually(lambda: parked() == expected, seconds=60)


def size(worker: RunJobs) -> tuple[float, int, int]:
    """Return megabytes, threads and connections of a worker process."""
    process = psutil.Process(worker.pid)
    return process.memory_info().rss / MEGABYTE, process.num_threads(), len(sessions()) if has_sessions() else 0


@pytest.mark.timeout(120)
def test_ten_thousand_waiting_jobs_hold_nothing_of_the_worker(workers: Workers, dialect: Dialect) -> None:
    fewest = JOBS if dialect.has_notifications else FEWEST
    worker = workers.start("--queue", "default=4", settings={"LEASE": 30.0})
    park(FIRST)
    before = size(worker)
    with Stopwatch() as watch:
        while Job.objects.count() < JOBS and (watch.seconds < ENOUGH or parked() < fewest):
            park(WAVE)
    after = size(worker)
    assert parked() >= fewest
    assert after[0] - before[0] < 8, f"grew from {before[0]:.1f} to {after[0]:.1f} MB"
    assert after[1:] == before[1:]
