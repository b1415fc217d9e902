"""The decorated function: called plainly it is the function, ``enqueue`` stores a job that will run it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, Unpack, cast

from asgiref.sync import sync_to_async

from .. import registry
from ..definitions import Definition
from ..errors import ArgumentError, DefinitionError
from ..events import JobCompletedEvent, JobFailedEvent, JobRetryingEvent, JobStartedEvent
from ..operations.coalesce import enqueue_once
from ..operations.enqueue import Request
from ..operations.enqueue import enqueue as store
from ..operations.unique import enqueue_unique
from ..options import OF_THE_FUNCTION, Options
from ..signals import job_completed, job_failed, job_retrying, job_started
from .handle import JobHandle

if TYPE_CHECKING:
    from .options import EnqueueOptions

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E")
R_co = TypeVar("R_co", covariant=True)

Hook = Callable[[E], Any]

__all__ = ["DurableJob", "Invocation", "aenqueue", "enqueue", "enqueue_many", "get_job"]


@dataclass(frozen=True, slots=True)
class Invocation(Generic[R_co]):
    """A durable job with its arguments, not stored yet; made by ``job.s(...)``."""

    job: DurableJob[Any, R_co]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def request(self) -> Request:
        """Return what the enqueue operation takes."""
        return Request(self.job.definition, self.args, self.kwargs, self.job.options)


class DurableJob(Generic[P, R]):
    """A function that can be run now, by calling it, or later and durably, by enqueueing it."""

    def __init__(self, definition: Definition, options: Any = None) -> None:
        """Wrap a registered definition, with options that differ from its own."""
        functools.update_wrapper(self, definition.function)
        self.definition = definition
        self.options = definition.options if options is None else options

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here and now, as if it were not decorated."""
        return cast("R", self.definition.function(*args, **kwargs))

    def __repr__(self) -> str:
        return f"<durable job {self.definition.name}>"

    @property
    def name(self) -> str:
        """The registered name."""
        return self.definition.name

    def using(self, **options: Unpack[EnqueueOptions]) -> DurableJob[P, R]:
        """Return the same job with other options: queue, priority, retries, backoff, delay, run_at, id, ….

        Raises ``OptionError`` for a value out of range and ``DefinitionError`` for an unknown option.
        """
        for name in OF_THE_FUNCTION & options.keys():
            raise DefinitionError(f"{name!r} belongs to the function: @durable_job({name}=...).")
        return type(self)(self.definition, self.options.changed(options))

    def s(self, *args: P.args, **kwargs: P.kwargs) -> Invocation[R]:
        """Return the job with these arguments, for ``enqueue_many`` and ``gather``."""
        return Invocation(self, args, kwargs)

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """Store a job that will call the function with these arguments.

        Inside ``atomic()`` the job is part of the transaction: it exists when that commits. Arguments are checked
        and stored by value here (``ArgumentError``, ``SerializationError``), before any SQL. With ``debounce``,
        ``throttle`` or ``unique_key`` the handle may be that of a job which is there already (``handle.existing``).
        Raises ``JobExists`` where ``on_conflict`` says so.
        """
        request = Request(self.definition, args, kwargs, self.options)
        if self.options.coalesces:
            job_id, existing = enqueue_once(request)
            return JobHandle(job_id, self.definition.name, existing)
        (handle,) = _stored([request])
        return handle

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """Do what ``enqueue`` does without blocking the event loop."""
        return await sync_to_async(self.enqueue)(*args, **kwargs)

    def enqueue_many(self, arguments: Iterable[Invocation[R] | tuple[Any, ...] | dict[str, Any]]) -> list[JobHandle[R]]:
        """Store many jobs at once, all or none; much faster than one by one.

        Each item is a tuple of positional arguments, a dictionary of keyword arguments, or ``job.s(...)``. The
        error of a bad item names its index.
        """
        return enqueue_many(_invocation(self, item, index) for index, item in enumerate(arguments))

    async def aenqueue_many(
        self, arguments: Iterable[Invocation[R] | tuple[Any, ...] | dict[str, Any]]
    ) -> list[JobHandle[R]]:
        """Do what ``enqueue_many`` does without blocking the event loop."""
        return await sync_to_async(self.enqueue_many)(arguments)

    # Hooks ---------------------------------------------------------------------------------------------------

    def on_start(self, hook: Hook[JobStartedEvent]) -> Hook[JobStartedEvent]:
        """Have a function called with the event whenever an attempt of such a job begins; a decorator.

        All hooks are called in the worker, after the fact is committed, in a thread of their own; one that raises is
        logged and changes nothing. They are receivers of ``signals`` with this job as their sender, and may be async.
        """
        job_started.hook(self, hook)
        return hook

    def on_complete(self, hook: Hook[JobCompletedEvent]) -> Hook[JobCompletedEvent]:
        """The same when such a job has completed."""
        job_completed.hook(self, hook)
        return hook

    def on_failure(self, hook: Hook[JobFailedEvent]) -> Hook[JobFailedEvent]:
        """The same when such a job has failed for good."""
        job_failed.hook(self, hook)
        return hook

    def on_retry(self, hook: Hook[JobRetryingEvent]) -> Hook[JobRetryingEvent]:
        """The same when an attempt of such a job has failed and another one is to come."""
        job_retrying.hook(self, hook)
        return hook


