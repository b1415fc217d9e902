"""The keyword arguments of ``@durable_job`` and ``.using``, for type checkers; their rules are in ``definitions``."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal, TypedDict
from uuid import UUID

from ..backoff import Backoff
from ..crashes import OnCrash
from ..determinism import Determinism
from ..keys import Key


class _Options(TypedDict, total=False):
    queue: str
    priority: int | str
    retries: int
    backoff: Backoff
    call_retries: int
    call_backoff: Backoff
    delay: timedelta | float
    expire_after: timedelta | float | None
    timeout: timedelta | float
    hard_timeout: timedelta | float
    on_crash: OnCrash
    sequence_key: Key | None
    concurrency_key: Key | None
    tenant: Key | None
    debounce: timedelta | float | None
    debounce_key: Key | None
    debounce_max: timedelta | float | None
    throttle: timedelta | float | None
    throttle_key: Key | None
    unique_key: Key | None
    unique_for: timedelta | float | None
    unique_until: Literal["finished", "started"] | None
    on_conflict: Literal["return", "raise", "replace"] | None
    determinism: Determinism


class JobOptions(_Options, total=False):
    """Options that a decorator takes."""

    chunk: int
    chunk_timeout: timedelta | float
    concurrency: int


class EnqueueOptions(_Options, total=False):
    """Options that one enqueue takes."""

    run_at: datetime
    expires_at: datetime | None
    id: UUID
