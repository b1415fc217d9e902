"""Deletes what retention no longer keeps."""

from __future__ import annotations

import logging
from typing import Final
from uuid import UUID

from ..operations.batches import prune_batches
from ..operations.coalesce import prune_coalescing
from ..operations.prune import prune, prune_audit, prune_events, prune_workers

logger = logging.getLogger(__name__)

BETWEEN_ROUNDS: Final = 300.0
BETWEEN_WINDOWS: Final = 0.2
"""Seconds; keeps deleting from taking the database's breath."""


class Pruner:
    """Walks the finished jobs from the oldest on, a window at a time."""

    name = "pruner"

    def __init__(self) -> None:
        """Begin at the oldest job."""
        self._after: UUID | None = None
        self._event: tuple[str, int] | None = None

    def run_once(self) -> float:
        """Look at one window: of jobs, and when these are through, of events."""
        if self._event is None:
            deleted, self._after = prune(self._after)
            if deleted:
                logger.info("%d finished jobs were deleted by retention", deleted)
            if self._after is not None:
                return BETWEEN_WINDOWS
        self._event = prune_events(self._event)
        if self._event is not None:
            return BETWEEN_WINDOWS
        prune_workers()
        prune_coalescing()
        if prune_audit() + prune_batches():
            return BETWEEN_WINDOWS
        return BETWEEN_ROUNDS
