"""One durable call on its way: look for its result, else run the function, repeat it if it fails, store the result.

What is told to users stands in ``call``; here are the two ways of going about it, ``run_sync`` and ``run_async``,
and what they have in common.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from asgiref.sync import async_to_sync
from django.db import DatabaseError

from ..conf import get_settings
from ..errors import (
    BrokenTransaction,
    JobCancelled,
    NonDeterminism,
    NoRetry,
    NotInJob,
    OpenTransaction,
    RetryAfter,
    SerializationError,
    Snooze,
    TimedOut,
    TooDeep,
)
from ..operations.connections import opened
from ..options import Options
from ..rendering import safe_str
from .frames import Frame, frames
from .points import Point, ended, refuse_open_transaction
from .targets import resolve

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

    from ..backoff import Backoff
    from ..dialects.rows import NewCheckpoint
    from ..operations.checkpoints import Stored
    from .threads import Helpers

MISUSE: Final = (NonDeterminism, NotInJob, OpenTransaction, TooDeep)
"""Errors of the job's code around the call: never repeated, never stored as the call's error."""
HOPELESS: Final = (*MISUSE, SerializationError)
"""Errors that end a job at once: the same code, or the same value, would meet the same refusal."""
NEVER_REPEATED: Final = (NoRetry, RetryAfter, Snooze, SerializationError, BrokenTransaction)
"""Orders to the job, values that could not be stored next time either, and a slip that may have left half a step."""

Result = TypeVar("Result")


class Call(Point):
    """One durable call on its way: everything that sync and async calls have in common."""

    __slots__ = ("args", "body", "codec", "function", "inner", "kwargs", "options")

    def __init__(
        self,
        target: object,
        options: Options,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        frame: Frame,
    ) -> None:
        self.function, name, self.codec, inner = resolve(target)
        self.inner = frame.options if inner is None else inner
        self.options = options
        self.args, self.kwargs = args, kwargs
        self.body: Frame | None = None
        super().__init__(name, "call", frame)

    def read(self, text: str) -> Any:
        """Read the stored form of the result, with the types of the function's annotation."""
        return self.codec.decode(text)

    def child(self) -> Frame:
        """Make the frame in which the function runs; each repeat begins to count anew."""
        around = self.frame
        around.job.history.note_body_begins(self.key)
        self.body = frame = Frame(around.job, self.inner, self.key, around.depth + 1, self.name)
        frame.place = self.place
        frame.deadline = around.deadline
        if self.timeout is not None:
            mine = around.job.after(self.timeout.total_seconds())
            frame.deadline = mine if around.deadline is None else min(mine, around.deadline)
        return frame

    @property
    def place(self) -> str:
        """Where the call is, for outside systems."""
        return f"{self.frame.place}{self.key.removeprefix(self.frame.path)}"

    @property
    def timeout(self) -> timedelta | None:
        """How long one run of the function may take."""
        own = self.options.timeout
        # A durable job that is called keeps its own limit; a plain function has none.
        return own if own is not None or self.inner is self.frame.options else self.inner.timeout

    def retry_delay(self, error: Exception, failures: int) -> float | None:
        """Return the seconds until the next repeat after this many failures, ``None`` when none is left."""
        if isinstance(error, NEVER_REPEATED):
            return None
        settings, around = get_settings(), self.frame.options
        retries = _first(self.options.call_retries, around.call_retries, settings.call_retries)
        if failures > retries:
            return None
        backoff: Backoff = _first(self.options.call_backoff, around.call_backoff, settings.call_backoff)
        return backoff.delay(failures - 1).total_seconds()

    def encode(self, value: object) -> str:
        """Put the result into its stored form."""
        self.refuse_open()
        if self.body is not None:
            self.job.history.note_returns(self.key, self.body.calls, self.function)
        return self.codec.encode(value, limit=get_settings().result_limit, what=f"result of {self.name}")

    def refuse_open(self, *, but: BaseDatabaseWrapper | None = None) -> None:
        """Raise ``OpenTransaction`` when the function left one open in this thread, but for connection ``but``."""
        if opened():
            what = f"{self.name} left a transaction open"
            refuse_open_transaction(what, "Commit or roll back before it returns.", but=but)

    def stored(self, rows: list[NewCheckpoint], text: str) -> Any:
        """Note that the rows are stored and return the result as it is read back."""
        self.job.history.note_stored(rows)
        return self.read(text)

    def not_stored(self, rows: list[NewCheckpoint], error: BaseException) -> None:
        """Note that the rows are not stored. The call runs again in the next attempt, if the error allows one."""
        self.job.history.note_refused(rows)
        if isinstance(error, DatabaseError):
            raise self.refused(error) from error

    def refused(self, error: DatabaseError) -> SerializationError:
        """Return what is raised when the database does not take the result."""
        refusal = f"{type(error).__name__}: {safe_str(error, 500)}"
        return SerializationError(f"The database refused the result of {self.name}: {refusal}")


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def run_sync(one: Call) -> Any:
    """Make a call in the thread of the job."""
    stored = one.recorded()
    if stored is not None:
        return one.replayed(stored)
    return store(one, repeated(one, lambda: one.encode(body(one))))


