"""Where job functions run: threads for sync jobs, one event loop for ``async def`` jobs.

A thread is sent to a lane and works there until nothing is left, so that many short jobs run per change of
thread. All threads are daemons: user code that never ends must not keep a stopped worker alive.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

from django.db import connections

from ..clock import SYSTEM, Clock
from ..dialects.rows import Claimed
from ..outcomes import Outcome
from .chunks import ChunkExecutor
from .lanes import Chunk, Lane, Unit

logger = logging.getLogger(__name__)

TURN: Final = 0.02
"""Seconds that a thread stays with one lane while others may wait."""

Ended = Callable[[Claimed, Outcome], None]


class ThreadPool:
    """Threads that run sync jobs, made when first needed, ``size`` at most."""

    def __init__(self, size: int, executor: ChunkExecutor, ended: Ended, *, clock: Clock = SYSTEM) -> None:
        """Take what runs a job, and whom to tell its outcome."""
        self._size = size
        self._executor = executor
        self._ended = ended
        self._clock = clock
        self._turns: SimpleQueue[Lane | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._guard = threading.Lock()

    def send(self, lane: Lane, count: int) -> None:
        """Let ``count`` more threads work on this lane."""
        for _ in range(count):
            if not lane.enter():
                return
            with self._guard:
                if self._idle > 0:
                    self._idle -= 1
                elif len(self._threads) < self._size:
                    thread = threading.Thread(
                        target=self._work, name=f"durable-jobs-{len(self._threads) + 1}", daemon=True
                    )
                    self._threads.append(thread)
                    thread.start()
            self._turns.put(lane)

    def close(self) -> None:
        """Let idle threads end; those that run user code end with it, or with the process."""
        for _ in self._threads:
            self._turns.put(None)

    def _work(self) -> None:
        try:
            while (lane := self._turns.get()) is not None:
                self._work_on(lane)
                with self._guard:
                    self._idle += 1
        finally:
            connections.close_all()

    def _work_on(self, lane: Lane) -> None:
        """Run jobs of a lane, whose slot this thread has, until none waits or the turn is over."""
        monotonic = self._clock.monotonic
        turn_ends = monotonic() + TURN
        while True:
            while (job := lane.next_for_thread()) is not None:
                began = monotonic()
                if isinstance(job, Chunk):
                    ended = self._executor.run_chunk(job.jobs)
                    lane.took(monotonic() - began)
                    for one, outcome in ended:
                        self._ended(one, outcome)
                    continue
                outcome = self._executor.run(job)
                lane.took(monotonic() - began)
                self._ended(job, outcome)
                if began > turn_ends and not self._turns.empty():
                    # Another lane may wait for a thread: begin again at the end of the row, keeping the slot.
                    self._turns.put(lane)
                    with self._guard:
                        self._idle -= 1
                    return
            lane.leave()
            # A job that was added between the last look and the leaving had counted on this thread.
            if not (lane.has_work_for_threads() and lane.enter()):
                return


class Loop:
    """One event loop in a thread of its own, started with the first async job."""

    def __init__(self, executor: ChunkExecutor, ended: Ended, *, clock: Clock = SYSTEM) -> None:
        """Take what runs a job, and whom to tell its outcome."""
        self._executor = executor
        self._ended = ended
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def pump(self, lane: Lane) -> None:
        """Begin every job of the lane that has a slot; from any thread."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._serve, name="durable-jobs-loop", daemon=True)
            self._thread.start()
        self._loop.call_soon_threadsafe(self._pump, lane)

    def cancel_all(self) -> None:
        """Cancel every running task; their jobs were interrupted before, so they end as released."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._cancel_all)

    def close(self) -> None:
        """End the loop's thread."""
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            # User code that blocks the loop must not keep a stopped worker alive.
            self._thread.join(1.0)

    def _serve(self) -> None:
        assert self._loop is not None  # noqa: S101 -- pump() made it
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def _pump(self, lane: Lane) -> None:
        assert self._loop is not None  # noqa: S101 -- pump() made it
        while (job := lane.next_for_loop()) is not None:
            task = self._loop.create_task(self._run(lane, job))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, lane: Lane, job: Unit) -> None:
        began = self._clock.monotonic()
        try:
            if isinstance(job, Chunk):
                ended = await self._executor.run_chunk_async(job.jobs)
            else:
                ended = [(job, await self._executor.run_async(job))]
        finally:
            lane.took(self._clock.monotonic() - began)
            lane.leave()
        for one, outcome in ended:
            self._ended(one, outcome)
        self._pump(lane)

    def _cancel_all(self) -> None:
        for task in list(self._tasks):
            task.cancel()
