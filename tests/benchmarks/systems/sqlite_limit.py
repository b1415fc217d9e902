"""The limit on SQLite (WAL): a hand-written job table through Python's ``sqlite3``. The variant is the batch."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from tests.benchmarks import bodies
from tests.benchmarks.place import Place, module_command
from tests.benchmarks.systems.base import System, timed

TABLE = """
CREATE TABLE job (
    id integer PRIMARY KEY, queue text NOT NULL, status text NOT NULL DEFAULT 'pending', name text NOT NULL,
    arguments text NOT NULL, result text, attempt integer NOT NULL DEFAULT 0, started_at real, finished_at real
);
CREATE INDEX job_pending ON job (queue, id) WHERE status = 'pending';
"""
INSERT = "INSERT INTO job (queue, name, arguments) VALUES ('bench', 'noop', ?)"
NOW = "(julianday('now') - 2440587.5) * 86400.0"
CLAIM = f"""
UPDATE job SET status = 'running', started_at = {NOW}, attempt = attempt + 1
WHERE id IN (SELECT id FROM job WHERE queue = 'bench' AND status = 'pending' ORDER BY id LIMIT ?)
RETURNING id, name, arguments
"""
COMPLETE = f"UPDATE job SET status = 'completed', finished_at = {NOW}, result = ? WHERE id = ?"


class SqliteLimit(System):
    """One connection, WAL, synchronous=NORMAL as our SQLite default is, unless the variant says FULL ("100 FULL")."""

    def connect(self) -> sqlite3.Connection:
        """Open the file with the settings that are compared."""
        connection = sqlite3.connect(unquote(urlsplit(self.place.database).path), isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if 'FULL' in self.variant else 'NORMAL'}")
        return connection

    def install(self) -> None:
        self.connect().executescript(TABLE)

    def enqueue_each(self, values: Sequence[int]) -> float:
        connection = self.connect()
        return timed(lambda: [connection.execute(INSERT, (json.dumps({"n": n}),)) for n in values])

    def enqueue_many(self, values: Sequence[int]) -> float:
        connection = self.connect()

        def send_all() -> None:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(INSERT, [(json.dumps({"n": n}),) for n in values])
            connection.execute("COMMIT")

        return timed(send_all)

    def drain_command(self) -> list[str]:
        return module_command(__name__, self.variant)

    def finish_times(self) -> list[float]:
        rows = self.connect().execute("SELECT finished_at FROM job WHERE status = 'completed'")
        return sorted(float(row[0]) for row in rows)

    def run_until_empty(self) -> None:
        """Claim, run, complete, until nothing is left."""
        connection, batch = self.connect(), int(self.variant.split()[0])
        while claimed := connection.execute(CLAIM, (batch,)).fetchall():
            results = [(json.dumps(getattr(bodies, name)(**json.loads(given))), key) for key, name, given in claimed]
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(COMPLETE, results)
            connection.execute("COMMIT")


if __name__ == "__main__":
    SqliteLimit(Place.current(), sys.argv[1]).run_until_empty()
