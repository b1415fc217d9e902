"""Group commit for checkpoints: calls of different jobs that finish together share one commit.

There is no thread for it. The first caller writes what is there; those that come meanwhile are taken together
by the next one. A single workflow so pays one commit and no change of thread, eight of them share.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from uuid import UUID

from ..dialects.rows import NewCheckpoint
from ..errors import LeaseLost
from ..faults import fault

Save = Callable[[Sequence[NewCheckpoint]], set[tuple[UUID, str]]]


class _Waiting:
    """One caller's rows and their fate."""

    __slots__ = ("done", "error", "rows")

    def __init__(self, rows: Sequence[NewCheckpoint]) -> None:
        self.rows = rows
        self.done = False
        self.error: BaseException | None = None


class Recorder:
    """Writes checkpoints for all threads of a process; ``record`` returns when they are committed."""

    def __init__(self, save: Save) -> None:
        """Take the operation that stores rows of several jobs in one commit."""
        self._save = save
        self._turn = threading.Lock()
        self._guard = threading.Lock()
        self._queue: list[_Waiting] = []

    def record(self, rows: Sequence[NewCheckpoint]) -> None:
        """Store the rows of one job.

        Raises ``LeaseLost`` when its token is no longer the present one, and the database's error when the
        commit failed; then nothing of it is stored.
        """
        fault("before-checkpoint")
        mine = _Waiting(rows)
        with self._guard:
            self._queue.append(mine)
        with self._turn:
            if not mine.done:
                self._write_all()
        if mine.error is not None:
            raise mine.error
        fault("after-checkpoint")

    def _write_all(self) -> None:
        with self._guard:
            batch, self._queue = self._queue, []
        try:
            self._write(batch)
        except Exception as error:  # noqa: BLE001 -- each caller gets it
            if len(batch) == 1:
                batch[0].error = error
            else:
                # One row that the database refuses must not take the others with it.
                for waiting in batch:
                    try:
                        self._write([waiting])
                    except Exception as own:  # noqa: BLE001 -- as above
                        waiting.error = own
        for waiting in batch:
            waiting.done = True

    def _write(self, batch: list[_Waiting]) -> None:
        stored = self._save([row for waiting in batch for row in waiting.rows])
        for waiting in batch:
            if any((row.job_id, row.key) not in stored for row in waiting.rows):
                waiting.error = LeaseLost(f"Job {waiting.rows[0].job_id} is no longer held under this token.")
