"""``runjobs --autoreload``: a parent that starts the worker again whenever its code changes.

Django's own reloader kills what it restarts. A worker has jobs in hand, so here the process that runs it watches
the files itself, stops cleanly when one changes, and says so to its parent by its exit code.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from django.utils import autoreload

from ..clock import SYSTEM, Clock
from ..worker.processes import Child
from ..worker.service import within
from ..worker.signals_os import Bell, Stoppable

logger = logging.getLogger(__name__)

CHANGED: Final = 3
"""Exit code of a worker that stopped because its code changed."""
WATCH: Final = 0.05
BEYOND_GRACE: Final = 5.0
"""Seconds beyond the grace time until a worker that does not end is killed."""
LOOK: Final = 0.5
"""Seconds between two looks at the files while no worker runs."""
TRY_AGAIN: Final = 10.0
"""Seconds until a worker that failed is started again although nothing seems to have changed."""


class Watch:
    """Stops a worker or supervisor when a file changes; in the process that runs it."""

    def __init__(self, runner: Stoppable) -> None:
        """Take what to stop."""
        self._runner = runner
        self._main = threading.current_thread()
        self.changed = False

    def start(self) -> None:
        """Watch the files of all imported modules, in a thread."""
        threading.Thread(target=self._watch, name="durable-jobs-autoreload", daemon=True).start()

    def _watch(self) -> None:
        try:
            autoreload.get_reloader().run(self._main)
        except SystemExit:
            # This is how the reloader says it; in this thread it would end nothing.
            logger.info("The code has changed: the worker stops, to be started again")
            self.changed = True
            self._runner.stop()


class Reloader:
    """The parent: starts the worker, and starts it again when it says that its code changed."""

    def __init__(self, name: str, arguments: Sequence[str], *, grace: timedelta, clock: Clock = SYSTEM) -> None:
        """Take the worker's name and options."""
        self._name = name
        self._arguments = ["--autoreload", *arguments]
        self._grace = grace.total_seconds()
        self._clock = clock
        self._stopping = False
        self._at_once = False
        self._bell = Bell()

    def stop(self) -> None:
        """Ask for a clean stop. Safe in a signal handler."""
        self._stopping = True
        self._bell.ring()

    def stop_at_once(self) -> None:
        """Ask for a stop without grace time. Safe in a signal handler."""
        self._stopping = self._at_once = True
        self._bell.ring()

    def run(self) -> None:
        """Work until stopped, or until the worker ended by itself."""
        while not self._stopping:
            child = Child(self._name, self._arguments)
            while (code := child.exit_code) is None and not self._stopping:
                self._bell.wait(WATCH)
            if code is None:
                self._end(child)
                return
            if code == 0:
                return
            if code != CHANGED:
                within(3.0, child.free_its_jobs, "Freeing the jobs of the worker that died")
                logger.error("The worker ended with exit code %s; it is started again when a file changes", code)
                self._wait_for_a_change()

    def _end(self, child: Child) -> None:
        child.terminate()
        deadline, hurried = self._clock.monotonic() + self._grace + BEYOND_GRACE, False
        while child.exit_code is None and self._clock.monotonic() < deadline:
            if self._at_once and not hurried:
                hurried = True
                child.terminate_at_once()
            self._bell.wait(WATCH)
        if child.exit_code is None:
            child.kill()
            within(3.0, child.free_its_jobs, "Freeing the jobs of the killed worker")

    def _wait_for_a_change(self) -> None:
        files = autoreload.StatReloader()
        before, deadline = dict(files.snapshot_files()), self._clock.monotonic() + TRY_AGAIN
        while not self._stopping and self._clock.monotonic() < deadline and dict(files.snapshot_files()) == before:
            self._bell.wait(LOOK)
