"""Outages made to order, for tests that run a worker in threads of their own process.

A lost answer: the database does what it was asked, then the connection breaks, so nobody knows that it did. A lost
request breaks it before. A cut is the real thing: the server ends connections while statements are on their way.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final
from uuid import uuid4

import psycopg
import pytest
from django.db import DatabaseError, OperationalError, connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from django_durable_jobs.dialects import Dialect
from django_durable_jobs.worker.options import WorkerOptions
from django_durable_jobs.worker.worker import Worker

DOORS: Final = ("claim", "complete", "complete_and_claim", "in_own_transaction", "renew", "save_checkpoints")
"""What a worker asks a dialect to do on its hot path."""

SESSION: Final = {"postgresql": "pg_backend_pid()", "mysql": "connection_id()"}
"""What a server calls a connection, by Django's name for the driver; a database in a file has none."""
OTHER_SESSIONS: Final = {
    "postgresql": "SELECT pid, query FROM pg_stat_activity WHERE datname = current_database() AND pid <> {own}",
    "mysql": "SELECT id, coalesce(info, '') FROM information_schema.processlist WHERE db = database() AND id <> {own}",
}
END_SESSION: Final = {"postgresql": "SELECT pg_terminate_backend(%s)", "mysql": "KILL %s"}

QUICK: Final = timedelta(seconds=0.05)


def broken(dialect: Dialect) -> DatabaseError:
    """Return the error with which this database's driver says that the connection broke."""
    for error in (OperationalError(2013, "Lost connection to server during query"), OperationalError("disk I/O error")):
        if dialect.is_disconnect(error):
            return error
    raise AssertionError("no error counts as a disconnect")


def conflict(dialect: Dialect) -> DatabaseError:
    """Return the error with which this database says that another transaction was in the way."""
    serialization = OperationalError("could not serialize access")
    serialization.__cause__ = psycopg.errors.SerializationFailure()
    for error in (OperationalError(1213, "Deadlock found"), OperationalError("database is locked"), serialization):
        if dialect.is_conflict(error):
            return error
    raise AssertionError("no error counts as a conflict")


@dataclass(slots=True)
class Losses:
    """How often each door was used, and how often its request or answer was lost."""

    used: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def note(self, door: str) -> int:
        """Count a use and return which one it is, from 1."""
        with self._guard:
            self.used[door] += 1
            return self.used[door]

    def loses(self, door: str) -> None:
        """Count a loss."""
        with self._guard:
            self.lost[door] += 1


def lose_answers(
    patch: pytest.MonkeyPatch,
    dialect: Dialect,
    doors: tuple[str, ...],
    when: Callable[[str, int], str | None] = lambda _door, nth: "answer" if nth == 1 else None,
) -> Losses:
    """Break the connection in some uses of these methods of a dialect.

    ``when(door, nth use)`` answers with "answer" (it happens, nobody learns of it), "request" (it does not happen),
    "conflict" (another transaction was in the way) or ``None``. Default: the first answer of each door is lost.
    """
    losses = Losses()

    def leaky(door: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def use(*args: Any, **kwargs: Any) -> Any:
            fate = when(door, losses.note(door))
            if fate in {"request", "conflict"}:
                losses.loses(door)
                raise broken(dialect) if fate == "request" else conflict(dialect)
            result = real(*args, **kwargs)
            if fate == "answer":
                losses.loses(door)
                raise broken(dialect)
            return result

        return use

    for door in doors:
        patch.setattr(dialect, door, leaky(door, getattr(dialect, door)), raising=True)
    return losses


def has_sessions() -> bool:
    """Answer whether a server keeps the connections of the jobs' database, and could end them."""
    return connection.vendor in SESSION


def session() -> int:
    """Return the server's number of this thread's connection."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {SESSION[connection.vendor]}")
        return int(cursor.fetchone()[0])


def sessions(query: str = "") -> list[int]:
    """Return the numbers of the others' connections, those whose present or last query begins so."""
    vendor = connection.vendor
    with connection.cursor() as cursor:
        cursor.execute(OTHER_SESSIONS[vendor].format(own=SESSION[vendor]))
        return [int(number) for number, text in cursor.fetchall() if text.startswith(query)]


def end_sessions(numbers: Iterable[int]) -> None:
    """Have the server end connections, as it does with those of a user who is thrown out."""
    with connection.cursor() as cursor:
        for number in numbers:
            with suppress(DatabaseError):  # it ended by itself meanwhile
                cursor.execute(END_SESSION[connection.vendor], [number])


@contextmanager
def lose_reads(dialect: Dialect, table: str, times: int) -> Iterator[list[str]]:
    """Break the connection at the next reads of a table by threads that connect now; the list shows the reads."""
    lost: list[str] = []

    def wrap(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        if len(lost) < times and sql.startswith("SELECT") and table in sql:
            lost.append(sql)
            raise broken(dialect)
        return execute(sql, *rest)

    def watch(connection: BaseDatabaseWrapper, **_signal: Any) -> None:
        connection.execute_wrappers.append(wrap)

    connection_created.connect(watch, weak=False, dispatch_uid="tests.lose_reads")
    try:
        yield lost
    finally:
        connection_created.disconnect(dispatch_uid="tests.lose_reads")


def options(**given: Any) -> WorkerOptions:
    """Return the options of a quick worker for the default queue."""
    usual: dict[str, Any] = {
        "name": f"worker-{uuid4().hex[:8]}",
        "queues": {"default": 4},
        "poll_interval": QUICK,
        "idle_poll_interval": QUICK,
        "rescue_interval": timedelta(seconds=0.2),
        "grace": timedelta(seconds=5),
    }
    return WorkerOptions(**{**usual, **given})


class Running:
    """Workers in threads of this process; an error that ends one is raised by ``join``."""

    def __init__(self, given: tuple[WorkerOptions, ...]) -> None:
        """Start one worker for each of these options."""
        self.workers = [Worker(one) for one in given]
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=[worker], daemon=True) for worker in self.workers]
        for thread in self._threads:
            thread.start()

    def _run(self, worker: Worker) -> None:
        try:
            worker.run()
        except BaseException as error:  # noqa: BLE001 -- raised in the test's own thread
            self._errors.append(error)
        finally:
            connections.close_all()

    @property
    def ended(self) -> bool:
        """Whether a worker has ended."""
        return not all(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """Ask all to stop."""
        for worker in self.workers:
            worker.stop()

    def join(self, seconds: float) -> None:
        """Wait for the end of all."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if self._errors:
            raise self._errors[0]
        assert not any(thread.is_alive() for thread in self._threads), f"a worker did not end within {seconds:g} s"


@contextmanager
def working(*given: WorkerOptions, seconds: float = 20) -> Iterator[Running]:
    """Run workers while the block runs, then stop them."""
    running = Running(given or (options(),))
    try:
        yield running
    finally:
        running.stop()
    running.join(seconds)


def drain(*given: WorkerOptions, seconds: float = 30) -> None:
    """Run workers until nothing is pending or running."""
    running = Running(tuple(replace(one, drain=True) for one in given or (options(),)))
    try:
        running.join(seconds)
    finally:
        running.stop()
