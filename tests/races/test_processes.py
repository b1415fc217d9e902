"""Several real worker processes on one queue (X21, X31): each job to exactly one of them."""

from __future__ import annotations

from collections import Counter

import pytest

from django_durable_jobs.dialects import Dialect
from django_durable_jobs.models import Attempt, Checkpoint, Job
from tests.databases import URL_VARIABLE, database_url
from tests.reliability.harness import RunJobs, Workers
from tests.reliability.process_jobs import remember, steps
from tests.waiting import eventually

JOBS = 300


def unfinished() -> int:
    """How many jobs have not ended."""
    return Job.objects.exclude(status__in=["completed", "failed"]).count()


def each_ran_once(workers: Workers) -> None:
    """Check rows and ledger."""
    eventually(lambda: not unfinished(), seconds=45)
    assert set(Job.objects.values_list("status", "attempt")) == {("completed", 1)}
    assert not Attempt.objects.exists()
    assert [line for line, times in Counter(workers.lines("job")).items() if times > 1] == []
    assert len(workers.lines("job")) == JOBS


def nothing_went_wrong(*processes: RunJobs) -> None:
    """Check that all still run and have written no error."""
    assert [process.process.poll() for process in processes] == [None] * len(processes)
    assert not [process.output for process in processes if "Traceback" in process.output]


@pytest.mark.timeout(120)
def test_x21_three_processes_share_one_queue(workers: Workers) -> None:
    three = [workers.start("--queue", "default=2", settings={"LEASE": 30.0}) for _ in range(3)]
    for number in range(0, JOBS, 50):
        remember.enqueue_many([(workers.ledger, f"job {n}") for n in range(number, number + 50)])
    each_ran_once(workers)
    nothing_went_wrong(*three)


@pytest.mark.timeout(120)
def test_x31_processes_whose_transactions_begin_without_the_lock_never_show_that_the_database_was_locked(
    workers: Workers, dialect: Dialect
) -> None:
    """The project has not set `transaction_mode`: its own transactions are deferred, ours are not."""
    if dialect.has_parallel_writers:
        pytest.skip("has_parallel_writers: only SQLite has one lock for all writers")
    deferred = {URL_VARIABLE: f"{database_url()}?transaction_mode=DEFERRED"}
    two = [workers.start("--queue", "default=2", settings={"LEASE": 30.0}, environment=deferred) for _ in range(2)]
    for number in range(0, JOBS, 3):
        steps.enqueue(workers.ledger, [f"job {n}" for n in range(number, number + 3)])
    each_ran_once(workers)
    nothing_went_wrong(*two)
    assert Checkpoint.objects.count() == JOBS
    assert not [process.output for process in two if "locked" in process.output]
