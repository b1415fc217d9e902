"""``fork``: run a job again from one of its calls, as a new job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async

from ..ids import Identified
from ..operations.fork import fork as store
from .handle import JobHandle


def fork(
    job: Identified | UUID | str,
    *,
    from_call: str | int = 1,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    queue: str | None = None,
) -> JobHandle[Any]:
    """Store a new job that has made the calls of ``job`` before ``from_call`` (``"3"``, ``"3.1"``), and return it.

    The old job may have any status, and stays as it is; it is the new one's ``origin``. Definition, queue, priority
    and options are the old one's, and so are the arguments, unless ``args`` or ``kwargs`` are given: then these are
    all there are. Children, messages, unfinished waits and what undoes the calls taken over stay with the old job.
    Inside ``atomic()`` the new job is part of the transaction. Raises ``JobNotFound``, ``UnknownDefinition``,
    ``ArgumentError`` when the arguments do not fit the function, and ``OptionError`` for a call that the old job has
    not come to; then nothing is stored.
    """
    return JobHandle(*store(job, from_call=from_call, args=args, kwargs=kwargs, queue=queue))


async def afork(
    job: Identified | UUID | str,
    *,
    from_call: str | int = 1,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    queue: str | None = None,
) -> JobHandle[Any]:
    """Do what ``fork`` does without blocking the event loop."""
    return await sync_to_async(fork)(job, from_call=from_call, args=args, kwargs=kwargs, queue=queue)
