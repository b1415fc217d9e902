"""Ends jobs that had to begin by some time, and have not."""

from __future__ import annotations

import logging
from typing import Final

from ..operations.expire import expire
from .options import WorkerOptions

logger = logging.getLogger(__name__)

NET: Final = 6
"""Rescue intervals between two looks: no claim takes such a job meanwhile."""
IN_OTHER_HANDS: Final = 0.05
"""Seconds until the next look at a job that somebody else has locked."""


class Expirer:
    """Any number of workers may look; each job is ended once."""

    name = "expirer"

    def __init__(self, options: WorkerOptions) -> None:
        """Take how often to look."""
        self._options = options

    def run_once(self) -> float:
        """End what is over; come back when the next one is, as far as it is known."""
        count, next_in = expire()
        if count:
            logger.info("%d jobs have expired: no worker has begun them in their time", count)
            return 0.0
        longest = NET * self._options.rescue_interval.total_seconds()
        return longest if next_in is None else min(longest, max(next_in.total_seconds(), IN_OTHER_HANDS))