def repeated(one: Call, once: Callable[[], Result]) -> Result:
    """Run ``once`` until it succeeds or no repeat is left."""
    failures = 0
    while True:
        try:
            return once()
        except MISUSE:
            raise
        except Exception as error:
            failures += 1
            delay = one.retry_delay(error, failures)
            if delay is None:
                raise one.fail(error) from error
        one.frame.job.pause(delay)
        one.frame.check()


def store(one: Call, text: str) -> Any:
    """Store how a call ended; return it as it is read back."""
    rows = one.rows(text)
    try:
        one.frame.job.recorder.record(rows)
    except BaseException as error:
        one.not_stored(rows, error)
        raise
    return one.stored(rows, text)


def body(one: Call) -> Any:
    """Run the function of a call."""
    frame = one.child()
    token = frames.set(frame)
    try:
        value = one.function(*one.args, **one.kwargs)
    finally:
        frames.reset(token)
    if type(value) is CoroutineType:
        return async_to_sync(awaited)(frame, value)
    return value


async def awaited(frame: Frame, coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine in the present task, as the code of ``frame``."""
    frame.settle(asyncio.current_task())
    token = frames.set(frame)
    try:
        return await coroutine
    finally:
        frames.reset(token)


async def _body_async(one: Call, helpers: Helpers) -> Any:
    if not inspect.iscoroutinefunction(one.function):
        value = await helpers.run(lambda: _body_in_thread(one))
        if type(value) is not CoroutineType:
            return value
        return await awaited(one.child(), value)
    frame = one.child()
    token = frames.set(frame)
    try:
        coroutine = one.function(*one.args, **one.kwargs)
    finally:
        frames.reset(token)
    return await awaited(frame, coroutine)


async def body_in_time(one: Call, helpers: Helpers) -> Any:
    """Run the body of a call; what takes longer than it may is cancelled where it waits."""
    return await in_time(_body_async(one, helpers), one.timeout, f"Call {one.key} ({one.name})")


async def in_time(work: Coroutine[Any, Any, Result], longest: timedelta | None, what: str) -> Result:
    """Await ``work``; when it takes longer than it may, it is cancelled where it waits, and ``TimedOut`` is raised."""
    if longest is None:
        return await work
    limit = asyncio.timeout(longest.total_seconds())
    try:
        async with limit:
            return await work
    except TimeoutError as error:
        if limit.expired():
            raise TimedOut(f"{what} took longer than {longest}.") from error
        raise


def _body_in_thread(one: Call) -> Any:
    token = frames.set(one.child())
    try:
        value = one.function(*one.args, **one.kwargs)
        one.refuse_open()
        return value
    finally:
        frames.reset(token)


async def recorded_async(one: Call) -> Stored | None:
    """Look for what is recorded of a call, in the task that awaits it."""
    one.task = asyncio.current_task()
    if one.departs(one.key, one.kind):
        # Leaving the recorded way asks the database: not on the event loop.
        return await one.job.helpers.run(one.recorded)
    return one.recorded()


async def run_async(one: Call) -> Any:
    """Make a call in the task that awaits it."""
    stored = await recorded_async(one)
    if stored is not None:
        return one.replayed(stored)
    helpers = one.job.helpers

    async def once() -> str:
        return one.encode(await body_in_time(one, helpers))

    return await store_async(one, await repeated_async(one, once), helpers)


async def repeated_async(one: Call, once: Callable[[], Awaitable[Result]]) -> Result:
    """Do what ``repeated`` does, in the task that awaits it."""
    job, task = one.frame.job, asyncio.current_task()
    if task is not one.frame.task:
        job.note_task(task)
    failures = 0
    while True:
        one.frame.check()
        try:
            return await once()
        except MISUSE:
            raise
        except (SystemExit, KeyboardInterrupt) as error:
            if task is one.frame.task:
                raise
            # Out of a task of its own it would end the event loop, and every async job with it.
            raise one.fail(error, task) from error
        except Exception as error:
            failures += 1
            delay = one.retry_delay(error, failures)
            if delay is None:
                raise one.fail(error, task) from error
        await job.apause(delay)


async def store_async(one: Call, text: str, helpers: Helpers) -> Any:
    """Do what ``store`` does without blocking the event loop."""
    rows = one.rows(text)
    try:
        try:
            await helpers.record(rows)
        except asyncio.CancelledError:
            if not isinstance(one.job.why, JobCancelled):
                raise
            # The commit itself may have brought the order. The code is told what has happened, as it may have to
            # register what undoes that, and is stopped where it waits next.
            (await ended(helpers.record(rows)))[0].result()
            one.job.strike_again()
    except BaseException as error:
        one.not_stored(rows, error)
        raise
    return one.stored(rows, text)
