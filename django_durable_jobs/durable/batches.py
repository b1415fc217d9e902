"""The public face of batches: opened, filled, closed, and asked how far they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, ParamSpec, Self, TypeVar
from uuid import UUID

from asgiref.sync import sync_to_async

from ..errors import ArgumentError, OptionError
from ..ids import is_job_id, new_job_id
from ..operations import batches
from ..operations.cancel import Cancelled, cancel_batch
from ..operations.enqueue import Request
from ..states import FINAL, Status
from .frames import running_job
from .handle import JobHandle
from .job import DurableJob, Invocation

P = ParamSpec("P")
R = TypeVar("R")
Callback = Invocation[Any] | None


class BatchProgress(NamedTuple):
    """How many members have ended, of how many; both grow while members are added."""

    ended: int
    total: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Jobs that belong together; every question asks the database anew.

    As a context manager it is closed at the end of the block, unless that ends with an error.
    """

    id: UUID

    @classmethod
    def open(
        cls,
        description: str = "",
        *,
        on_success: Callback = None,
        on_complete: Callback = None,
        on_discard: Callback = None,
        id: UUID | None = None,  # noqa: A002 -- as `using(id=...)` calls it
    ) -> Batch:
        """Store an open batch, in the caller's transaction.

        Callbacks are durable jobs with their arguments (``job.s(...)``), each enqueued once at most, when the batch is
        closed: ``on_complete`` when every member has ended, ``on_success`` as well if every one has completed, and
        ``on_discard`` when the first one has failed for good. ``id`` is one that ``new_job_id()`` made, for callbacks
        that are to be told which batch it was. Raises ``ArgumentError``, ``OptionError`` or ``SerializationError``;
        then nothing is stored.
        """
        if id is not None and not (isinstance(id, UUID) and is_job_id(id)):
            raise OptionError("The id of a batch must be one that new_job_id() made.")
        given = {"on_success": on_success, "on_complete": on_complete, "on_discard": on_discard}
        requests = {name: _request(name, one) for name, one in given.items() if one is not None}
        batch = cls(id or new_job_id())
        batches.open_batch(batch.id, description, requests)
        return batch

    @classmethod
    def get(cls, id: UUID | str) -> Batch:  # noqa: A002 -- as `open(id=...)` calls it
        """Return the batch with this id; ``BatchNotFound`` when there is none."""
        return cls(batches.get(id).id)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_details: object) -> None:
        if kind is None:
            self.close()

    def enqueue(self, job: DurableJob[P, R], /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """Store a job that belongs to the batch, in the caller's transaction.

        While the batch is open anybody may; once it is closed, only the jobs that belong to it, until it has ended.
        Raises ``BatchClosed`` otherwise, and what ``job.enqueue`` raises. A job with a ``unique_key``, ``debounce`` or
        ``throttle`` is refused (``OptionError``): the job that answers for it may belong to others.
        """
        if not isinstance(job, DurableJob):
            raise ArgumentError(f"A batch takes durable jobs, not {type(job).__name__}: batch.enqueue(job, ...).")
        (handle,) = self.enqueue_many([job.s(*args, **kwargs)])
        return handle

    def enqueue_many(self, invocations: Iterable[Invocation[R]]) -> list[JobHandle[R]]:
        """Store many jobs at once, made by ``job.s(...)``, all or none; the error of a bad one names its index."""
        requests = [_request(f"Item {index} of enqueue_many()", one) for index, one in enumerate(invocations)]
        running = running_job()
        as_member = running is not None and running.batch_id == self.id
        ids = batches.add(self.id, requests, as_member=as_member)
        return [JobHandle(id_, request.definition.name) for id_, request in zip(ids, requests, strict=True)]

    def close(self) -> None:
        """Say that no more is to come but from members; harmless if it is closed.

        Takes effect with the caller's transaction. If every member has ended by then, or there is none, the batch ends
        at once.
        """
        batches.close(self.id)

    def cancel(self, *, reason: str = "cancelled with its batch") -> Cancelled:
        """Close the batch and cancel every member that has not ended, with all jobs below it."""
        return cancel_batch(self.id, reason=reason)

    @property
    def counts(self) -> dict[Status, int]:
        """How many members there are in each status; statuses without any are left out."""
        found = batches.members(self.id).counted_by("status")
        return {Status(status): number for status, number in found.items()}

    @property
    def progress(self) -> BatchProgress:
        """How many members have ended, of how many."""
        counts = self.counts
        return BatchProgress(sum(counts.get(status, 0) for status in FINAL), sum(counts.values()))

    @property
    def status(self) -> str:
        """``open``, ``closed`` or ``ended``. One that has ended stays so, also when a member is retried."""
        row = batches.get(self.id)
        if row.finished_at is not None:
            return "ended"
        return "open" if row.closed_at is None else "closed"

    @classmethod
    async def aopen(
        cls,
        description: str = "",
        *,
        on_success: Callback = None,
        on_complete: Callback = None,
        on_discard: Callback = None,
        id: UUID | None = None,  # noqa: A002 -- as `open(id=...)` calls it
    ) -> Batch:
        """Do what ``open`` does without blocking the event loop; to be closed by ``aclose``."""
        return await sync_to_async(cls.open)(
            description, on_success=on_success, on_complete=on_complete, on_discard=on_discard, id=id
        )

    async def aenqueue(self, job: DurableJob[P, R], /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """Do what ``enqueue`` does without blocking the event loop."""
        return await sync_to_async(self.enqueue)(job, *args, **kwargs)

    async def aenqueue_many(self, invocations: Iterable[Invocation[R]]) -> list[JobHandle[R]]:
        """Do what ``enqueue_many`` does without blocking the event loop."""
        return await sync_to_async(self.enqueue_many)(invocations)

    async def aclose(self) -> None:
        """Do what ``close`` does without blocking the event loop."""
        await sync_to_async(self.close)()

    async def acancel(self, *, reason: str = "cancelled with its batch") -> Cancelled:
        """Do what ``cancel`` does without blocking the event loop."""
        return await sync_to_async(self.cancel)(reason=reason)


def _request(what: str, given: object) -> Request:
    if isinstance(given, Invocation):
        return given.request()
    raise ArgumentError(f"{what} is {type(given).__name__}: give a durable job with its arguments, made by job.s(...).")
