"""Says that this worker lives, and keeps the leases of jobs that take longer than a beat."""

from __future__ import annotations

import logging
import os
import socket
from typing import Final

from ..clock import SYSTEM, Clock
from ..operations import leases as operations
from ..operations.queues import queue_names
from ..operations.workers import beat, restore
from .leases import Leases
from .options import WorkerOptions

logger = logging.getLogger(__name__)

MARGIN: Final = 0.9
"""Share of the lease after which a worker that could not renew it counts it as lost: before others do."""


class Heartbeat:
    """Renews the leases of this process; learns which are lost and stops their code."""

    name = "heartbeat"

    def __init__(
        self,
        options: WorkerOptions,
        worker_id: int,
        leases: Leases,
        *,
        clock: Clock = SYSTEM,
    ) -> None:
        """Take what to renew."""
        self._options = options
        self._worker_id = worker_id
        self._leases = leases
        self._clock = clock
        self._renewed_at = clock.monotonic()

    def run_once(self) -> float:
        """Beat once."""
        every = self._options.heartbeat.total_seconds()
        try:
            # A job that began right after the last beat would otherwise be a whole beat older at the next.
            long = self._leases.older_than(every / 2)
            still = operations.renew(self._worker_id, long, self._options.lease)
            if not beat(self._worker_id, self._options.lease):
                self._restore_row()
        except Exception:
            self._give_up_what_is_over()
            raise
        self._renewed_at = self._clock.monotonic()
        lost = set(long) - still
        # A job that ended while the statement ran is not lost: it is not held any more.
        if stopped := self._leases.mark_lost(lost, "Another worker may hold this job now: the lease was lost."):
            logger.warning("%d jobs were lost to other workers; their code is asked to stop", stopped)
        return every

    def _restore_row(self) -> None:
        logger.warning("The row of this worker was gone from the database and is stored again")
        options = self._options
        queues = options.queues or dict.fromkeys(queue_names(), options.concurrency)
        host, pid = socket.gethostname(), os.getpid()
        restore(self._worker_id, options.name, host=host, pid=pid, queues=queues, lease=options.lease)

    def _give_up_what_is_over(self) -> None:
        limit = self._options.lease.total_seconds() * MARGIN
        if self._clock.monotonic() - self._renewed_at < limit:
            return
        # Young leases are cut short too: which of them were taken over cannot be known without the database.
        over = set(self._leases.older_than(limit))
        if stopped := self._leases.mark_lost(over, "The lease could not be renewed in time."):
            logger.error("%d jobs could not be kept while the database is away; their code is asked to stop", stopped)
