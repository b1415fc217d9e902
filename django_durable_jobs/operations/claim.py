"""Taking jobs to run. The statement is the dialect's; this is its door."""

from __future__ import annotations

from ..dialects.rows import Claim, Claimed, Want
from .database import dialect

__all__ = ["Claim", "Claimed", "Want", "claim"]


def claim(order: Claim) -> list[Claimed]:
    """Claim up to the wanted number of pending jobs per queue, by priority, then creation.

    Exactly one worker gets a job. Each claim raises the job's fencing token and counts an attempt.
    """
    return dialect().claim(order) if order.wants else []
