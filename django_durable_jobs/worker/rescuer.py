"""Takes jobs back from workers that are gone."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..operations.rescue import BATCH, next_expiry, rescue
from .options import WorkerOptions

logger = logging.getLogger(__name__)


class Rescuer:
    """Any number of workers may rescue; each lost job is moved once."""

    name = "rescuer"

    def __init__(self, options: WorkerOptions, rescued: Callable[[], None]) -> None:
        """Take whom to tell that jobs came back."""
        self._options = options
        self._rescued = rescued

    def run_once(self) -> float:
        """Rescue one batch; come back when the next lease ends, or after the interval."""
        found = rescue()
        for job_id in found.failed:
            logger.error("Job %s failed: its worker was lost and no attempt is left", job_id)
        if found.returned:
            logger.warning("%d jobs of lost workers are pending again", len(found.returned))
            self._rescued()
        if len(found.returned) + len(found.failed) >= BATCH:
            return 0.0
        interval = self._options.rescue_interval
        expiry = next_expiry()
        return interval.total_seconds() if expiry is None else max(0.05, min(interval, expiry).total_seconds() + 0.02)
