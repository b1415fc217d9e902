"""Durable calls: run a function inside a job once, keep its result, and give it back on replay.

``call`` runs the function inline, in the job's own slot; ``acall`` is the same for ``async def`` jobs. The value
that the caller gets in the first run is read back from its stored form, so a replay gives the same value of the
same type. A call that fails is repeated inside the attempt (``call_retries``); its last error is raised.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, overload

from .. import ids
from ..options import Options
from .frames import current_frame, frame_of_async, frame_of_sync
from .running import Call, run_async, run_sync

if TYPE_CHECKING:
    from uuid import UUID

    from ..backoff import Backoff

P = ParamSpec("P")
R = TypeVar("R")

# What Python names when the result of acall() is never awaited.
run_async.__name__ = run_async.__qualname__ = "acall"


class Caller:
    """``call``: run a function inside a job, once. ``call.using(...)`` sets options for one call."""

    def __init__(self, options: Options | None = None) -> None:
        """Take the options that differ from the job's."""
        self._options = options or Options()

    def using(
        self,
        *,
        retries: int | None = None,
        backoff: Backoff | None = None,
        timeout: timedelta | float | None = None,
    ) -> Caller:
        """Return a caller with another number of repeats, delay between them, or time for one run of the function.

        The time is asked for at the durable calls that the function makes: it does not end code that makes none.
        """
        return Caller(call_options(retries, backoff, timeout))

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
        ``NotInJob`` outside of a job or in another thread of it, ``OpenTransaction`` inside ``atomic()``,
        ``NonDeterminism`` when the job recorded another call here.
        """
        return run_sync(Call(function, self._options, args, kwargs, frame_of_sync("call()")))


class AsyncCaller:
    """``acall``: the same inside an ``async def`` job, awaited."""

    def __init__(self, options: Options | None = None) -> None:
        """Take the options that differ from the job's."""
        self._options = options or Options()

    def using(
        self,
        *,
        retries: int | None = None,
        backoff: Backoff | None = None,
        timeout: timedelta | float | None = None,
    ) -> AsyncCaller:
        """Do what ``call.using`` does; a coroutine that takes longer than ``timeout`` is cancelled where it waits."""
        return AsyncCaller(call_options(retries, backoff, timeout))

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
        in any order of completion. A task that makes calls of its own must be one itself: ``gather(acall(branch,
        1), acall(branch, 2))``.
        """
        return run_async(Call(function, self._options, args, kwargs, frame_of_async("call()")))


def call_options(retries: int | None, backoff: Backoff | None, timeout: timedelta | float | None = None) -> Options:
    """Return the options of one call; ``OptionError`` for a value out of its range."""
    given = {"call_retries": retries, "call_backoff": backoff, "timeout": timeout}
    return Options().changed({name: value for name, value in given.items() if value is not None})


call: Final = Caller()
acall: Final = AsyncCaller()


def idempotency_key() -> UUID:
    """Return the key of the durable call or step that is running here, the same in every attempt.

    Hand it to outside systems that recognise repeated requests. Outside of a call it is the job's own key,
    ``current_job().idempotency_key``. Every other call of the job, and every other job, has another one; so has a
    call that runs again in a new generation of checkpoints, as after ``retry(job, from_call=...)``.
    """
    frame = current_frame("idempotency_key()")
    # Asked now: code that leaves the recorded way inside this call goes on in the generation of later attempts.
    return ids.idempotency_key(frame.job.id, frame.place, frame.name, frame.job.row.generation)
