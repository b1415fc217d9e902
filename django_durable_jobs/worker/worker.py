"""One worker process: the only place that knows all services and puts them together."""

from __future__ import annotations

import logging
import os
from typing import Final

from django.db import connections

from ..clock import SYSTEM, Clock
from ..conf import get_settings
from ..durable.recorder import Recorder
from ..operations.checkpoints import SteadySave
from ..operations.database import dialect
from ..operations.workers import stopped
from . import sessions
from .announcer import announcing
from .chunks import ChunkExecutor
from .control import Control, Heard
from .dispatcher import Dispatcher
from .ears import Ears
from .expirer import Expirer
from .heartbeat import Heartbeat
from .leases import Leases
from .listener import Listener
from .liveness import Liveness, ServiceLost
from .options import WorkerOptions
from .probes import Probes
from .promoter import Promoter
from .pruner import Pruner
from .quarantine import Quarantine
from .queues import QueueWatch
from .registering import Registered, registered
from .rescuer import Rescuer
from .service import Rota, Service, ServiceThread, within
from .signals_os import Bell
from .stopper import Stopper
from .stops import Stops
from .waker import Waker

logger = logging.getLogger(__name__)

LOOK: Final = 0.05
"""Seconds between two looks at what other threads and children have come to."""
TO_GIVE_BACK: Final = 2.0
"""Seconds beyond the grace time in which interrupted jobs are handed back."""
TO_SAY_GOODBYE: Final = 2.0
"""Seconds that a last word to the database may take."""


