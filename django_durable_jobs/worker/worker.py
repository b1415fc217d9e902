"""One worker process: the only place that knows all services and puts them together."""

from __future__ import annotations

import logging
import os
import socket
import threading
from datetime import timedelta
from typing import Final

from django.db import connections

from ..clock import SYSTEM, Clock
from ..conf import get_settings
from ..durable.recorder import Recorder
from ..errors import WorkerNameTaken
from ..operations.checkpoints import SteadySave
from ..operations.database import dialect
from ..operations.queues import queue_names
from ..operations.workers import register, stopped
from . import sessions
from .dispatcher import Dispatcher
from .executor import Executor
from .heartbeat import Heartbeat
from .leases import Leases
from .listener import Listener
from .options import WorkerOptions
from .promoter import Promoter
from .pruner import Pruner
from .quarantine import Quarantine
from .queues import QueueWatch
from .rescuer import Rescuer
from .service import Rota, Service, ServiceThread

logger = logging.getLogger(__name__)

WAIT_FOR_DATABASE: Final = 300.0
"""Seconds that a starting worker waits for the database before it gives up."""


class Worker:
    """A worker: ``run`` returns when it was stopped, or drained."""

    def __init__(self, options: WorkerOptions, *, clock: Clock = SYSTEM) -> None:
        """Take the options; nothing happens before ``run``."""
        self._options = options
        self._clock = clock
        self._stop = threading.Event()
        self._at_once = threading.Event()

    def stop(self) -> None:
        """Ask for a clean stop; a second time: at once. Safe in a signal handler."""
        if self._stop.is_set():
            self._at_once.set()
        self._stop.set()

    def run(self) -> None:
        """Work until stopped.

        Raises ``WorkerNameTaken`` when a live worker has this id, and the database's error when it could not be
        reached for five minutes.
        """
        sessions.install()
        sessions.mark_thread_as_ours()
        worker_id = self._register()
        if worker_id is None:
            return
        leases = Leases(self._clock)
        recorder = Recorder(SteadySave(self._options.lease, clock=self._clock))
        executor = Executor(leases, recorder, self._options.name)
        dispatcher = Dispatcher(self._options, worker_id, leases, executor, clock=self._clock)
        threads, quarantine = self._compose(worker_id, leases, dispatcher)
        connections.close_all()  # the main thread only waits
        logger.info(
            "Worker %s serves %s", self._options.name, ", ".join(dispatcher.queues) or "every queue", extra=self._fields()
        )
        for thread in threads:
            thread.start()
        try:
            self._wait(dispatcher)
        finally:
            self._shut_down(worker_id, dispatcher, threads, quarantine)

    # Putting together ---------------------------------------------------------------------------------------

    def _compose(
        self, worker_id: int, leases: Leases, dispatcher: Dispatcher
    ) -> tuple[list[ServiceThread], Quarantine | None]:
        options = self._options
        main = ServiceThread(dispatcher, clock=self._clock)
        dispatcher.wake = main.wake
        beat = ServiceThread(Heartbeat(options, worker_id, leases, self.stop, clock=self._clock), clock=self._clock)
        threads = [main, beat]
        if options.alone:
            return threads, None
        quarantine = Quarantine(options, lambda: dispatcher.queues)
        watch: QueueWatch | None = None
        promoter = Promoter(options, dispatcher.look_now, lambda: dispatcher.listening)

        def rescued() -> None:
            rota.hasten(quarantine)
            dispatcher.look_now()

        chores: list[Service] = [
            promoter,
            Rescuer(options, rescued),
            quarantine,
            Pruner(),
        ]
        if options.queues is None:
            watch = QueueWatch(options, dispatcher.serve)
            chores.insert(0, watch)
        rota = Rota("chores", chores, clock=self._clock)
        housekeeping = ServiceThread(rota, clock=self._clock)
        threads.append(housekeeping)

        def due_later(seconds: float) -> None:
            rota.hasten(promoter, seconds)
            housekeeping.wake()

        dispatcher.due_later = due_later
        if dialect().has_notifications and get_settings().notify:

            def heard(payload: str) -> None:
                dispatcher.look_now()
                if not payload:
                    # A time to wait for has changed, or listening has only begun.
                    due_later(0.0)
                elif watch is not None and payload not in dispatcher.queues:
                    rota.hasten(watch)
                    housekeeping.wake()

            def listening(works: bool) -> None:  # noqa: FBT001 -- a callback
                dispatcher.listening = works

            threads.append(ServiceThread(Listener(heard, listening), clock=self._clock))
        return threads, quarantine

    def _register(self) -> int | None:
        """Add this worker's row, waiting for a database that is not up yet; ``None`` when stopped meanwhile."""
        options = self._options
        began, pause, tried_for = self._clock.monotonic(), 0.1, timedelta(0)
        while not self._stop.is_set():
            try:
                queues = options.queues or dict.fromkeys(queue_names(), options.concurrency)
                return register(
                    options.name,
                    host=socket.gethostname(),
                    pid=os.getpid(),
                    queues=queues,
                    lease=options.lease,
                    tried_for=tried_for,
                )
            except WorkerNameTaken:
                raise
            except Exception as error:
                connections.close_all()
                waited = self._clock.monotonic() - began
                passing = dialect().is_disconnect(error) or dialect().is_conflict(error)
                if not passing or waited > WAIT_FOR_DATABASE:
                    raise
                logger.warning("The database cannot be reached (%s); trying again in %.1f s", error, pause)
            self._clock.wait(self._stop, pause)
            pause = min(pause * 2, 5.0)
            # A second more than it took: the two clocks need not tick alike.
            tried_for = timedelta(seconds=self._clock.monotonic() - began + 1)
        return None

    # Ending -------------------------------------------------------------------------------------------------

    def _wait(self, dispatcher: Dispatcher) -> None:
        while not self._stop.is_set() and not dispatcher.drained.is_set():
            # Short waits: a signal handler runs only when the main thread does.
            self._clock.wait(self._stop, 0.1)

    def _shut_down(
        self, worker_id: int, dispatcher: Dispatcher, threads: list[ServiceThread], quarantine: Quarantine | None
    ) -> None:
        dispatcher.stop_claiming()
        for thread in threads[2:]:
            thread.stop()
        grace = self._options.grace.total_seconds()
        deadline = self._clock.monotonic() + grace
        while not dispatcher.drained.is_set() and not self._at_once.is_set() and self._clock.monotonic() < deadline:
            self._clock.wait(dispatcher.drained, min(0.05, max(0.0, deadline - self._clock.monotonic())))
        if not dispatcher.drained.is_set():
            count = dispatcher.abandon_running()
            logger.warning("%d jobs still ran and go back to their queues", count, extra=self._fields())
            self._clock.wait(dispatcher.drained, 2.0)
        if quarantine is not None:
            quarantine.close()
        for thread in threads:
            thread.stop()
        dispatcher.threads.close()
        dispatcher.loop.close()
        for thread in threads:
            thread.join(1.0)
        try:
            stopped(worker_id)
        except Exception as error:  # noqa: BLE001 -- the row then ends with its lease
            logger.warning("The end of this worker could not be stored: %s", error)
        connections.close_all()
        logger.info("Worker %s has stopped", self._options.name, extra=self._fields())

    def _fields(self) -> dict[str, object]:
        return {"worker": self._options.name}
