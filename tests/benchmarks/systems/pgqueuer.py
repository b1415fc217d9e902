"""PgQueuer: asyncio on PostgreSQL. The variant says whether the body is a coroutine or runs in a thread.

Driver asyncpg, and the batch with the best median of three short rounds in turn among 10 (its default), 100 and 500.
The machine was busy, and in a thread 100 and 500 lay close together: try again before leaning on a small difference.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import asyncpg
import psycopg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver, SyncPsycopgDriver
from pgqueuer.queries import Queries, SyncQueries
from pgqueuer.types import QueueExecutionMode

from tests.benchmarks import bodies
from tests.benchmarks.place import Place, module_command
from tests.benchmarks.systems.base import System, batches, timed

if TYPE_CHECKING:
    from pgqueuer.models import Job

BATCH = {"async": 500, "thread": 100}
BULK = 10_000


class Pgqueuer(System):
    """PgQueuer with its own queue table and log table."""

    def install(self) -> None:
        async def create() -> None:
            connection = await asyncpg.connect(self.place.database)
            await Queries(AsyncpgDriver(connection)).install()
            await connection.close()

        asyncio.run(create())

    def queries(self) -> SyncQueries:
        """Return its synchronous door, as a Django project would use it."""
        return SyncQueries(SyncPsycopgDriver(psycopg.connect(self.place.database, autocommit=True)))

    def enqueue_each(self, values: Sequence[int]) -> float:
        send = self.sender("noop")
        return timed(lambda: [send(n) for n in values])

    def enqueue_many(self, values: Sequence[int]) -> float:
        queries = self.queries()

        def send_all() -> None:
            for batch in batches(values, BULK):
                payloads: list[bytes | None] = [json.dumps({"n": n}).encode() for n in batch]
                queries.enqueue(["noop"] * len(batch), payloads, [0] * len(batch))

        return timed(send_all)

    def sender(self, body: str) -> Callable[[int], object]:
        queries = self.queries()
        return lambda n: queries.enqueue(body, json.dumps({"n": n}).encode())

    def drain_command(self) -> list[str]:
        return module_command(__name__, "drain", self.variant)

    def worker_command(self) -> list[str]:
        return module_command(__name__, "continuous", self.variant)

    def finish_times(self) -> list[float]:
        return self.times_from("SELECT created FROM pgqueuer_log WHERE status = 'successful'")


def register(queuer: PgQueuer, name: str, *, in_thread: bool) -> None:
    """Register one body under its name."""
    body = getattr(bodies, name)

    async def run_here(job: Job) -> None:
        body(**json.loads(job.payload or b"{}"))

    async def run_in_thread(job: Job) -> None:
        await asyncio.to_thread(body, **json.loads(job.payload or b"{}"))

    queuer.entrypoint(name)(run_in_thread if in_thread else run_here)


async def work(place: Place, mode: str, variant: str) -> None:
    """Run a worker in the given mode."""
    connection = await asyncpg.connect(place.database)
    queuer = PgQueuer.from_asyncpg_connection(connection)
    for name in bodies.NAMES:
        register(queuer, name, in_thread=variant == "thread")
    await queuer.run(batch_size=BATCH[variant], mode=QueueExecutionMode(mode))


if __name__ == "__main__":
    uvloop.run(work(Place.current(), *sys.argv[1:3]))