class Worker:
    """A worker: ``run`` returns when it was stopped, or drained."""

    def __init__(self, options: WorkerOptions, *, probes: Probes | None = None, clock: Clock = SYSTEM) -> None:
        """Take the options, and who is told that the worker lives; nothing happens before ``run``."""
        self._options = options
        self._probes = probes or Probes()
        self._clock = clock
        self._stopping = False
        self._at_once = False
        self._bell = Bell()
        self.drained = False
        """Whether the worker ended by itself, since nothing was left (``drain``) or ``max_jobs`` were done."""
        self.recycles = False
        """Whether the worker stopped since code of a job does not end: its process is to be replaced."""

    def stop(self) -> None:
        """Ask for a clean stop. Safe in a signal handler."""
        self._stopping = True
        self._bell.ring()

    def stop_at_once(self) -> None:
        """Ask for a stop without grace time: running jobs go back to their queues. Safe in a signal handler."""
        self._stopping = self._at_once = True
        self._bell.ring()

    def _recycle(self) -> None:
        self.recycles = True
        self.stop()

    def run(self) -> None:
        """Work until stopped.

        Raises ``WorkerNameTaken`` when a live worker has this id, and the database's error when it could not be
        reached for five minutes.
        """
        sessions.install()
        sessions.mark_thread_as_ours()
        try:
            with announcing():
                self._run()
        finally:
            self._probes.ended()
            # The caller's thread goes on with its own connections where a worker ran inside another program.
            sessions.mark_thread_as_ours(ours=False)

    def _run(self) -> None:
        began = registered(self._options, lambda: self._stopping, self._rest, clock=self._clock)
        if began is None:
            return
        worker_id = began.worker_id
        try:
            self._work(began)
        finally:
            # A row that says "stopped" is no lost worker: nobody waits for its lease, or takes its name for used.
            within(TO_SAY_GOODBYE, lambda: stopped(worker_id), "Storing the end of this worker")
            connections.close_all()
        logger.info("Worker %s has stopped", self._options.name, extra=self._fields())

    def _work(self, began: Registered) -> None:
        worker_id = began.worker_id
        leases = Leases(self._clock)
        steady = SteadySave(self._options.lease, clock=self._clock)
        executor = ChunkExecutor(leases, Recorder(steady, leases.tell), self._options.name, steady=steady)
        dispatcher = Dispatcher(self._options, worker_id, leases, executor, clock=self._clock)
        # All that are known, before the first look: with ``drain`` a worker would end when the first queue is empty.
        for queue, concurrency in began.queues.items():
            dispatcher.serve(queue, concurrency)
        threads, quarantine = self._compose(worker_id, leases, dispatcher, executor.stops)
        connections.close_all()  # the main thread only waits
        queues = "every queue" if self._options.queues is None else ", ".join(dispatcher.queues)
        logger.info("Worker %s serves %s", self._options.name, queues, extra=self._fields())
        for thread in threads:
            thread.start()
        try:
            self._wait(dispatcher, threads)
        finally:
            self._shut_down(dispatcher, threads, quarantine)
            executor.close()

    # Putting together ---------------------------------------------------------------------------------------

    def _compose(
        self, worker_id: int, leases: Leases, dispatcher: Dispatcher, stops: Stops
    ) -> tuple[list[ServiceThread], Quarantine | None]:
        options = self._options
        main = ServiceThread(dispatcher, clock=self._clock)
        dispatcher.wake = main.wake
        beat = Heartbeat(options, worker_id, leases, clock=self._clock)
        control = Control(
            options,
            worker_id,
            leases,
            held_back=dispatcher.held_back,
            looks=dispatcher.looks,
            stops=stops,
            changed=dispatcher.look_now,
            listening=lambda: dispatcher.listening,
            stop=self.stop,
        )
        watch_over = Rota("heartbeat", [beat, control], clock=self._clock)
        steady = ServiceThread(watch_over, clock=self._clock)
        stopper = ServiceThread(
            Stopper(options, stops, leases, dispatcher.ended, self._recycle, clock=self._clock), clock=self._clock
        )
        stops.wake = stopper.wake
        threads = [main, steady, stopper]
        if options.alone:
            return threads, None
        quarantine: Quarantine | None = None
        promoter = Promoter(options, dispatcher.look_now, lambda: dispatcher.listening)

        waker = Waker(options, dispatcher.look_now, clock=self._clock)
        chores: list[Service] = [promoter, waker, Expirer(options), Pruner()]
        if not options.supervised:
            rescuer = Rescuer(options, lambda: rota.hasten(alone))
            quarantine = alone = Quarantine(
                options, lambda: dispatcher.open_queues, lambda: rota.hasten(rescuer), clock=self._clock
            )
            chores[1:1] = [rescuer, quarantine]
        watch = (
            QueueWatch(options, worker_id, lambda: dispatcher.queues, dispatcher.serve)
            if options.queues is None
            else None
        )
        chores[:0] = [watch] if watch is not None else []
        rota = Rota("chores", chores, clock=self._clock)
        housekeeping = ServiceThread(rota, clock=self._clock)
        threads.append(housekeeping)

        def due_later(seconds: float) -> None:
            rota.hasten(promoter, seconds)
            housekeeping.wake()

        dispatcher.due_later = due_later

        def look() -> None:
            watch_over.hasten(control)
            steady.wake()

        def queue_appeared() -> None:
            if watch is not None:
                rota.hasten(watch)
                housekeeping.wake()

        if dialect().has_notifications and get_settings().notify:
            ears = Ears(
                dispatcher, Heard(leases, stops, look), look=look, due_later=due_later, queue_appeared=queue_appeared
            )
            threads.append(ServiceThread(Listener(ears.heard, ears.listening), clock=self._clock))
        return threads, quarantine

    # Ending -------------------------------------------------------------------------------------------------

    def _rest(self, seconds: float) -> None:
        """Wait, but not beyond an order to stop."""
        self._probes.alive()
        if not self._stopping:
            self._bell.wait(seconds)

    def _wait(self, dispatcher: Dispatcher, threads: list[ServiceThread]) -> None:
        liveness = Liveness(threads, self._options.lease, clock=self._clock)
        self._probes.ready()
        while not self._stopping and not dispatcher.drained.is_set():
            self._bell.wait(LOOK)
            if self._options.parent_pid not in {None, os.getppid()}:
                logger.warning("The parent process is gone; this worker stops")
                self.stop()
            try:
                if liveness.look():
                    self._probes.alive()
            except ServiceLost:
                # What it would have to store or hand back cannot be: the leases run out.
                self._at_once = True
                raise
        self.drained = not self._stopping

    def _shut_down(self, dispatcher: Dispatcher, threads: list[ServiceThread], quarantine: Quarantine | None) -> None:
        dispatcher.stop_claiming()
        self._probes.stopping()
        if self._stopping:
            logger.info("Worker %s stops claiming and waits for its jobs", self._options.name, extra=self._fields())
        for thread in threads[3:]:
            thread.stop()
        if quarantine is not None:
            quarantine.stop()
        deadline = self._clock.monotonic() + self._options.grace.total_seconds()
        while not dispatcher.drained.is_set() and not self._at_once and self._clock.monotonic() < deadline:
            self._probes.alive()
            self._clock.wait(dispatcher.drained, min(LOOK, max(0.0, deadline - self._clock.monotonic())))
        if not dispatcher.drained.is_set():
            count = dispatcher.abandon_running()
            logger.warning("%d jobs still ran and go back to their queues", count, extra=self._fields())
            self._clock.wait(dispatcher.drained, TO_GIVE_BACK)
        if quarantine is not None:
            self._close(quarantine, deadline)
        for thread in threads:
            thread.stop()
        dispatcher.threads.close()
        dispatcher.loop.close()
        for thread in threads:
            thread.join(1.0)

    def _close(self, quarantine: Quarantine, deadline: float) -> None:
        """Wait for the children, which have the same grace time and then give their jobs back themselves."""
        deadline, hurried = deadline + TO_GIVE_BACK, False
        while quarantine.busy and self._clock.monotonic() < deadline:
            if self._at_once and not hurried:
                hurried = True
                quarantine.stop_at_once()
                deadline = self._clock.monotonic() + TO_GIVE_BACK
            self._probes.alive()
            self._bell.wait(LOOK)
        within(TO_SAY_GOODBYE, quarantine.close, "Freeing the jobs of killed children")

    def _fields(self) -> dict[str, object]:
        return {"worker": self._options.name}
