"""Durable calls: run a function inside a job once, keep its result, and give it back on replay.

``call`` runs the function inline, in the job's own slot; ``acall`` is the same for ``async def`` jobs. The value
that the caller gets in the first run is read back from its stored form, so a replay gives the same value of the
same type. A call that fails is repeated inside the attempt (``call_retries``); its last error is raised.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, cast, overload

from asgiref.sync import async_to_sync, sync_to_async
from django.db import connections

from .. import registry
from ..conf import get_settings
from ..definitions import Options, return_annotation
from ..errors import (
    DefinitionError,
    Interrupted,
    NonDeterminism,
    NoRetry,
    NotInJob,
    OpenTransaction,
    RetryAfter,
    SerializationError,
    Snooze,
)
from ..ids import idempotency_key
from ..serialization import Codec, decode_error, encode_error
from .context import Frame, current_frame, inside
from .job import DurableJob

if TYPE_CHECKING:
    from uuid import UUID

    from ..backoff import Backoff
    from ..operations.checkpoints import Stored

P = ParamSpec("P")
R = TypeVar("R")

ORDERS: Final = (NoRetry, RetryAfter, Snooze, NonDeterminism, OpenTransaction)
"""What a call's code may raise to the job itself: never repeated, never stored as the call's error."""


class _Call:
    """One durable call on its way: everything that sync and async calls have in common."""

    __slots__ = ("args", "codec", "frame", "function", "key", "kwargs", "name", "options")

    def __init__(
        self, target: object, options: Options, args: tuple[Any, ...], kwargs: dict[str, Any], what: str
    ) -> None:
        self.frame = current_frame(what)
        self.frame.job.check()
        self.function, self.name, self.codec, own = _resolve(target)
        self.options = own if options == Options() else options
        self.args, self.kwargs = args, kwargs
        _refuse_open_transaction(self.name)
        if self.frame.depth >= get_settings().call_depth:
            raise NonDeterminism(f"Calls are nested deeper than {get_settings().call_depth} ({self.name}).")
        self.frame.job.history.note_call_begins(self.frame.path)
        self.key = self.frame.next_key()

    def recorded(self) -> Stored | None:
        """Look for the result of an earlier attempt."""
        return self.frame.job.history.find(self.key, self.name)

    def replay(self, stored: Stored) -> Any:
        """Give back, or raise, what is recorded."""
        if stored.error is not None:
            raise decode_error(stored.error)
        return self.codec.decode(cast("str", stored.result))

    def child(self) -> Frame:
        """Make the frame in which the function runs; each repeat begins to count anew."""
        self.frame.job.history.drop_errors_below(self.key)
        return Frame(self.frame.job, self.key, self.frame.depth + 1)

    def retry_delay(self, failures: int) -> float | None:
        """Return the seconds until the next repeat after this many failures, ``None`` when none is left."""
        settings, job = get_settings(), self.frame.job.options
        retries = _first(self.options.call_retries, job.call_retries, settings.call_retries)
        if failures > retries:
            return None
        backoff: Backoff = _first(self.options.call_backoff, job.call_backoff, settings.call_backoff)
        return backoff.delay(failures - 1).total_seconds()

    def encode(self, value: object) -> str:
        """Put the result into its stored form."""
        return self.codec.encode(value, limit=get_settings().result_limit, what=f"result of {self.name}")

    def save(self, text: str) -> Any:
        """Store the result and return what is read back from it."""
        history = self.frame.job.history
        history.drop_errors_below(self.key)
        rows = [*history.take_caught(), history.checkpoint(self.key, self.name, "call", result=text)]
        self.frame.job.recorder.record(rows)
        history.forget_below(self.key)
        history.remember(rows)
        return self.codec.decode(text)

    def fail(self, error: Exception) -> Exception:
        """Note the last error of the call and return it in the form in which a replay would raise it."""
        history = self.frame.job.history
        history.drop_errors_below(self.key)
        text = encode_error(error, limit=get_settings().result_limit)
        history.note_error(history.checkpoint(self.key, self.name, "call", error=text))
        as_replayed = decode_error(text)
        as_replayed.__cause__ = error
        return as_replayed.with_traceback(error.__traceback__)


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def _resolve(target: object) -> tuple[Callable[..., Any], str, Codec, Options]:
    """Return function, name, codec of the result, and options of what is to be called."""
    if isinstance(target, str):
        definition = registry.get(target)
        return definition.function, definition.name, definition.result, definition.options
    if isinstance(target, DurableJob):
        return target.definition.function, target.definition.name, target.definition.result, target.options
    if not callable(target):
        raise DefinitionError(f"call() needs a function or the name of a durable job, not {type(target).__name__}.")
    name, codec = _plain(target)
    return target, name, codec, Options()


@lru_cache(maxsize=1024)
def _plain(function: Callable[..., Any]) -> tuple[str, Codec]:
    """Name a plain function and read its return annotation; remembered, as it costs more than a call."""
    name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__name__)}"
    annotation = return_annotation(function) if inspect.isfunction(function) else inspect.Parameter.empty
    return name[:200], Codec(annotation)


def _refuse_open_transaction(name: str) -> None:
    for connection in connections.all(initialized_only=True):
        # TestCase wraps each test in a transaction that is not the code's own.
        if connection.in_atomic_block and not all(
            getattr(block, "_from_testcase", False) for block in connection.atomic_blocks
        ):
            raise OpenTransaction(
                f"call({name}) was made inside atomic() on database {connection.alias!r}. If that transaction "
                "rolled back, the checkpoint would stay and the effects would not. Leave the block first."
            )


def _run_sync(one: _Call) -> Any:
    stored = one.recorded()
    if stored is not None:
        return one.replay(stored)
    failures = 0
    while True:
        try:
            with inside(one.child()):
                value = one.function(*one.args, **one.kwargs)
                if inspect.iscoroutine(value):
                    value = async_to_sync(_awaited)(value)
            text = one.encode(value)
        except (Interrupted, *ORDERS):
            raise
        except Exception as error:
            failures += 1
            # A result that cannot be stored will not be storable next time either.
            delay = None if isinstance(error, SerializationError) else one.retry_delay(failures)
            if delay is None:
                raise one.fail(error) from error
        else:
            return one.save(text)
        one.frame.job.pause(delay)


async def _awaited(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return await coroutine


async def _run_async(one: _Call) -> Any:
    stored = one.recorded() if one.frame.job.history_if_used else await sync_to_async(one.recorded, thread_sensitive=False)()
    if stored is not None:
        return one.replay(stored)
    failures = 0
    while True:
        try:
            with inside(one.child()):
                if inspect.iscoroutinefunction(one.function):
                    value = await one.function(*one.args, **one.kwargs)
                else:
                    value = await sync_to_async(one.function, thread_sensitive=False)(*one.args, **one.kwargs)
            text = one.encode(value)
        except (Interrupted, asyncio.CancelledError, *ORDERS):
            raise
        except Exception as error:
            failures += 1
            delay = None if isinstance(error, SerializationError) else one.retry_delay(failures)
            if delay is None:
                raise one.fail(error) from error
        else:
            return await sync_to_async(one.save, thread_sensitive=False)(text)
        await sync_to_async(one.frame.job.pause, thread_sensitive=False)(delay)


class Caller:
    """``call``: run a function inside a job, once. ``call.using(...)`` sets options for one call."""

    def __init__(self, options: Options | None = None) -> None:
        """Take the options that differ from the definition's."""
        self._options = options or Options()

    def using(self, *, retries: int | None = None, backoff: Backoff | None = None) -> Caller:
        """Return a caller with another number of repeats or another delay between them."""
        return Caller(_call_options(retries, backoff))

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def __call__(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def __call__(self, function: str, /, *args: Any, **kwargs: Any) -> Any: ...
    def __call__(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run ``function`` (durable job, its name, or a plain function) inside the running job.

        Its result is stored before it is returned, and it is not run again in a later attempt. At least once:
        a call that runs when the worker dies runs again. Raises what the function raises, after its repeats;
        ``NotInJob`` outside of a job, ``OpenTransaction`` inside ``atomic()``, ``NonDeterminism`` when the job
        recorded another call here.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return _run_sync(_Call(function, self._options, args, kwargs, "call()"))
        raise NotInJob("call() would block the event loop: write `await acall(...)` in an async job.")


class AsyncCaller:
    """``acall``: the same inside an ``async def`` job, awaited."""

    def __init__(self, options: Options | None = None) -> None:
        """Take the options that differ from the definition's."""
        self._options = options or Options()

    def using(self, *, retries: int | None = None, backoff: Backoff | None = None) -> AsyncCaller:
        """Return a caller with another number of repeats or another delay between them."""
        return AsyncCaller(_call_options(retries, backoff))

    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Awaitable[R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R]: ...
    @overload
    def __call__(self, function: str, /, *args: Any, **kwargs: Any) -> Awaitable[Any]: ...
    def __call__(self, function: Any, /, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        """Do what ``call`` does without blocking the event loop; a sync function runs in a thread.

        The place of the call is fixed here, not when it is awaited, so calls gathered together keep their keys
        in any order of completion.
        """
        return _run_async(_Call(function, self._options, args, kwargs, "acall()"))


def _call_options(retries: int | None, backoff: Backoff | None) -> Options:
    given = {"call_retries": retries, "call_backoff": backoff}
    return Options().changed({name: value for name, value in given.items() if value is not None})


call: Final = Caller()
acall: Final = AsyncCaller()


def call_idempotency_key() -> UUID:
    """Return the key of the durable call that is running here, the same in every attempt.

    Hand it to outside systems that recognise repeated requests. Outside of a call it is the job's own key.
    """
    frame = current_frame("call_idempotency_key()")
    return idempotency_key(frame.job.id, frame.path)
