"""Matching the calls that the code makes with those that were recorded.

A job's function runs again from its start; each durable call looks here first. Calls are recognised by their
place (the key, in creation order) and name. Another name at a recorded place stops the job: the value of one
call is never given to another.
"""

from __future__ import annotations

from ..dialects.rows import Claimed, NewCheckpoint
from ..errors import NonDeterminism
from ..operations import checkpoints
from ..operations.checkpoints import Stored


class History:
    """What is recorded of one job, as this attempt knows it."""

    def __init__(self, row: Claimed, recorded: dict[str, Stored]) -> None:
        """Take the claimed job and its checkpoints by key."""
        self._row = row
        self._recorded = recorded
        # Errors of calls, not stored yet: only going on shows that the code caught one. An error that ends the
        # attempt never gets a row, so the next attempt makes that call again.
        self._raised: list[NewCheckpoint] = []
        self._caught: list[NewCheckpoint] = []

    @classmethod
    def of(cls, row: Claimed) -> History:
        """Read the checkpoints of a claimed job; the first claim of a job has none to read."""
        return cls(row, checkpoints.load(row.id, row.generation) if row.token > 1 else {})

    def find(self, key: str, name: str) -> Stored | None:
        """Return what is recorded for this call, or ``None`` when it has not been made yet.

        Raises ``NonDeterminism`` when another call is recorded at this place.
        """
        stored = self._recorded.get(key)
        if stored is not None and stored.name != name:
            raise NonDeterminism(
                f"Call {key} of job {self._row.id} ({self._row.definition}) was recorded as {stored.name!r}, but the "
                f"code now calls {name!r} there. Calls are recognised by order and name: let jobs that have begun "
                "finish with the code they began with, or give the changed job a new name."
            )
        return stored

    def checkpoint(self, key: str, name: str, kind: str, *, result: str | None = None, error: str | None = None) -> NewCheckpoint:
        """Make the row for a call of this attempt."""
        row = self._row
        return NewCheckpoint(row.id, row.token, row.generation, key, name, kind, result, error)

    def note_error(self, checkpoint: NewCheckpoint) -> None:
        """Remember the error of a call that is being raised into the code that made the call."""
        self._raised.append(checkpoint)

    def note_call_begins(self, path: str) -> None:
        """Note that the code at ``path`` goes on with another call: what was raised there, it has caught."""
        if not self._raised:
            return
        here = [row for row in self._raised if row.key.rpartition(".")[0] == path]
        self._caught += here
        self._raised = [row for row in self._raised if row not in here]

    def note_job_returns(self) -> None:
        """Note that the job's function returned: whatever was raised, it has caught."""
        self._caught += self._raised
        self._raised = []

    def take_caught(self) -> list[NewCheckpoint]:
        """Take the errors that are known to be caught; they go into the next commit."""
        taken, self._caught = self._caught, []
        return taken

    def drop_errors_below(self, key: str) -> None:
        """Forget errors inside call ``key``: it is recorded itself, or is made again."""
        below = f"{key}."
        self._raised = [row for row in self._raised if not row.key.startswith(below)]
        self._caught = [row for row in self._caught if not row.key.startswith(below)]

    def remember(self, rows: list[NewCheckpoint]) -> None:
        """Keep stored rows of nested calls for a repeat of their parent inside this attempt."""
        for row in rows:
            if "." in row.key:
                self._recorded[row.key] = Stored(row.name, row.kind, row.result, row.error)

    def forget_below(self, key: str) -> None:
        """Drop what was remembered below a call that is recorded itself: it is never asked for again."""
        below = f"{key}."
        for other in [known for known in self._recorded if known.startswith(below)]:
            del self._recorded[other]
