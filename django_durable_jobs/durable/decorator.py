"""``@durable_job``: register a function so that workers can run it by name."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, Protocol, TypeVar, Unpack, overload

from .. import registry
from ..chunks import ChunkItem
from ..definitions import define
from .job import AsyncDurableJob, DurableJob, wrapped
from .options import JobOptions

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")
V = TypeVar("V")


class Decorator(Protocol):
    """What ``@durable_job(...)`` with options gives."""

    # A function of chunks is enqueued with the argument of one job.
    @overload
    def __call__(
        self, function: Callable[[list[ChunkItem[A, V]]], Coroutine[Any, Any, None]], /
    ) -> AsyncDurableJob[[A], V]: ...
    @overload
    def __call__(self, function: Callable[[list[ChunkItem[A, V]]], None], /) -> DurableJob[[A], V]: ...
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncDurableJob[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> DurableJob[P, R]: ...


@overload
def durable_job(function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncDurableJob[P, R]: ...
@overload
def durable_job(function: Callable[P, R], /) -> DurableJob[P, R]: ...
@overload
def durable_job(
    *, name: str | None = None, atomic: bool = False, api: bool = False, **options: Unpack[JobOptions]
) -> Decorator: ...
def durable_job(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    atomic: bool = False,
    api: bool = False,
    **options: Any,
) -> Any:
    """Make a function at module level a durable job: ``@durable_job`` or ``@durable_job(queue="mail", retries=5)``.

    ``name`` is what is stored with each job, ``module.function`` unless given: give one to be free to move the
    function later. Options: ``queue``, ``priority`` (-100 to 100 or critical, high, normal, low), ``retries``
    (attempts after the first), ``backoff``, ``call_retries`` and ``call_backoff`` (of durable calls inside the
    job), ``delay``, ``timeout`` (asks), ``hard_timeout`` (stops), ``on_crash`` ("retry", "fail": when its worker died),
    ``determinism`` (what happens when the code does not make its recorded calls), ``sequence_key`` (a str or a function
    of the arguments: jobs with one key run one at a time, in order), ``concurrency`` (so many of these jobs run at once
    over the whole fleet, or so many with one ``concurrency_key``), ``tenant`` (for whom it is: tenants take turns in a
    queue that is to be fair), ``unique_key`` (one live job), ``debounce`` and ``throttle`` with their keys (one job
    answers for many enqueues), ``chunk`` and ``chunk_timeout`` (the function is given up to so many jobs at once).

    ``atomic=True`` (sync functions only) runs the function in a transaction of the jobs' database and stores the
    job's completion in the same commit: its writes happen exactly once. It can make no durable calls.

    ``api=True`` lets those who have the permission ``enqueue_job`` enqueue it over HTTP, with any arguments.

    Raises ``DefinitionError`` or ``OptionError`` at import.
    """
    if function is not None:
        return _register(function, name, {"atomic": atomic, "api": api}, options)
    return lambda decorated: _register(decorated, name, {"atomic": atomic, "api": api}, options)


def _register(
    function: Callable[..., Any],
    name: str | None,
    flags: dict[str, bool],
    options: dict[str, Any],
) -> DurableJob[..., Any]:
    if isinstance(function, DurableJob):
        function = function.definition.function
    definition = define(function, name=name, **flags, options=options)
    registry.register(definition)
    return wrapped(definition)
