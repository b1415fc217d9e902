"""Threads in which async jobs run sync code: few, daemons, and each with clean database connections.

Django keeps connections per thread, and the loop's own pool knows nothing of cleaning them. Here is a pool for sync
functions that are called durably, some single threads for what must stay in one thread (Django's async ORM), and
the thread that stores checkpoints. How a thread is cleaned is the worker's to say.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from queue import SimpleQueue
from typing import Any, Final, TypeVar, cast

from asgiref.sync import SyncToAsync, ThreadSensitiveContext, sync_to_async
from django.db import connections

from .recorder import Recorder, Rows, Scribe

Result = TypeVar("Result")
Around = Callable[[Callable[[], Any]], Any]
"""Calls a function with whatever must happen before and after it in its thread."""

LANES: Final = 4
"""Threads for code that must stay in one thread; jobs share them when there are more jobs."""


class Threads(Executor):
    """A pool of at most ``size`` daemon threads: user code that never ends must not keep a stopped worker alive."""

    def __init__(self, size: int, name: str, around: Around) -> None:
        """Take how every function is run; threads are made when first needed."""
        self._size = size
        self._name = name
        self._around = around
        self._queue: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._guard = threading.Lock()
        self._count = 0
        self._free = 0
        self.dirty = False

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function soon."""
        future: Future[Any] = Future()
        with self._guard:
            if self._free > 0:
                self._free -= 1
            elif self._count < self._size:
                self._count += 1
                threading.Thread(target=self._work, name=f"{self._name}-{self._count}", daemon=True).start()
        self.dirty = True
        self._queue.put((future, partial(function, *args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 -- the interface's
        """Let the threads end after what they were given; never waits."""
        with self._guard:
            for _ in range(self._count):
                self._queue.put(None)

    def _work(self) -> None:
        try:
            while (item := self._queue.get()) is not None:
                self._do(*item)
                del item
                with self._guard:
                    self._free += 1
        finally:
            connections.close_all()

    def _do(self, future: Future[Any], work: Callable[[], Any]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            value = self._around(work)
        except BaseException as error:  # noqa: BLE001 -- whoever waits gets it
            future.set_exception(error)
        else:
            future.set_result(value)


class Helpers:
    """What async jobs of one worker need beside their loop."""

    def __init__(
        self, recorder: Recorder, size: int, *, around: Around, between: Around, clean: Callable[[], object]
    ) -> None:
        """Take how to run a function with a thread to itself (``around``) and in a shared one (``between``)."""
        self._pool = Threads(size, "durable-jobs-sync", around)
        self._scribe = Scribe(recorder)
        self._clean = clean
        self._lanes = [Threads(1, f"durable-jobs-lane-{number}", between) for number in range(LANES)]
        # Contexts that stand for the lanes; asgiref looks the executor up by them.
        self._contexts = [ThreadSensitiveContext() for _ in self._lanes]
        for context, lane in zip(self._contexts, self._lanes, strict=True):
            SyncToAsync.context_to_thread_executor[context] = cast("Any", lane)
        self._turns = itertools.cycle(range(LANES))

    async def run(self, function: Callable[[], Result]) -> Result:
        """Run a sync function in a thread with clean connections, in a copy of the caller's context."""
        return await sync_to_async(function, thread_sensitive=False, executor=cast("Any", self._pool))()

    async def record(self, rows: Rows) -> None:
        """Store checkpoints; see ``Recorder.record``."""
        await self._scribe.record(rows)

    def enter(self) -> int:
        """Give the present task, a job's, a thread for what must stay in one thread; return the thread's number."""
        number = next(self._turns)
        SyncToAsync.thread_sensitive_context.set(self._contexts[number])
        return number

    def leave(self, number: int) -> None:
        """Clean the thread of a job that is over."""
        lane = self._lanes[number]
        if lane.dirty:
            lane.submit(self._clean)
            lane.dirty = False

    def close(self) -> None:
        """Let the threads end."""
        for threads in (self._pool, *self._lanes):
            threads.shutdown()
        self._scribe.close()
