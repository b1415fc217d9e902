"""One loop for all services: error pause, connection hygiene and wake-ups exist once, here.

A service is an object with ``run_once() -> float``: it does one round and returns the seconds until the next.
It never sleeps and never loops until empty.
"""

from __future__ import annotations

import logging
import math
import random
import threading
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from django.db import connections, reset_queries
from django.db.backends.base.base import BaseDatabaseWrapper

from ..clock import SYSTEM, Clock
from ..dialects import dialect_of
from ..operations.database import alias, dialect
from . import sessions

logger = logging.getLogger(__name__)

LONGEST_PAUSE: Final = 5.0
"""Seconds between two tries at most while the database is away."""


class Service(Protocol):
    """A chore of the worker."""

    name: str

    def run_once(self) -> float:
        """Do one round; return the seconds until the next one is wanted."""
        ...


class ServiceThread:
    """Runs a service in a thread of its own until it is stopped."""

    def __init__(self, service: Service, *, clock: Clock = SYSTEM) -> None:
        """Take the service; ``start`` makes the thread."""
        self.service = service
        self._clock = clock
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._rounds = 0
        self._in_round = False
        self._connection: BaseDatabaseWrapper | None = None
        self._thread = threading.Thread(target=self._run, name=f"durable-jobs-{service.name}", daemon=True)

    def start(self) -> None:
        """Begin the rounds."""
        self._thread.start()

    def wake(self) -> None:
        """End the present wait; also from signal handlers and other threads."""
        if not self._wake.is_set():
            self._wake.set()

    def stop(self) -> None:
        """Ask the loop to end after the present round."""
        self._stopping.set()
        self._wake.set()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the thread's end."""
        if self._thread.is_alive():
            self._thread.join(timeout)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def in_round(self) -> int | None:
        """The number of the round that is on its way, from 1; ``None`` between two rounds."""
        number = self._rounds
        return number if self._in_round else None

    def cut(self) -> None:
        """Break the thread's database connection, so that a statement which never ends fails; from another thread."""
        if self._connection is not None:
            dialect_of(self._connection.alias).cut(self._connection)

    def _run(self) -> None:
        sessions.mark_thread_as_ours()
        self._connection = connections[alias()]
        failures = 0
        try:
            while not self._stopping.is_set():
                self._wake.clear()
                self._rounds += 1
                self._in_round = True
                try:
                    pause = self.service.run_once()
                    failures = 0
                except Exception as error:  # noqa: BLE001 -- a service never ends by an error
                    failures += 1
                    pause = self._after(error, failures)
                self._in_round = False
                reset_queries()
                if pause > 0:
                    self._clock.wait(self._wake, pause)
        finally:
            connections.close_all()

    def _after(self, error: Exception, failures: int) -> float:
        """Log, drop a broken connection, and say how long to wait: growing, jittered, at most 5 s."""
        pause: float = min(LONGEST_PAUSE, 0.05 * 2 ** min(failures, 10)) * random.uniform(0.5, 1)  # noqa: S311 -- no secret
        if dialect().is_disconnect(error):
            level = logging.WARNING if failures in (1, 10, 100) else logging.DEBUG
            logger.log(level, "%s: the database is away (%s); trying again in %.1f s", self.service.name, error, pause)
        elif dialect().is_conflict(error):
            logger.info("%s: another transaction was in the way; trying again in %.1f s", self.service.name, pause)
        else:
            logger.error("%s failed; trying again in %.1f s", self.service.name, pause, exc_info=error)
        # Whatever it was, a new session has neither a broken transaction nor a plan from before a migration.
        for connection in connections.all(initialized_only=True):
            connection.close()
        return pause


def within(seconds: float, work: Callable[[], object], what: str) -> None:
    """Do something at the end of a process that must not keep it from ending; a failure or a delay is logged."""

    def run() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 -- whatever it was, the end is near
            logger.warning("%s failed: %s", what, error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run, name="durable-jobs-end", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        logger.warning("%s was not done within %.0f s", what, seconds)


class Rota:
    """Several services that share one thread and one connection, each at its own pace."""

    def __init__(self, name: str, services: Sequence[Service], *, clock: Clock = SYSTEM) -> None:
        """Take the services in the order in which they run when due together."""
        self.name = name
        self._services = services
        self._clock = clock
        self._due = dict.fromkeys(services, clock.monotonic())
        self._guard = threading.Lock()

    def hasten(self, service: Service, seconds: float = 0.0) -> None:
        """Make a service due in so many seconds, unless it is sooner; follow with a wake-up of the thread."""
        with self._guard:
            self._due[service] = min(self._due[service], self._clock.monotonic() + seconds)

    def run_once(self) -> float:
        """Run what is due; an error of one is raised after the others had their turn."""
        problem: Exception | None = None
        for service in self._services:
            with self._guard:
                if self._due[service] > self._clock.monotonic():
                    continue
                # Before the round: what is hastened while it runs must not be lost.
                self._due[service] = math.inf
            try:
                pause = service.run_once()
            except Exception as error:  # noqa: BLE001 -- raised below
                problem, pause = error, 1.0
            self.hasten(service, pause)
        if problem is not None:
            raise problem
        return max(0.0, min(self._due.values()) - self._clock.monotonic())
