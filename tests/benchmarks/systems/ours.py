"""Ours, as a user has it: a Django project, ``.enqueue()``, ``manage.py runjobs``. The variant is the job's kind."""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from tests.benchmarks.place import CONCURRENCY, QUEUE, module_command
from tests.benchmarks.systems.base import System, batches, timed, wait_all

BULK = 10_000
PER_SECOND, AT_ONCE, WARM = 1000, 10, 10
"""A rate, how many an enqueue brings at once, and how many are there before."""
SETTINGS = "tests.benchmarks.settings"


class Ours(System):
    """django_durable_jobs on PostgreSQL or SQLite; variant "async" uses ``async def`` no-op jobs."""

    def environ(self) -> dict[str, str]:
        return {"DJANGO_SETTINGS_MODULE": SETTINGS}

    def install(self) -> None:
        import django
        from django.core.management import call_command

        os.environ.update(self.environ())
        django.setup()
        call_command("migrate", verbosity=0)

    def job(self, body: str) -> Any:
        """Return the decorated job of a body."""
        name = "noop_async" if body == "noop" and self.variant == "async" else body
        return getattr(importlib.import_module("tests.benchmarks.jobs"), name)

    def enqueue_each(self, values: Sequence[int]) -> float:
        job = self.job("noop")
        self.connect()
        return timed(lambda: [job.enqueue(n) for n in values])

    def enqueue_many(self, values: Sequence[int]) -> float:
        job = self.job("noop")
        self.connect()
        return timed(lambda: [job.enqueue_many([(n,) for n in batch]) for batch in batches(values, BULK)])

    def sender(self, body: str) -> Callable[[int], object]:
        job = self.job(body)
        self.connect()
        return job.enqueue  # type: ignore[no-any-return]

    def connect(self) -> None:
        """Open Django's connection, so that opening it is not measured."""
        from django.db import connection

        connection.ensure_connection()

    def worker_command(self) -> list[str]:
        return module_command("django", "runjobs", f"--queue={QUEUE}={CONCURRENCY}")

    def drain_command(self) -> list[str]:
        return [*self.worker_command(), "--drain"]

    def drain(self, processes: int, seconds: float) -> None:
        """Run one ``runjobs``, which starts further processes itself."""
        command = self.drain_command()
        if processes > 1:
            command.append(f"--processes={processes}")
        wait_all([self.start(command)], seconds)

    def finish_times(self) -> list[float]:
        return sorted(at.timestamp() for at in self.finished().values_list("finished_at", flat=True))

    def count_finished(self) -> int:
        return int(self.finished().count())

    def finished(self) -> Any:
        """Return the completed jobs."""
        from django_durable_jobs.models import Job

        return Job.objects.filter(status="completed")

    def throttle(self, n: int) -> Callable[[], int]:
        """Limit the queue to the rate and fill it (variant "limited"), or enqueue at the rate ("paced")."""
        from django_durable_jobs import limit_queue

        job = self.job("noop")
        job.enqueue_many([(number,) for number in range(WARM)])
        if self.variant.startswith("limited"):
            limit_queue(QUEUE, rate=PER_SECOND, burst=PER_SECOND // 10 if self.variant.endswith("smoothly") else None)
            self.enqueue_many(range(n - WARM))
            return lambda: 0

        def feed() -> int:
            begin = time.monotonic()
            for number, batch in enumerate(batches(range(n - WARM), AT_ONCE)):
                time.sleep(max(0.0, begin + number * AT_ONCE / PER_SECOND - time.monotonic()))
                job.enqueue_many([(one,) for one in batch])
            return (n - WARM) // AT_ONCE

        return feed

    def begin_times(self) -> list[float]:
        return sorted(at.timestamp() for at in self.finished().values_list("started_at", flat=True))

    def send_steps(self, workflows: int, calls: int) -> None:
        job = self.job("steps")
        for _ in range(workflows):
            job.enqueue(calls)

    def send_family(self, children: int) -> None:
        self.job("family").enqueue(children)


class BareDjango(Ours):
    """A process that has set up the same Django project and does nothing: the floor of an idle worker."""

    def worker_command(self) -> list[str]:
        connect = "django.setup(); connection.ensure_connection(); time.sleep(600)"
        return [sys.executable, "-c", f"import django, time; from django.db import connection; {connect}"]
