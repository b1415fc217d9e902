"""The statuses of a job and the one table of how they follow each other.

Everything that speaks about statuses is derived from this table: the guarded UPDATE of
``operations/transition.py``, the fused statements of ``dialects/``, the CHECK constraints and partial
indexes of the job model, admin filters and the diagram in the docs. A new way to move a job is a row here
and a migration; nothing else knows a list of statuses.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum, unique
from typing import Final


@unique
class Status(StrEnum):
    """Where a job is in its life. The value is what is stored.

    ``FAILED`` is the dead letter: nothing but an operator moves a job out of it.
    """

    SCHEDULED = "scheduled"
    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    RETRYING = "retrying"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


FINAL: Final = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.EXPIRED})
"""Statuses that end a job's life; only an operator's order or retention touches such a row."""

DUE_LATER: Final = frozenset({Status.SCHEDULED, Status.RETRYING})
"""Statuses that a clock ends: ``run_at`` says when. The promoter makes them pending."""

CLOCKED: Final = DUE_LATER | {Status.WAITING}
"""The same and those that a clock may end: a waiting job has a ``run_at`` if it waits for a time, or not for ever."""

OPEN: Final = frozenset(Status) - FINAL
"""Statuses of a job whose life goes on."""

PAUSABLE: Final = OPEN - {Status.RUNNING, Status.PAUSED}
"""Statuses that an order to pause ends at once, and to which an order to resume leads back."""

LINES: Final = frozenset({Status.WAITING, Status.PAUSED})
"""Statuses in which a job of a sequence may wait for its turn: a paused one keeps its place in the line."""

LAST_FINAL: Final = max(FINAL).value
"""Final statuses sort before the open ones, so "still open" is one stretch of an index that ends with the status."""
assert min(OPEN).value > LAST_FINAL  # noqa: S101 -- a slip of ours, seen at import

UNSUCCESSFUL: Final = FINAL - {Status.COMPLETED}
"""Statuses of a job that ended without a result."""


@unique
class Actor(Enum):
    """Who may make a move, which decides what the guarded UPDATE must compare."""

    OWNER = "owner"
    """The worker that holds the lease: the statement carries its fencing token."""
    SYSTEM = "system"
    """Any worker on behalf of the fleet, on facts that the statement itself checks (lease over, due)."""
    OPERATOR = "operator"
    """A person or the project's own code, through an operation."""


@dataclass(frozen=True, slots=True)
class Transition:
    """One verb: from which statuses, to which, by whom."""

    verb: str
    sources: frozenset[Status]
    target: Status
    actor: Actor

    @property
    def starts_lease(self) -> bool:
        """Whether the move hands the job to a worker."""
        return self.target is Status.RUNNING

    @property
    def heeds_pause(self) -> bool:
        """Whether a running job that is to be paused comes to be so by this move, in place of ``target``."""
        return Status.RUNNING in self.sources and self.target in PAUSABLE

    @property
    def ends_life(self) -> bool:
        """Whether the move sets ``finished_at``."""
        return self.target in FINAL


def _row(verb: str, sources: set[Status] | frozenset[Status], target: Status, actor: Actor) -> tuple[str, Transition]:
    return verb, Transition(verb, frozenset(sources), target, actor)


_RUNNING = frozenset({Status.RUNNING})

TRANSITIONS: Final[dict[str, Transition]] = dict(
    [
        _row("claim", {Status.PENDING}, Status.RUNNING, Actor.SYSTEM),
        _row("complete", _RUNNING, Status.COMPLETED, Actor.OWNER),
        _row("fail", _RUNNING, Status.FAILED, Actor.OWNER),
        _row("back_off", _RUNNING, Status.RETRYING, Actor.OWNER),
        _row("snooze", _RUNNING, Status.SCHEDULED, Actor.OWNER),
        _row("release", _RUNNING, Status.PENDING, Actor.OWNER),
        _row("rescue", _RUNNING, Status.PENDING, Actor.SYSTEM),
        _row("give_up", _RUNNING, Status.FAILED, Actor.SYSTEM),
        _row("promote", set(CLOCKED), Status.PENDING, Actor.SYSTEM),
        _row("park", _RUNNING, Status.WAITING, Actor.OWNER),
        _row("wake", {Status.WAITING}, Status.PENDING, Actor.SYSTEM),
        _row("stop", _RUNNING, Status.CANCELLED, Actor.OWNER),
        _row("expire", {Status.SCHEDULED, Status.PENDING, Status.WAITING, Status.PAUSED}, Status.EXPIRED, Actor.SYSTEM),
        _row("cancel", set(OPEN - _RUNNING), Status.CANCELLED, Actor.OPERATOR),
        _row("abort", _RUNNING, Status.CANCELLED, Actor.OPERATOR),
        _row("recall", set(OPEN - {Status.RUNNING, Status.PENDING}), Status.PENDING, Actor.OPERATOR),
        _row(
            "retry",
            {Status.FAILED, Status.CANCELLED, Status.EXPIRED, Status.RETRYING},
            Status.PENDING,
            Actor.OPERATOR,
        ),
        _row("line_up", {*UNSUCCESSFUL, Status.RETRYING}, Status.WAITING, Actor.OPERATOR),
        _row("put_off", {Status.WAITING}, Status.SCHEDULED, Actor.SYSTEM),
        _row("line_up_due", set(DUE_LATER), Status.WAITING, Actor.SYSTEM),
        _row("pause", PAUSABLE, Status.PAUSED, Actor.OPERATOR),
        _row("seize", _RUNNING, Status.PAUSED, Actor.OPERATOR),
        _row("take_away", _RUNNING, Status.PENDING, Actor.OPERATOR),
        *(_row(f"resume_{status}", {Status.PAUSED}, status, Actor.OPERATOR) for status in sorted(PAUSABLE)),
    ]
)
"""Every verb of the system. ``rescue`` and ``give_up`` act on a lease that is over: the first returns the
job to its queue, the second ends a job whose attempts are used up. ``stop`` is how the holder obeys an order to
cancel; ``recall`` brings a job whose compensations must run first to a worker; ``expire`` ends one that nobody has
begun in its time. ``line_up`` is ``retry`` for a job of a line, whose turn must come again; ``line_up_due`` is
``promote`` for one that gave its place away until then, and ``put_off`` sets that time for one whose key has used up
its rate. ``seize``, ``take_away`` and ``abort`` end the lease of a worker that is not asked; ``resume_...`` leads a
job back to the status that it was paused in."""


def may_move(verb: str, status: Status | str) -> bool:
    """Answer whether ``verb`` is allowed for a job in ``status``."""
    return Status(status) in TRANSITIONS[verb].sources
