"""The parent of several worker processes: starts them, starts them again when they die, stops them together.

The main thread only watches processes, so that no trouble with the database keeps it from that. A thread of chores
frees what dead workers held, and gives lost jobs processes of their own (the children leave that to it).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from ..clock import SYSTEM, Clock
from ..operations.queues import queue_names
from . import sessions
from .announcer import announcing
from .liveness import Liveness
from .options import WorkerOptions
from .probes import Probes
from .processes import Child
from .quarantine import Quarantine
from .rescuer import Rescuer
from .service import Rota, ServiceThread, within
from .signals_os import Bell

logger = logging.getLogger(__name__)

WATCH: Final = 0.05
LONGEST_PAUSE: Final = 10.0
STEADY: Final = 5.0
"""Seconds after which a child counts as started well."""
BEYOND_GRACE: Final = 5.0
"""Seconds beyond the grace time until a child that does not end is killed: more than an orderly end takes."""
TO_SAY_GOODBYE: Final = 3.0
"""Seconds for freeing what was killed."""
RECYCLED: Final = 87
"""Exit code of a supervised worker that stopped since code of a job does not end: it is started again at once."""
DONE: Final = 86
"""Exit code of a supervised worker that ended by itself, being drained or done: it is not started again."""


class Supervisor:
    """Keeps ``count`` children running until it is stopped, or until each has ended by itself in order."""

    def __init__(
        self,
        options: WorkerOptions,
        count: int,
        arguments: Sequence[str],
        *,
        probes: Probes | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        """Take the arguments that every child gets; child i is called after this process, with ``-i``."""
        self._options = options
        self._probes = probes or Probes()
        self._arguments = ["--supervised", *arguments]
        self._clock = clock
        self._stopping = False
        self._at_once = False
        self._bell = Bell()
        self._slots = [_Slot(f"{options.name}-{number + 1}") for number in range(count)]
        self._rescuer = Rescuer(options, lambda: self._rota.hasten(self._quarantine))
        self._quarantine = Quarantine(options, self._queues, lambda: self._rota.hasten(self._rescuer), clock=clock)
        self._rota = Rota("chores", [self._rescuer, self._quarantine], clock=clock)
        self._chores = ServiceThread(self._rota, clock=clock)

    def stop(self) -> None:
        """Ask for a clean stop. Safe in a signal handler."""
        self._stopping = True
        self._bell.ring()

    def stop_at_once(self) -> None:
        """Ask for a stop without grace time. Safe in a signal handler."""
        self._stopping = self._at_once = True
        self._bell.ring()

    def run(self) -> None:
        """Work until stopped, or until every child has ended by itself."""
        sessions.install()
        with announcing():
            self._run()
        logger.info("Supervisor %s has stopped", self._options.name)

    def _run(self) -> None:
        logger.info("Supervisor %s starts %d workers", self._options.name, len(self._slots))
        self._chores.start()
        liveness, ready = Liveness([self._chores], self._options.lease, clock=self._clock), False
        try:
            while not self._stopping and not all(slot.finished for slot in self._slots):
                for slot in self._slots:
                    self._look_after(slot)
                if not ready:
                    ready = True
                    self._probes.ready()
                if liveness.look():
                    self._probes.alive()
                self._bell.wait(WATCH)
        finally:
            self._probes.stopping()
            self._shut_down()
            self._probes.ended()

    def _queues(self) -> list[str]:
        return queue_names() if self._options.queues is None else list(self._options.queues)

    def _look_after(self, slot: _Slot) -> None:
        now = self._clock.monotonic()
        if slot.finished:
            return
        if slot.child is None:
            if now >= slot.start_at:
                self._start(slot, now)
            return
        code = slot.child.exit_code
        if code is None:
            return
        # Whatever the code says: a job may have called os._exit(0).
        self._died(slot.child)
        slot.finished = code == DONE
        if code == RECYCLED:
            logger.warning("Worker %s ended for the sake of its slots; it is started again", slot.name)
            slot.child, slot.start_at = None, now
        elif not slot.finished:
            self._again(slot, f"ended with exit code {code}", now)

    def _start(self, slot: _Slot, now: float) -> None:
        try:
            slot.child, slot.started_at = Child(slot.name, self._arguments), now
        except OSError as error:
            # No memory or no process number left, for now.
            slot.started_at = now
            self._again(slot, f"could not be started ({error})", now)

    def _again(self, slot: _Slot, what: str, now: float) -> None:
        slot.failures = 1 if now - slot.started_at > STEADY else slot.failures + 1
        pause = 0.0 if slot.failures == 1 else min(LONGEST_PAUSE, 0.5 * 2**slot.failures)
        logger.error("Worker %s %s; it is started again in %.1f s", slot.name, what, pause)
        slot.child, slot.start_at = None, now + pause

    def _died(self, child: Child) -> None:
        self._quarantine.died(child)
        self._rota.hasten(self._quarantine)
        self._chores.wake()

    # Ending -------------------------------------------------------------------------------------------------

    def _shut_down(self) -> None:
        children = [slot.child for slot in self._slots if slot.child is not None]
        for child in children:
            child.terminate()
        self._quarantine.stop()
        deadline = self._clock.monotonic() + self._options.grace.total_seconds() + BEYOND_GRACE
        hurried = False
        while (
            any(child.exit_code is None for child in children) or self._quarantine.busy
        ) and self._clock.monotonic() < deadline:
            if self._at_once and not hurried:
                hurried = True
                deadline = self._clock.monotonic() + BEYOND_GRACE
                self._quarantine.stop_at_once()
                for child in children:
                    child.terminate_at_once()
            self._probes.alive()
            self._bell.wait(WATCH)
        for child in children:
            if child.exit_code is None:
                logger.warning("%s did not stop in time and is killed", child.name)
                child.kill()
            self._quarantine.died(child)
        self._chores.stop()
        within(TO_SAY_GOODBYE, self._quarantine.close, "Freeing the jobs of killed workers")
        self._chores.join(1.0)


class _Slot:
    """The place of one child."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.child: Child | None = None
        self.started_at = 0.0
        self.start_at = 0.0
        self.failures = 0
        self.finished = False
