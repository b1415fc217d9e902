"""Matching the calls that the code makes with those that were recorded.

A job's function runs again from its start; each durable call looks here first. Calls are recognised by their
place (the key, in creation order) and name. Another name at a recorded place stops the job: the value of one
call is never given to another.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterable
from types import FrameType
from typing import Any, Final, NamedTuple

from ..dialects.rows import Claimed, NewCheckpoint
from ..errors import NonDeterminism
from ..operations.checkpoints import Stored

PACKAGE: Final = __name__.partition(".")[0] + "."
Task = asyncio.Task[Any]


class _Raised(NamedTuple):
    """An error on its way through the code, and the task in which its call ended; ``None`` outside of a loop."""

    row: NewCheckpoint
    task: Task | None


class History:
    """What is recorded of one job, as this attempt knows it. Safe for threads: an async job's calls have several."""

    def __init__(self, row: Claimed, recorded: dict[str, Stored]) -> None:
        """Take the claimed job and its checkpoints by key; the first claim of a job has none."""
        self._row = row
        self._recorded = recorded
        self._guard = threading.RLock()
        # Nested calls by the key of the call that made them.
        self._below: dict[str, list[str]] = {}
        for key in recorded:
            self._note_below(key)
        # Errors of calls, not stored yet: only going on shows that the code caught one. An error that ends the
        # attempt never gets a row, so the next attempt makes that call again.
        self._raised: list[_Raised] = []
        self._caught: list[NewCheckpoint] = []
        self.broken: NonDeterminism | None = None
        """Set once the code made another call than the recorded one: swallowing that error does not help."""

    def find(self, key: str, name: str, kind: str = "call") -> Stored | None:
        """Return what is recorded for this call, or ``None`` when it has not been made yet.

        Raises ``NonDeterminism`` when another call is recorded at this place.
        """
        stored = self._recorded.get(key)
        if stored is not None and (stored.name, stored.kind) != (name, kind):
            self.broken = NonDeterminism(
                f"Call {key} of job {self._row.id} ({self._row.definition}) was recorded as {stored.name!r}, but the "
                f"code now calls {name!r} there{_code_line()}. Calls are recognised by order and name: let jobs that "
                "have begun finish with the code they began with, or give the changed job a new name."
            )
            raise self.broken
        return stored

    def goes_on_after(self, key: str) -> bool:
        """Answer whether the next call at the same level is recorded, so that the code has been past this one."""
        head, _dot, last = key.rpartition(".")
        following = str(int(last) + 1)
        return (f"{head}.{following}" if head else following) in self._recorded

    def goes_beyond(self, path: str, calls: int) -> bool:
        """Answer whether a call is recorded, or has begun, after the first ``calls`` ones made at ``path``."""
        head = f"{path}." if path else ""
        with self._guard:
            numbers = [key[len(head) :].partition(".")[0] for key in self._recorded if key.startswith(head)]
        return any(number.isdecimal() and int(number) > calls for number in numbers)

    def remember(self, key: str, stored: Stored) -> None:
        """Know of something that is recorded apart from the calls, for the rest of the attempt."""
        with self._guard:
            self._recorded[key] = stored

    def checkpoint(
        self, key: str, name: str, kind: str, *, result: str | None = None, error: str | None = None
    ) -> NewCheckpoint:
        """Make the row for a call of this attempt."""
        row = self._row
        return NewCheckpoint(row.id, row.token, row.generation, key, name, kind, result, error)

    def rows_for(self, checkpoint: NewCheckpoint) -> list[NewCheckpoint]:
        """Return what goes into the commit of a call that returned: errors that were caught before it, and itself."""
        with self._guard:
            self.drop_errors_below(checkpoint.key)
            return [*self.take_caught(), checkpoint]

    def note_refused(self, rows: list[NewCheckpoint]) -> None:
        """Take errors back that were to be stored with a call which was not; the last row is that call's own."""
        with self._guard:
            self._caught[:0] = rows[:-1]

    def note_stored(self, rows: list[NewCheckpoint]) -> None:
        """Remember nested calls for a repeat of their parent in this attempt; forget what is below a stored call."""
        with self._guard:
            for row in rows:
                if self._below:
                    self._forget_below(row.key)
                if "." in row.key:
                    self._recorded[row.key] = Stored(row.name, row.kind, row.result, row.error)
                    self._note_below(row.key)

    # Errors -------------------------------------------------------------------------------------------------

    def note_error(self, checkpoint: NewCheckpoint, task: Task | None) -> None:
        """Remember the error of a call that is being raised into the code that made the call, in ``task``."""
        with self._guard:
            self.drop_errors_below(checkpoint.key)
            self._raised.append(_Raised(checkpoint, task))

    def note_call_begins(self, path: str, task: Task | None) -> None:
        """Note that the code at ``path`` goes on with another call: what was raised there, it has caught.

        Raises ``NonDeterminism`` again if it was raised before and the code swallowed it.
        """
        if self.broken is not None:
            raise self.broken
        if self._raised:
            with self._guard:
                here = (one for one in self._raised if _parent(one.row.key) == path)
                self._take_as_caught(one for one in here if received(one.task, task))

    def note_job_returns(self) -> None:
        """Note that the job's function returned: whatever was raised, it has caught."""
        if self.broken is not None:
            raise self.broken
        with self._guard:
            self._take_as_caught(self._raised)

    def take_caught(self) -> list[NewCheckpoint]:
        """Take the errors that are known to be caught; they go into the next commit."""
        with self._guard:
            taken, self._caught = self._caught, []
            return taken

    def drop_errors_below(self, key: str) -> None:
        """Forget errors inside call ``key``: it is recorded itself, or is made again."""
        if self._raised or self._caught:
            below = f"{key}."
            with self._guard:
                self._raised = [one for one in self._raised if not one.row.key.startswith(below)]
                self._caught = [row for row in self._caught if not row.key.startswith(below)]

    def _take_as_caught(self, those: Iterable[_Raised]) -> None:
        taken = list(those)
        self._caught += [one.row for one in taken]
        self._raised = [one for one in self._raised if one not in taken]

    # Nesting ------------------------------------------------------------------------------------------------

    def _note_below(self, key: str) -> None:
        parent = _parent(key)
        if parent:
            self._below.setdefault(parent, []).append(key)

    def _forget_below(self, key: str) -> None:
        for inner in self._below.pop(key, ()):
            self._recorded.pop(inner, None)
            self._forget_below(inner)


def _code_line() -> str:
    """Say where in the project's code the present call is made; only asked for an error message."""
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 -- what traceback does, without reading source files
    while frame is not None and (frame.f_globals.get("__name__") or "").startswith(PACKAGE):
        frame = frame.f_back
    return "" if frame is None else f" ({frame.f_code.co_filename}:{frame.f_lineno})"


def _parent(key: str) -> str:
    return key.rpartition(".")[0]


def received(failed_in: Task | None, now_in: Task | None) -> bool:
    """Answer whether the code has seen what a call raised that ended in one task, when it goes on in another.

    ``gather`` and ``create_task`` run calls in tasks of their own, and the code may go on before it looks at them:
    an error that nobody has asked for yet may still end the attempt.
    """
    if failed_in is None or failed_in is now_in:
        return True
    # True until somebody takes the result or the exception; asyncio logs "never retrieved" by it.
    return failed_in.done() and not failed_in.cancelled() and not getattr(failed_in, "_log_traceback", False)
