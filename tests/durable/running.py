"""Running jobs in tests of durable execution: one attempt at a time, in the test's own thread.

A `Runner` does what a worker does with a job (claim, run, store the ending) through the same operations and the
same executor, but when the test says so. What a job does is written in the test: a *script*, a function that the
one durable job `scripted` looks up by its name, so that a test can give a job other code between two attempts.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections

from django_durable_jobs import Backoff, durable_job, faults
from django_durable_jobs.dialects import dialect_of
from django_durable_jobs.dialects.rows import Claimed
from django_durable_jobs.durable.handle import JobHandle
from django_durable_jobs.durable.recorder import Recorder
from django_durable_jobs.models import Checkpoint, Job
from django_durable_jobs.operations.checkpoints import SteadySave
from django_durable_jobs.operations.claim import claim
from django_durable_jobs.operations.finish import Ending, finish
from django_durable_jobs.operations.promote import promote
from django_durable_jobs.operations.rescue import rescue
from django_durable_jobs.operations.wake import wake
from django_durable_jobs.outcomes import Lost, Outcome
from django_durable_jobs.worker import sessions
from django_durable_jobs.worker.executor import Executor
from django_durable_jobs.worker.leases import Leases
from tests.factories import claim_of, make_worker
from tests.waiting import eventually

COMMITS = pytest.mark.django_db(transaction=True, available_apps=["django_durable_jobs", "tests"])
"""Mark of tests with real commits; emptying the tables of these apps alone takes a fraction of emptying all."""

LEASE = timedelta(seconds=20)
NOW = Backoff.none()

SCRIPTS: dict[str, Callable[..., Any]] = {}
"""What `scripted` and `async_scripted` do, by name."""


@durable_job(backoff=NOW, call_backoff=NOW)
def scripted(script: str) -> Any:
    """Run a test's script."""
    return SCRIPTS[script]()


@durable_job(backoff=NOW, call_backoff=NOW)
async def async_scripted(script: str) -> Any:
    """Run a test's script on the event loop."""
    return await SCRIPTS[script]()


PATIENCE = 30
"""Seconds that an attempt may take."""


class Killed(BaseException):
    """Stands for the sudden end of the process: nothing that the attempt would store after it is stored."""


class Runner:
    """A worker that does one thing at a time."""

    def __init__(self) -> None:
        sessions.install()
        self.worker = make_worker(lease=LEASE)
        self.leases = Leases()
        self.steady = SteadySave(LEASE)
        self.recorder = Recorder(self.steady, self.leases.tell)
        self.executor = Executor(self.leases, self.recorder, self.worker.name, steady=self.steady)
        self._thread = ThreadPoolExecutor(1, "runner")

    def enqueue(self, script: Callable[..., Any], **options: Any) -> JobHandle[Any]:
        """Enqueue a job that runs this script; several jobs may share it."""
        name = script.__name__
        SCRIPTS[name] = script
        job = async_scripted if inspect.iscoroutinefunction(script) else scripted
        return job.using(**options).enqueue(name)

    def claim(self, *, rescued: bool = False) -> Claimed:
        """Claim the next job of the default queue."""
        order = claim_of(self.worker.pk, 1, lease=LEASE, rescued=rescued)
        # A thread of the attempt that was killed may still hold the row for a moment: then a claim passes over it.
        (job,) = eventually(lambda: claim(order), what="a lost job to claim") if rescued else claim(order)
        self.leases.add([job])
        return job

    def run(self, job: Claimed) -> Outcome:
        """Run a claimed job in a thread for jobs, so that the test's connections are not the job's."""
        return self._thread.submit(self.run_here, job).result(PATIENCE)

    def forget_connections(self) -> None:
        """Close the connections of the thread for jobs."""
        self._thread.submit(connections.close_all).result(PATIENCE)

    def run_here(self, job: Claimed) -> Outcome:
        """Run a claimed job in this thread."""
        definition = self.executor.definition_of(job)
        if definition is not None and definition.is_async:
            return asyncio.run(self.executor.run_async(job))
        return self.executor.run(job)

    def finish(self, job: Claimed, outcome: Outcome) -> None:
        """Store how an attempt ended, and make what is due pending."""
        self.leases.end([job])
        if not isinstance(outcome, Lost):
            finish([Ending(job, outcome, self.worker.name)])
        promote()

    def promote(self) -> None:
        """Make pending what is due by the database's clock."""
        promote()

    def wake(self, job: JobHandle[Any]) -> None:
        """Wake a waiting job although nothing has come, which must do no harm."""
        assert wake([job.id]) == 1

    def attempt(self, *, rescued: bool = False) -> Outcome:
        """Claim a job, run it, store the ending."""
        job = self.claim(rescued=rescued)
        outcome = self.run(job)
        self.finish(job, outcome)
        return outcome

    def attempt_until_killed(self, point: str, *, at: int = 1, rescued: bool = False) -> None:
        """Run an attempt up to the fault point, as if the process died there; another worker takes the job back."""
        job = self.claim(rescued=rescued)
        with killed_at(point, at=at) as reached:
            self.run(job)
        self.forget_connections()
        assert reached, f"the attempt never came to {point}"
        self.lose(job)

    def lose(self, job: Claimed) -> None:
        """Let the lease of a job end and be taken back."""
        self.leases.end([job])
        dialect = dialect_of("default")
        dialect.clock_offset += LEASE + timedelta(seconds=1)
        # The thread that stores checkpoints may still hold the row for a moment: then the rescue passes over it.
        eventually(lambda: job.id in rescue().returned, what="the rescue of the job")

    def bury(self) -> None:
        """Forget everything that this worker holds, as its process would by dying."""
        self.leases.end(self.leases.jobs())

    def close(self) -> None:
        """Close threads and connections."""
        self.executor.close()
        self.forget_connections()
        self._thread.shutdown()


@contextmanager
def killed_at(point: str, *, at: int = 1) -> Iterator[list[str]]:
    """Raise `Killed` the `at`-th time that this fault point is reached, and at every point after it."""
    reached: list[str] = []
    count = 0

    def hook(where: str) -> None:
        nonlocal count
        count += where == point
        if count >= at:
            reached.append(where)
            raise Killed(where)

    faults.install(hook)
    try:
        yield reached
    finally:
        faults.install(None)


def stored(job: JobHandle[Any]) -> list[tuple[str, str]]:
    """Return key and name of a job's checkpoints; the name without its module and enclosing functions."""
    rows = Checkpoint.objects.filter(job_id=job.id).values_list("key", "name", "error")
    return sorted((key, name.rpartition(".")[2] + ("!" if error else "")) for key, name, error in rows)


def row(job: JobHandle[Any]) -> Job:
    """Read a job."""
    return Job.objects.get(id=job.id)
