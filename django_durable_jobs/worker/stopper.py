"""Stops code that does not ask whether it should: it is told, then interrupted, then its process is given up.

1. *Ask*: the job's next durable call raises.
2. *Interrupt*: an exception is raised into the thread, or the task is cancelled. That reaches Python code, not code in
   C: a sleep, a query, a loop in a library.
3. *Give up*: what still runs after ``RECYCLE_AFTER`` is ended in the database without it, so nothing waits for it. Its
   slot is lost until the process ends, which is then replaced where somebody can replace it.

Nothing here asks the database, so no trouble there keeps a limit from being kept.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Final

from ..clock import SYSTEM, Clock
from ..conf import get_settings
from ..dialects.rows import Claimed
from ..durable.context import JobContext
from ..durable.frames import fields_of
from ..errors import LeaseLost
from ..outcomes import Lost, Outcome
from . import compensations
from .endings import outcome_of
from .leases import Leases
from .options import WorkerOptions
from .stops import Stop, Stops

logger = logging.getLogger("django_durable_jobs.jobs")

AGAIN: Final = 0.02
"""Seconds until code is interrupted that could not be just now: it stores a checkpoint."""
FAR: Final = 3600.0


class Stopper:
    """Carries out what ``Stops`` holds."""

    name = "stopper"

    def __init__(  # noqa: PLR0913 -- whom it concerns; only worker.py calls it
        self,
        options: WorkerOptions,
        stops: Stops,
        leases: Leases,
        ended: Callable[[Claimed, Outcome], None],
        recycle: Callable[[], None],
        *,
        clock: Clock = SYSTEM,
    ) -> None:
        """Take whom to tell how a job ended whose code did not, and how this process is replaced."""
        self._options = options
        self._stops = stops
        self._leases = leases
        self._ended = ended
        self._recycle = recycle
        self._clock = clock

    def run_once(self) -> float:
        """Take each stop as far as it is due."""
        self._stops.looked(math.inf)
        pause = min((self._see_to(stop) for stop in self._stops.noted()), default=FAR)
        self._stops.looked(pause)
        return pause

    def _see_to(self, stop: Stop) -> float:
        now = self._clock.monotonic()
        if stop.door.closed or not any(self._leases.runs(context.row) for context in stop.contexts):
            self._stops.forget(stop)
            return FAR
        if now < stop.at:
            return stop.at - now
        if not stop.asked:
            stop.asked = True
            stop.gives_up_at = now + get_settings().recycle_after.total_seconds()
            for context in stop.contexts:
                context.interrupt(stop.why)
        stop.struck = stop.struck or stop.door.strike(type(stop.why))
        if now < stop.gives_up_at:
            return min(stop.gives_up_at - now, math.inf if stop.struck else AGAIN)
        self._give_up(stop)
        return FAR

    def _give_up(self, stop: Stop) -> None:
        self._stops.forget(stop)
        for context in stop.contexts:
            outcome = _outcome(context, stop)
            context.interrupt(LeaseLost("This attempt was given up: its code did not end in time."))
            self._ended(context.row, outcome)
        first = stop.contexts[0]
        fields = fields_of(first.row, first.worker_name)
        text = "The code of job %s does not end although it was interrupted; its slot is lost to this process. %s"
        if self._options.supervised or self._options.alone:
            logger.error(text, first.id, "The process claims nothing more and is replaced", extra=fields)
            self._recycle()
        else:
            advice = "Start the worker anew; with --processes a supervisor replaces the process by itself"
            logger.error(text, first.id, advice, extra=fields)


def _outcome(context: JobContext, stop: Stop) -> Outcome:
    if context.lost:
        return Lost()
    outcome = outcome_of(context, stop.why)
    # What is to be undone must not run beside the code: whoever rescues the job sees to it.
    return Lost() if compensations.is_due(context, outcome) else outcome
