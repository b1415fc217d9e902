"""Group commit for checkpoints: calls of different jobs that finish together share one commit.

There is no thread for it. The first caller writes what is there; those that come meanwhile are taken together
by the next one. A single workflow so pays one commit and no change of thread, eight of them share. ``Scribe`` is
the door for the event loop, which cannot wait for a turn.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Protocol, TypeVar
from uuid import UUID

from ..dialects.rows import NewCheckpoint, Saved
from ..errors import Interrupted
from ..faults import fault
from ..operations.steps import cancelled, not_held, paused
from .doors import Shut

Rows = Sequence[NewCheckpoint]
Result = TypeVar("Result")


class Save(Protocol):
    """Stores rows of several jobs in one commit, and does other work in a transaction on the same connection."""

    def __call__(self, rows: Rows, /) -> Saved:
        """Store the rows."""
        ...

    def transact(self, work: Callable[[], Result], /) -> Result:
        """Do something in a transaction."""
        ...


class _Group:
    """One job's rows, stored all or none, and their fate."""

    __slots__ = ("error", "rows")

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.error: BaseException | None = None


class _Ticket:
    """One waiting thread and what it brought."""

    __slots__ = ("done", "gone", "groups", "leads", "turn")

    def __init__(self, groups: list[_Group]) -> None:
        self.groups = groups
        self.done = False
        self.leads = False
        self.gone = False
        # Held until this ticket is written, or it is this thread's turn to write.
        self.turn = threading.Lock()
        self.turn.acquire()


class Recorder:
    """Writes checkpoints for all threads of a process; ``record`` returns when they are committed."""

    def __init__(self, save: Save, ordered: Callable[[UUID, Interrupted], object] = lambda _job, _why: None) -> None:
        """Take what stores, which is called by one thread at a time, and whom to tell what a job is ordered to do."""
        self._save = save
        self._ordered = ordered
        self._guard = threading.Lock()
        self._writing = threading.Lock()
        self._busy = False
        self._queue: list[_Ticket] = []

    def record(self, rows: Rows) -> None:
        """Store the rows of one job.

        Raises ``LeaseLost`` when its token is no longer the present one, and the database's error when the
        commit failed; then nothing of it is stored.
        """
        fault("before-checkpoint")
        with Shut():
            (error,) = self.record_each([rows])
        if error is not None:
            raise error
        fault("after-checkpoint")

    def record_each(self, groups: Sequence[Rows]) -> list[BaseException | None]:
        """Store the rows of several jobs; return for each what ``record`` would raise."""
        mine = _Ticket([_Group(rows) for rows in groups])
        with self._guard:
            self._queue.append(mine)
            mine.leads = not self._busy
            self._busy = True
        if not mine.leads:
            try:
                mine.turn.acquire()
            except BaseException:
                # Something was raised into this thread while it waited; the others must not wait for it.
                self._abandon(mine)
                raise
        if not mine.done:
            self._lead(mine)
        return [group.error for group in mine.groups]

    def transact(self, work: Callable[[], Result]) -> Result:
        """Do ``work`` in a transaction on the connection of the checkpoints, which no user code has touched.

        It is done again when an answer was lost: it must begin by looking whether it has happened.
        """
        fault("before-step")
        with Shut(), self._writing:
            result = self._save.transact(work)
        fault("after-step")
        return result

    def close(self) -> None:
        """Let ``save`` free what it holds, unless somebody still writes; one that writes later takes it again."""
        close = getattr(self._save, "close", None)
        if close is not None and self._writing.acquire(timeout=1.0):
            try:
                close()
            finally:
                self._writing.release()

    def _lead(self, mine: _Ticket) -> None:
        """Write everything that waits, then give the turn to whoever came meanwhile."""
        with self._guard:
            batch, self._queue = self._queue, []
        try:
            self._write_all([group for ticket in batch for group in ticket.groups])
            for ticket in batch:
                ticket.done = True
        finally:
            with self._guard:
                # Not decided when something was raised into this thread: the next one writes them.
                self._queue[:0] = [ticket for ticket in batch if not (ticket.done or ticket.gone or ticket is mine)]
                following = self._next()
            for ticket in batch:
                if ticket.done and ticket is not mine:
                    ticket.turn.release()
            if following is not None:
                following.turn.release()

    def _next(self) -> _Ticket | None:
        following = self._queue[0] if self._queue else None
        self._busy = following is not None
        if following is not None:
            following.leads = True
        return following

    def _abandon(self, mine: _Ticket) -> None:
        with self._guard:
            mine.gone = True
            if mine in self._queue:
                self._queue.remove(mine)
            following = self._next() if mine.leads else None
        if following is not None:
            following.turn.release()

    def _write_all(self, groups: list[_Group]) -> None:
        try:
            self._write(groups)
        except Interrupted as error:
            for group in groups:
                group.error = type(error)(*error.args)
        except Exception as error:  # noqa: BLE001 -- each caller gets it
            if len(groups) == 1:
                groups[0].error = error
                return
            # One row that the database refuses must not take the others with it.
            for group in groups:
                self._write_all([group])

    def _write(self, groups: list[_Group]) -> None:
        with self._writing:
            saved = self._save([row for group in groups for row in group.rows])
        for job_id in saved.cancelled:
            self._ordered(job_id, cancelled(job_id))
        for job_id in saved.pausing:
            self._ordered(job_id, paused(job_id))
        for group in groups:
            if any((row.job_id, row.key) not in saved.stored for row in group.rows):
                group.error = not_held(group.rows[0].job_id)


class Scribe:
    """Records for the event loop: what gathers while one commit is on its way goes into the next one."""

    def __init__(self, recorder: Recorder) -> None:
        """Take the process's recorder; the thread starts with the first row."""
        self._recorder = recorder
        self._queue: SimpleQueue[tuple[Rows, Future[None]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._guard = threading.Lock()

    async def record(self, rows: Rows) -> None:
        """Do what ``Recorder.record`` does. Cancelling gives up the answer, not the writing once it has begun."""
        fault("before-checkpoint")
        with self._guard:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="durable-jobs-checkpoints", daemon=True)
                self._thread.start()
        future: Future[None] = Future()
        self._queue.put((rows, future))
        await asyncio.wrap_future(future)
        fault("after-checkpoint")

    def close(self) -> None:
        """Let the thread end after what it was given."""
        self._queue.put(None)

    def _work(self) -> None:
        while (first := self._queue.get()) is not None:
            batch = [first]
            with suppress(Empty):
                while (item := self._queue.get_nowait()) is not None:
                    batch.append(item)
                self._queue.put(None)
            batch = [item for item in batch if item[1].set_running_or_notify_cancel()]
            try:
                errors = self._recorder.record_each([rows for rows, _ in batch]) if batch else []
            except BaseException as error:  # noqa: BLE001 -- the thread serves every async job
                errors = [error] * len(batch)
            for (_, future), outcome in zip(batch, errors, strict=True):
                if outcome is None:
                    future.set_result(None)
                else:
                    future.set_exception(outcome)
