"""Calls the receivers of events in a worker: one after the other, in a thread of their own.

So a receiver that is slow, or hangs, holds up other receivers and nothing else: no claim, no heartbeat, no job. What
it holds up is kept in memory, up to a limit; beyond that events are left out, and the log says so.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, Final

from django.db import connections

from ..events import Event
from ..signals import EventSignal, handing_over
from . import sessions

logger = logging.getLogger(__name__)

MOST_WAITING: Final = 10_000
"""Events that wait for slow receivers at most: some megabytes."""
LAST_WORDS: Final = 2.0
"""Seconds that receivers have at the end of the process."""


class Announcer:
    """The thread of the receivers; it begins with the first event."""

    def __init__(self) -> None:
        """Begin without a thread: where nobody listens there is none."""
        self._waiting: SimpleQueue[tuple[EventSignal[Any], Event] | None] = SimpleQueue()
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None
        self._left_out = 0

    def take(self, signal: EventSignal[Any], event: Event) -> None:
        """Take an event, from any thread; does not wait."""
        if self._waiting.qsize() >= MOST_WAITING:
            self._leave_out()
            return
        self._waiting.put((signal, event))
        if self._thread is None:
            with self._guard:
                if self._thread is None:
                    thread = threading.Thread(target=self._work, name="durable-jobs-events", daemon=True)
                    thread.start()
                    self._thread = thread

    def close(self, seconds: float) -> None:
        """Let receivers have what waits, for so long."""
        if self._thread is None:
            return
        self._waiting.put(None)
        self._thread.join(seconds)
        if self._thread.is_alive():
            text = "Receivers of events were not done within %.0f s; %d events are not told"
            logger.warning(text, seconds, max(0, self._waiting.qsize() - 1))

    def _leave_out(self) -> None:
        with self._guard:
            self._left_out += 1
            if str(self._left_out).strip("0") == "1":  # at the first, the tenth, the hundredth …
                text = "Receivers of events are too slow: %d wait, and %d were not told so far"
                logger.error(text, MOST_WAITING, self._left_out)

    def _work(self) -> None:
        try:
            while (waiting := self._waiting.get()) is not None:
                try:
                    sessions.before_job()
                    waiting[0].deliver(waiting[1])
                except BaseException:  # a receiver may raise SystemExit: the next event must be told all the same
                    logger.exception("A receiver ended abnormally", extra=waiting[1].log_fields())
                self._clean_up(waiting[1])
        finally:
            connections.close_all()

    def _clean_up(self, event: Event) -> None:
        try:
            left = sessions.clean_up()
        except Exception:
            logger.exception("Connections could not be cleaned after a receiver", extra=event.log_fields())
            return
        if left is not None:
            logger.error("A receiver of %s: %s", type(event).__name__, left, extra=event.log_fields())


@contextmanager
def announcing() -> Generator[Announcer]:
    """Have receivers called by a thread of their own while the block runs, and for a moment after it."""
    announcer = Announcer()
    try:
        with handing_over(announcer.take):
            yield announcer
    finally:
        announcer.close(LAST_WORDS)
