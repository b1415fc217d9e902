"""Sees to it that this worker obeys: what is paused or limited, jobs that are to end or were taken away.

Orders are rows. A notification makes this service look at once; without one it looks once per poll.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final
from uuid import UUID

from ..errors import Interrupted, LeaseLost
from ..ids import parse_id
from ..operations.control import gates_for, obeyed, orders_for, taken_for_good
from ..operations.orders import ABORT, CANCEL, LOOK, PAUSE, SEIZE, read_seized
from ..operations.queues import resume_due
from ..operations.steps import cancelled, paused
from .held_back import HeldBack
from .leases import Leases
from .looks import Looks
from .options import WorkerOptions
from .stops import Stops

logger = logging.getLogger(__name__)

UNTIL_OBEYED: Final = 0.01
"""Seconds between two looks whether the dispatcher has handed back what had not begun."""
TAKEN: Final = "This job was taken away by an order: its lease is over."


class Control:
    """Looks for orders and carries them to the dispatcher and to running code."""

    name = "control"

    def __init__(  # noqa: PLR0913 -- whom it concerns; only worker.py calls it
        self,
        options: WorkerOptions,
        worker_id: int,
        leases: Leases,
        *,
        held_back: HeldBack,
        looks: Looks,
        stops: Stops,
        changed: Callable[[], None],
        listening: Callable[[], bool],
        stop: Callable[[], None],
    ) -> None:
        """Take whose orders to look for, who obeys them, whom to wake then, and whether orders are announced."""
        self._stop = stop
        self._stopping = False
        self._options = options
        self._worker_id = worker_id
        self._leases = leases
        self._held_back = held_back
        self._looks = looks
        self._stops = stops
        self._changed = changed
        self._listening = listening
        self._paused: dict[str, str] = {}
        self._limited: dict[str, str] = {}
        self._said: dict[str, str] = {}

    def run_once(self) -> float:
        """Look once; come back soon while something is on its way to be obeyed."""
        gates = gates_for(self._worker_id)
        if gates.stopping and not self._stopping:
            self._stopping = True
            logger.info("This worker is ordered to stop")
            self._stop()
        if gates.resume_in is not None and gates.resume_in.total_seconds() <= 0:
            resume_due()
            return 0.0
        if gates.limited != self._limited:
            self._limited = gates.limited
            logger.info("Limited for this worker: %s", _described(self._limited, "the whole fleet") or "nothing")
            self._looks.heed(self._limited)
            self._changed()
        if gates.paused != self._paused:
            self._paused = gates.paused
            logger.info("Paused for this worker: %s", _described(self._paused, "the whole worker") or "nothing")
            self._held_back.order(self._paused)
            self._changed()
        self._see_to_jobs()
        longest = self._options.idle_poll_interval if self._listening() else self._options.poll_interval
        pause = longest.total_seconds()
        if self._paused or self._said:
            if not self._held_back.obeys(self._paused):
                return UNTIL_OBEYED
            # Said at each look: the row of this worker may have been lost and stored again meanwhile.
            obeyed(self._worker_id, self._paused)
            self._said = self._paused
        if gates.resume_in is not None:
            pause = min(pause, gates.resume_in.total_seconds())
        return pause

    def _see_to_jobs(self) -> None:
        # Before the database is asked: what is claimed meanwhile it may not have told us of.
        known = set(self._leases.held())
        if not known:
            return
        orders = orders_for(self._worker_id)
        for job_id in orders.cancelled:
            self._leases.tell(job_id, cancelled(job_id))
        for job_id in orders.pausing:
            self._leases.tell(job_id, paused(job_id))
        # Also what has just ended: there is nothing of it to stop any more.
        gone = known - orders.held
        if stopped := self._leases.mark_lost(gone, TAKEN):
            # By an order, or by a rescue that the heartbeat has not learnt of yet.
            logger.warning("%d jobs are not held here any more; their code is asked to stop", stopped)
            self._stops.stop(self._leases.contexts(taken_for_good(gone)), LeaseLost(TAKEN))


def _described(queues: Iterable[str], whole: str) -> str:
    return ", ".join(name or whole for name in sorted(queues))


class Heard:
    """Carries orders that come as notifications to running code, and has the others looked at."""

    def __init__(self, leases: Leases, stops: Stops, look: Callable[[], None]) -> None:
        """Take who tells running code, who stops it, and how to have ``Control`` look now."""
        self._leases = leases
        self._stops = stops
        self._look = look

    def __call__(self, payload: str) -> bool:
        """Answer whether the notification was an order."""
        if payload.startswith(CANCEL):
            self._tell(payload.removeprefix(CANCEL), cancelled)
        elif payload.startswith(PAUSE):
            self._tell(payload.removeprefix(PAUSE), paused)
        elif payload.startswith((SEIZE, ABORT)):
            self._lose(payload)
        elif payload == LOOK:
            self._look()
        else:
            return False
        return True

    def _lose(self, payload: str) -> None:
        if (lease := read_seized(payload)) is not None:
            self._leases.mark_lost({lease}, TAKEN)
            if payload.startswith(ABORT):
                self._stops.stop(self._leases.contexts({lease}), LeaseLost(TAKEN))

    def _tell(self, text: str, why: Callable[[UUID], Interrupted]) -> None:
        if (job_id := parse_id(text)) is not None:
            self._leases.tell(job_id, why(job_id))
