"""Matching the calls that the code makes with those that were recorded.

A job's function runs again from its start; each durable call looks here first. Calls are recognised by their
place (the key, in creation order) and name. Another name at a recorded place stops the job, or begins a new
generation (``Determinism``): the value of one call is never given to another.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from ..determinism import Determinism
from ..dialects.rows import Claimed, NewCheckpoint
from ..errors import NonDeterminism
from ..operations.checkpoints import BEGINNING, Stored
from ..operations.compensations import ENDING_KEY, undoes
from ..operations.facts import tell_saved
from ..operations.generations import Keep, place_of
from ..signals import checkpoint_saved
from .lines import code_line, line_of
from .order import left_out, parent_of, unknown_to, what_stays

if TYPE_CHECKING:
    from .points import Point

Task = asyncio.Task[Any]
ADVICE: Final = (
    "Calls are recognised by order and name: let jobs that have begun finish with the code they began with, or give "
    "the changed job a new name."
)
IN_BRANCHES: Final = (
    "In and beside branches of an async job the recorded calls are kept to, in the mode BEST_EFFORT too."
)


class _Raised(NamedTuple):
    """An error on its way through the code, and the task in which its call ended; ``None`` outside of a loop."""

    row: NewCheckpoint
    task: Task | None


class History:
    """What is recorded of one job, as this attempt knows it. Safe for threads: an async job's calls have several."""

    def __init__(self, row: Claimed, recorded: dict[str, Stored], mode: Determinism = Determinism.EXPLICIT) -> None:
        """Take the claimed job and its checkpoints by key; the first claim of a job has none."""
        self._row = row
        self._recorded = recorded
        self._mode = mode
        self._guard = threading.RLock()
        # Keys whose values the code has, where a new generation may have to keep them.
        self._used: set[str] | None = set() if mode is Determinism.BEST_EFFORT else None
        # Nested calls by the key of the call that made them.
        self._below: dict[str, list[str]] = {}
        for key in recorded:
            self._note_below(key)
        self.compensated = any(undoes(one) for one in recorded.values())
        """Whether something is registered that undoes what the job has done."""
        # Errors of calls, not stored yet: only going on shows that the code caught one. An error that ends the
        # attempt never gets a row, so the next attempt makes that call again.
        self._raised: list[_Raised] = []
        self._caught: list[NewCheckpoint] = []
        self.broken: NonDeterminism | None = None
        """Set once the code made another call than the recorded one: swallowing that error does not help."""
        self.watch: Callable[[Point, str, Stored | None], None] | None = None
        """Told of everything that is looked for; set where a history is checked (``rehearsal.py``)."""

    def find(self, key: str, name: str, kind: str = "call", *, task: Task | None = None) -> Stored | None:
        """Return what is recorded for this call, or ``None`` when it has not been made yet.

        Raises ``NonDeterminism`` when another call is recorded at this place; ``task`` is the one whose code
        makes the call, for its message.
        """
        stored = self._recorded.get(key)
        other = self._other(key, name, kind)
        if other is not None:
            self._break(
                f"{self._two_calls(other, key, name, kind, task)}. {ADVICE if self._used is None else IN_BRANCHES}"
            )
        if stored is not None and self._used is not None:
            self._used.add(key)
        return stored

    @property
    def is_being_undone(self) -> bool:
        """Whether the job has ended but for its compensations: its function does not run again."""
        return self.compensated and ENDING_KEY in self._recorded

    def _other(self, key: str, name: str, kind: str) -> Stored | None:
        """Return what is recorded at this place if it is another call, or a wait that began here and is another one."""
        stored = self._recorded.get(key)
        if stored is not None:
            return None if (stored.name, stored.kind) == (name, kind) else stored
        begun = self._recorded.get(f"{key}{BEGINNING}") if self._recorded else None
        if begun is None or (begun.name, begun.begins) == (name, kind):
            return None
        return begun._replace(kind=begun.begins)

    def _two_calls(self, stored: Stored, key: str, name: str, kind: str, task: Task | None) -> str:
        was, now = (f" ({one})" if stored.kind != kind else "" for one in (stored.kind, kind))
        return (
            f"Call {key} of job {self._row.id} ({self._row.definition}) was recorded as {stored.name!r}{was}, but the "
            f"code now calls {name!r}{now} there{code_line(task)}"
        )

    def _break(self, message: str) -> NoReturn:
        self.broken = NonDeterminism(message)
        raise self.broken

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
        if checkpoint_saved.receivers:
            tell_saved(self._row, rows)
        with self._guard:
            if self._used is not None:
                self._used.update(row.key for row in rows)
            for row in rows:
                if self._below:
                    self._forget_below(row.key)
                if "." in row.key:
                    self._recorded[row.key] = Stored(row.name, row.kind, row.result, row.error)
                    self._note_below(row.key)

    # Other ways ---------------------------------------------------------------------------------------------

    def departs(self, key: str, name: str, kind: str) -> bool:
        """Answer whether another call is recorded at this place, and the code may leave the recorded way here."""
        return self._used is not None and self._other(key, name, kind) is not None and place_of(key) is not None

    def departure(self, key: str, name: str, kind: str, task: Task | None) -> str:
        """Say where the code leaves the recorded way: both calls, and the line."""
        other = self._other(key, name, kind)
        assert other is not None  # noqa: S101 -- that is why it does
        return self._two_calls(other, key, name, kind, task)

    def what_stays(self, key: str) -> Keep:
        """Say which checkpoints stay when the code leaves the recorded way at call ``key``."""
        return what_stays(key, tuple(self._used or ()))

    def go_on_in(self, row: Claimed, key: str, kept: Collection[str]) -> None:
        """Go on in a new generation, which has the checkpoints ``kept``, after the recorded way was left at ``key``.

        Raises ``NonDeterminism`` when a branch took the value of a call that is not kept, in the meantime.
        """
        with self._guard:
            self._row = row
            self._recorded = {one: stored for one, stored in self._recorded.items() if one in kept}
            self._below = {}
            for one in self._recorded:
                self._note_below(one)
            self._caught = [one._replace(generation=row.generation) for one in self._caught]
            self._raised = [one._replace(row=one.row._replace(generation=row.generation)) for one in self._raised]
            late = unknown_to(kept, self._used or (), key)
            self._used = set(kept).intersection(self._used or ())
        if late is not None:
            self._break(f"Job {row.id} left its recorded calls at {key}, and a branch used call {late} meanwhile.")

    def note_body_begins(self, key: str) -> None:
        """Note that the function of call ``key`` runs, perhaps again: errors and values inside it are gone."""
        self.drop_errors_below(key)
        if self._used:
            with self._guard:
                self._drop_use_below(key)

    def _drop_use_below(self, key: str) -> None:
        for inner in self._below.get(key, ()):
            (self._used or set()).discard(inner)
            self._drop_use_below(inner)

    def note_returns(self, path: str, calls: int, function: Callable[..., Any]) -> None:
        """Note that the code at ``path`` returned after so many calls.

        Raises ``NonDeterminism`` in the mode ``STRICT`` when more are recorded there.
        """
        if self._mode is not Determinism.STRICT:
            return
        left = left_out(self._recorded, path, calls)
        if left:
            self._break(
                f"{f'Call {path}' if path else 'The code'} of job {self._row.id} ({self._row.definition}) returned "
                f"after {calls} calls without making those recorded after them: {left}{line_of(function)}."
            )

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
                here = (one for one in self._raised if parent_of(one.row.key) == path)
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
        parent = parent_of(key)
        if parent:
            self._below.setdefault(parent, []).append(key)

    def _forget_below(self, key: str) -> None:
        for inner in self._below.pop(key, ()):
            self._recorded.pop(inner, None)
            self._forget_below(inner)


def received(failed_in: Task | None, now_in: Task | None) -> bool:
    """Answer whether the code has seen what a call raised that ended in one task, when it goes on in another.

    ``gather`` and ``create_task`` run calls in tasks of their own, and the code may go on before it looks at them:
    an error that nobody has asked for yet may still end the attempt.
    """
    if failed_in is None or failed_in is now_in:
        return True
    # True until somebody takes the result or the exception; asyncio logs "never retrieved" by it.
    return failed_in.done() and not failed_in.cancelled() and not getattr(failed_in, "_log_traceback", False)
