"""Matching the calls that the code makes with those that were recorded.

A job's function runs again from its start; each durable call looks here first. Calls are recognised by their
place (the key, in creation order) and name. Another name at a recorded place stops the job, or begins a new
generation (``Determinism``): the value of one call is never given to another.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from ..determinism import Determinism
from ..dialects.rows import Claimed, NewCheckpoint
from ..errors import NonDeterminism
from ..operations.checkpoints import Stored
from ..operations.generations import Keep, Place, before, place_of
from .places import code_line, line_of

if TYPE_CHECKING:
    from .points import Point

Task = asyncio.Task[Any]
logger = logging.getLogger("django_durable_jobs.jobs")
ADVICE: Final = (
    "Calls are recognised by order and name: let jobs that have begun finish with the code they began with, or give "
    "the changed job a new name."
)
IN_BRANCHES: Final = (
    "In and beside branches of an async job the recorded calls are kept to, in the mode BEST_EFFORT too."
)
SHOWN: Final = 5
"""Calls that an error names at most."""


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
        # Errors of calls, not stored yet: only going on shows that the code caught one. An error that ends the
        # attempt never gets a row, so the next attempt makes that call again.
        self._raised: list[_Raised] = []
        self._caught: list[NewCheckpoint] = []
        self.broken: NonDeterminism | None = None
        """Set once the code made another call than the recorded one: swallowing that error does not help."""
        self.watch: Callable[[Point, str, Stored | None], None] | None = None
        """Told of everything that is looked for; set where a history is checked (``durable/history.py``)."""

    def find(self, key: str, name: str, kind: str = "call", *, task: Task | None = None) -> Stored | None:
        """Return what is recorded for this call, or ``None`` when it has not been made yet.

        Raises ``NonDeterminism`` when another call is recorded at this place; ``task`` is the one whose code
        makes the call, for its message.
        """
        stored = self._recorded.get(key)
        if stored is not None and (stored.name, stored.kind) != (name, kind):
            self._break(
                f"{self._two_calls(stored, key, name, kind, task)}. {ADVICE if self._used is None else IN_BRANCHES}"
            )
        if stored is not None and self._used is not None:
            self._used.add(key)
        return stored

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
        stored = None if self._used is None else self._recorded.get(key)
        return stored is not None and (stored.name, stored.kind) != (name, kind) and place_of(key) is not None

    def log_departure(self, key: str, name: str, kind: str, task: Task | None) -> None:
        """Log both calls and the code line."""
        logger.warning(
            "%s; from here on the calls run again, in generation %d",
            self._two_calls(self._recorded[key], key, name, kind, task),
            self._row.generation + 1,
        )

    def what_stays(self, key: str) -> Keep:
        """Say which checkpoints stay when the code leaves the recorded way at call ``key``.

        Those before it, and later ones whose values the code has: async code may wait for its calls in another
        order than it made them in.
        """
        is_before = before(place_of(key) or ())
        used = tuple(f"{one}." for one in self._used or () if not (is_before(one) or _is_in(one, key)))

        def stays(one: str) -> bool:
            return is_before(one) or place_of(one) is None or f"{one}.".startswith(used)

        return stays

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
            late = sorted(one for one in self._used or () if one not in kept and not _is_in(one, key))
            if self._used is not None:
                self._used.intersection_update(kept)
        if late:
            self._break(f"Job {row.id} left its recorded calls at {key}, and a branch used call {late[0]} meanwhile.")

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
        here = place_of(path) if path else ()
        left = [key for key in self._recorded if _is_beyond(place_of(key), here, calls)]
        outer = sorted((key for key in left if _parent(key) not in self._recorded), key=lambda key: place_of(key) or ())
        if outer:
            names = [f"{key} {self._recorded[key].name!r}" for key in outer[:SHOWN]]
            more = f" and {len(outer) - SHOWN} more" if len(outer) > SHOWN else ""
            self._break(
                f"{f'Call {path}' if path else 'The code'} of job {self._row.id} ({self._row.definition}) returned "
                f"after {calls} calls without making those recorded after them: {', '.join(names)}{more}"
                f"{line_of(function)}."
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


def _parent(key: str) -> str:
    return key.rpartition(".")[0]


def _is_in(key: str, call: str) -> bool:
    return f"{key}.".startswith(f"{call}.")


def _is_beyond(place: Place | None, path: Place | None, calls: int) -> bool:
    """Answer whether a checkpoint belongs to a call that would have come after the calls made at ``path``."""
    # What only the beginning of a wait left behind is no call that was made.
    if place is None or path is None or place[-1] == 0 or len(place) <= len(path):
        return False
    return place[: len(path)] == path and place[len(path)] > calls


def received(failed_in: Task | None, now_in: Task | None) -> bool:
    """Answer whether the code has seen what a call raised that ended in one task, when it goes on in another.

    ``gather`` and ``create_task`` run calls in tasks of their own, and the code may go on before it looks at them:
    an error that nobody has asked for yet may still end the attempt.
    """
    if failed_in is None or failed_in is now_in:
        return True
    # True until somebody takes the result or the exception; asyncio logs "never retrieved" by it.
    return failed_in.done() and not failed_in.cancelled() and not getattr(failed_in, "_log_traceback", False)
