"""The limit: the least that a hand-written job table on the same PostgreSQL server can do, in plain psycopg 3.

Two statements, claim and complete, each in its own transaction, on the narrowest honest job table (bigint ids, one
partial index). The variant is the batch size.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import psycopg

from tests.benchmarks import bodies
from tests.benchmarks.place import QUEUE, Place, mark, module_command
from tests.benchmarks.systems.base import System, batches, timed

TABLE = """
CREATE TABLE job (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue text NOT NULL, rank smallint NOT NULL DEFAULT 0, status text NOT NULL DEFAULT 'pending',
    name text NOT NULL, arguments jsonb NOT NULL, result jsonb, attempt smallint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(), started_at timestamptz, finished_at timestamptz
) WITH (fillfactor = 70);
CREATE INDEX job_pending ON job (queue, rank, id) WHERE status = 'pending';
CREATE TABLE step (job bigint NOT NULL, number int NOT NULL, result jsonb NOT NULL, PRIMARY KEY (job, number));
"""
INSERT = "INSERT INTO job (queue, name, arguments) VALUES (%s, %s, %s)"
COPY = "COPY job (queue, name, arguments) FROM STDIN"
CLAIM = """
WITH picked AS (
    SELECT id FROM job WHERE queue = %s AND status = 'pending' ORDER BY rank, id LIMIT %s FOR UPDATE SKIP LOCKED
)
UPDATE job SET status = 'running', started_at = now(), attempt = attempt + 1
FROM picked WHERE job.id = picked.id RETURNING job.id, job.name, job.arguments
"""
COMPLETE = """
UPDATE job SET status = 'completed', finished_at = now(), result = done.result
FROM unnest(%s::bigint[], %s::jsonb[]) AS done (id, result)
WHERE job.id = done.id AND job.status = 'running'
"""
STEP = "INSERT INTO step (job, number, result) VALUES (%s, %s, %s)"
COPY_BATCH = 1_000


class Limit(System):
    """Plain psycopg on one connection."""

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Open a connection on which each statement commits."""
        return psycopg.connect(self.place.database, autocommit=True)

    def install(self) -> None:
        with self.connect() as connection:
            connection.execute(TABLE)

    def enqueue_each(self, values: Sequence[int]) -> float:
        with self.connect() as connection:
            return timed(lambda: [connection.execute(INSERT, (QUEUE, "noop", json.dumps({"n": n}))) for n in values])

    def enqueue_many(self, values: Sequence[int]) -> float:
        def copy_all() -> None:
            for batch in batches(values, COPY_BATCH):
                with connection.cursor().copy(COPY) as copy:
                    for n in batch:
                        copy.write_row((QUEUE, "noop", json.dumps({"n": n})))

        with self.connect() as connection:
            return timed(copy_all)

    def sender(self, body: str) -> Callable[[int], object]:
        connection = self.connect()

        def send(n: int) -> None:
            with connection.transaction():
                connection.execute(INSERT, (QUEUE, body, json.dumps({"n": n})))
                connection.execute("NOTIFY job")

        return send

    def drain_command(self) -> list[str]:
        return module_command(__name__, "drain", self.variant)

    def worker_command(self) -> list[str]:
        return module_command(__name__, "listen", "1")

    def finish_times(self) -> list[float]:
        return self.times_from("SELECT finished_at FROM job WHERE status = 'completed'")

    def run_until_empty(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        """Claim, run, complete, until nothing is left."""
        batch = int(self.variant)
        while claimed := connection.execute(CLAIM, (QUEUE, batch)).fetchall():
            results = [json.dumps(getattr(bodies, name)(**arguments)) for _, name, arguments in claimed]
            connection.execute(COMPLETE, ([row[0] for row in claimed], results))

    def work(self) -> None:
        """Run until empty and again at each notification."""
        with self.connect() as listener, self.connect() as connection:
            listener.execute("LISTEN job")
            self.run_until_empty(connection)
            for _ in listener.notifies():
                self.run_until_empty(connection)


class FamilyLimit(Limit):
    """Plain rows instead of children: all by one COPY, then claim and complete, and one row for the fan-in."""

    def send_family(self, children: int) -> None:
        self.children = children

    def drain(self, processes: int, seconds: float) -> None:
        del processes, seconds
        with self.connect() as connection:
            started = time.time_ns()
            with connection.cursor().copy(COPY) as copy:
                for n in range(self.children):
                    copy.write_row((QUEUE, "noop", json.dumps({"n": n})))
            self.run_until_empty(connection)
            results = connection.execute("SELECT id, result FROM job ORDER BY id").fetchall()
            connection.execute(STEP, (0, 0, json.dumps(results)))
            mark(started, time.time_ns(), self.children)


class StepLimit(Limit):
    """Single-row commits, one connection for each workflow: no durable step can be cheaper."""

    def send_steps(self, workflows: int, calls: int) -> None:
        self.plan = (workflows, calls)

    def drain(self, processes: int, seconds: float) -> None:
        del processes
        workflows, calls = self.plan
        threads = [threading.Thread(target=self.run_steps, args=(number, calls)) for number in range(workflows)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(seconds)

    def run_steps(self, job: int, calls: int) -> None:
        """Commit so many rows."""
        with self.connect() as connection:
            started = time.time_ns()
            for number in range(calls):
                connection.execute(STEP, (job, number, json.dumps(bodies.step(number))))
            mark(started, time.time_ns(), calls)


if __name__ == "__main__":
    limit = Limit(Place.current(), sys.argv[2])
    if sys.argv[1] == "listen":
        limit.work()
    with limit.connect() as only:
        limit.run_until_empty(only)
