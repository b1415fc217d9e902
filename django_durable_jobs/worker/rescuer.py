"""Takes jobs back from workers that are gone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from ..durable.frames import fields_of
from ..operations.rescue import next_expiry, rescue
from .options import WorkerOptions

logger = logging.getLogger(__name__)

A_LITTLE_LATER: Final = timedelta(seconds=0.05)
"""After the end of a lease: renewals that are on their way come first."""


class Rescuer:
    """Any number of workers may rescue; each lost job is moved once."""

    name = "rescuer"

    def __init__(self, options: WorkerOptions, rescued: Callable[[], None]) -> None:
        """Take whom to tell that jobs came back."""
        self._options = options
        self._rescued = rescued

    def run_once(self) -> float:
        """Rescue one batch when a lease is over; come back when the next one ends, or after the interval."""
        interval = self._options.rescue_interval
        expiry = next_expiry()
        if expiry is None:
            return interval.total_seconds()
        if expiry > timedelta(0):
            return min(interval, expiry + A_LITTLE_LATER).total_seconds()
        found = rescue()
        for job in found.failed:
            text = "Job %s failed: its worker was lost and no attempt is left"
            logger.error(text, job.id, extra=fields_of(job, job.worker_name))
        if found.returned:
            logger.warning("%d jobs of lost workers are pending again", len(found.returned))
            self._rescued()
        # Nothing found: another worker is at it and has the rows locked.
        return 0.0 if found.returned or found.failed else A_LITTLE_LATER.total_seconds()
