"""The parent of several worker processes: starts them, starts them again when they die, stops them together."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from django.db import connections

from ..clock import SYSTEM, Clock
from .children import Child

logger = logging.getLogger(__name__)

WATCH: Final = 0.1
LONGEST_PAUSE: Final = 10.0
STEADY: Final = 5.0
"""Seconds after which a child counts as started well."""


class Supervisor:
    """Keeps ``count`` children running until it is stopped, or until each has ended by itself in order."""

    def __init__(
        self, name: str, count: int, arguments: Sequence[str], *, grace: timedelta, clock: Clock = SYSTEM
    ) -> None:
        """Take the arguments that every child gets; child i is called ``name-i``."""
        self._name = name
        self._arguments = arguments
        self._grace = grace.total_seconds()
        self._clock = clock
        self._stop = threading.Event()
        self._at_once = threading.Event()
        self._slots = [_Slot(f"{name}-{number + 1}") for number in range(count)]

    def stop(self) -> None:
        """Ask for a clean stop; a second time: at once. Safe in a signal handler."""
        if self._stop.is_set():
            self._at_once.set()
        self._stop.set()

    def run(self) -> None:
        """Work until stopped, or until every child has ended with exit code 0."""
        logger.info("Supervisor %s starts %d workers", self._name, len(self._slots))
        while not self._stop.is_set() and not all(slot.finished for slot in self._slots):
            for slot in self._slots:
                self._look_after(slot)
            self._clock.wait(self._stop, WATCH)
        self._shut_down()

    def _look_after(self, slot: _Slot) -> None:
        now = self._clock.monotonic()
        if slot.finished:
            return
        if slot.child is None:
            if now >= slot.start_at:
                slot.child, slot.started_at = Child(slot.name, self._arguments), now
            return
        code = slot.child.exit_code
        if code is None:
            return
        if code == 0:
            slot.finished = True
            return
        slot.failures = 1 if now - slot.started_at > STEADY else slot.failures + 1
        pause = 0.0 if slot.failures == 1 else min(LONGEST_PAUSE, 0.5 * 2**slot.failures)
        logger.error("Worker %s died (exit code %s); it is started again in %.1f s", slot.name, code, pause)
        self._free_jobs(slot.child)
        slot.child, slot.start_at = None, now + pause

    def _free_jobs(self, child: Child) -> None:
        try:
            child.free_its_jobs()
        except Exception as error:  # noqa: BLE001 -- then they wait for their leases
            logger.warning("The jobs of %s could not be freed yet: %s", child.name, error)
        finally:
            connections.close_all()

    def _shut_down(self) -> None:
        children = [slot.child for slot in self._slots if slot.child is not None]
        for child in children:
            child.terminate()
        deadline = self._clock.monotonic() + self._grace + 3.0
        asked_again = False
        for child in children:
            while child.exit_code is None and self._clock.monotonic() < deadline:
                if self._at_once.is_set() and not asked_again:
                    asked_again = True
                    for other in children:
                        other.terminate()
                child.wait(0.05)
            if child.exit_code is None:
                child.kill()
                child.wait(1.0)
                self._free_jobs(child)
        logger.info("Supervisor %s has stopped", self._name)


class _Slot:
    """The place of one child."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.child: Child | None = None
        self.started_at = 0.0
        self.start_at = 0.0
        self.failures = 0
        self.finished = False
