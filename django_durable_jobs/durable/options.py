"""The keyword arguments of ``@durable_job`` and ``.using``, for type checkers; their rules are in ``definitions``."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TypedDict
from uuid import UUID

from ..backoff import Backoff
from ..determinism import Determinism


class JobOptions(TypedDict, total=False):
    """Options that a decorator takes."""

    queue: str
    priority: int | str
    retries: int
    backoff: Backoff
    call_retries: int
    call_backoff: Backoff
    delay: timedelta | float
    timeout: timedelta | float
    determinism: Determinism


class EnqueueOptions(JobOptions, total=False):
    """Options that one enqueue takes."""

    run_at: datetime
    id: UUID