class AsyncDurableJob(DurableJob[P, R]):
    """The same for an ``async def`` function: called plainly it gives a coroutine."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:  # type: ignore[override]  # on purpose
        """Call the function here and now; await what it gives."""
        return cast("Coroutine[Any, Any, R]", self.definition.function(*args, **kwargs))


def wrapped(definition: Definition, options: Options | None = None) -> DurableJob[..., Any]:
    """Return a definition in the class that fits its function."""
    kind = AsyncDurableJob if definition.is_async else DurableJob
    return kind(definition, options)


def _invocation(job: DurableJob[P, R], item: object, index: int) -> Invocation[R]:
    if isinstance(item, Invocation):
        return item
    if isinstance(item, tuple):
        return Invocation(job, item, {})
    if isinstance(item, dict):
        return Invocation(job, (), item)
    raise ArgumentError(
        f"Item {index} of enqueue_many() is {type(item).__name__}: give a tuple of positional arguments, e.g. "
        f"({item!r:.40},), a dictionary of keyword arguments, or {job.definition.function.__name__}.s(...)."
    )


def _checked(item: object, index: int) -> Invocation[Any]:
    if isinstance(item, Invocation):
        return item
    raise ArgumentError(
        f"Item {index} of enqueue_many() is {type(item).__name__}: give jobs with their arguments, made by job.s(...)."
    )


def get_job(name: str) -> DurableJob[..., Any]:
    """Return the durable job registered under ``name``, or raise ``UnknownDefinition``."""
    return wrapped(registry.get(name))


def enqueue(job: DurableJob[P, R] | str, /, *args: Any, **kwargs: Any) -> JobHandle[Any]:
    """Enqueue a durable job given by its registered name, for code that cannot import the function.

    Anything but a registered name or a durable job is refused with ``UnknownDefinition``.
    """
    target = job if isinstance(job, DurableJob) else get_job(job)
    return target.enqueue(*args, **kwargs)


async def aenqueue(job: DurableJob[P, R] | str, /, *args: Any, **kwargs: Any) -> JobHandle[Any]:
    """Do what ``enqueue`` does without blocking the event loop."""
    return await sync_to_async(enqueue)(job, *args, **kwargs)


def enqueue_many(invocations: Iterable[Invocation[R]]) -> list[JobHandle[R]]:
    """Store jobs of any definitions at once, all or none: ``enqueue_many([a.s(1), b.s(x=2)])``."""
    return _stored([_checked(one, index).request() for index, one in enumerate(invocations)])


def _stored(requests: list[Request]) -> list[JobHandle[Any]]:
    if any(request.options.unique_key is not None for request in requests):
        answers = enqueue_unique(requests)
    else:
        answers = [(job_id, False) for job_id in store(requests)]
    return [
        JobHandle(job_id, request.definition.name, existing)
        for (job_id, existing), request in zip(answers, requests, strict=True)
    ]


async def aenqueue_many(invocations: Iterable[Invocation[R]]) -> list[JobHandle[R]]:
    """Do what ``enqueue_many`` does without blocking the event loop."""
    return await sync_to_async(enqueue_many)(invocations)
