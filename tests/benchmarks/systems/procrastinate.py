"""Procrastinate: asyncio on PostgreSQL, with a Django integration.

The variant says whether the task is a coroutine or synchronous.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence

import procrastinate

from tests.benchmarks import bodies
from tests.benchmarks.place import CONCURRENCY, Place, module_command
from tests.benchmarks.systems.base import System, batches, timed

BULK = 10_000


def register(app: procrastinate.App, *, coroutine: bool) -> None:
    """Register every body under its name."""
    for name in bodies.NAMES:
        body = getattr(bodies, name)

        async def run_here(n: int, body: Callable[[int], None] = body) -> None:
            body(n)

        app.task(name=name)(run_here if coroutine else body)


class Procrastinate(System):
    """Procrastinate with its own tables; finished jobs stay, as by default."""

    def client(self) -> procrastinate.App:
        """Return an opened app with the synchronous connector."""
        app = procrastinate.App(connector=procrastinate.SyncPsycopgConnector(conninfo=self.place.database))
        register(app, coroutine=False)
        app.open()
        return app

    def install(self) -> None:
        with self.client() as app:
            app.schema_manager.apply_schema()

    def enqueue_each(self, values: Sequence[int]) -> float:
        with self.client() as app:
            task = app.tasks["noop"]
            return timed(lambda: [task.defer(n=n) for n in values])

    def enqueue_many(self, values: Sequence[int]) -> float:
        with self.client() as app:
            task = app.tasks["noop"]
            return timed(lambda: [task.batch_defer(*({"n": n} for n in batch)) for batch in batches(values, BULK)])

    def sender(self, body: str) -> Callable[[int], object]:
        task = self.client().tasks[body]
        return lambda n: task.defer(n=n)

    def worker_command(self) -> list[str]:
        app = f"{__name__}.app"
        return module_command("procrastinate", f"--app={app}", "worker", f"--concurrency={CONCURRENCY}")

    def drain_command(self) -> list[str]:
        return [*self.worker_command(), "--one-shot"]

    def environ(self) -> dict[str, str]:
        return {"BENCH_PROCRASTINATE": self.variant}

    def finish_times(self) -> list[float]:
        return self.times_from("SELECT at FROM procrastinate_events WHERE type = 'succeeded'")


if "BENCH_PROCRASTINATE" in os.environ:
    logging.getLogger("procrastinate").setLevel(logging.WARNING)
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=Place.current().database))
    register(app, coroutine=os.environ["BENCH_PROCRASTINATE"] == "async")
