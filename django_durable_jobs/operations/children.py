"""The children of a call: ordinary jobs that a running job has stored, and waits for.

They know their parent and the call (``parent_call``, in the words of ``wake``). Everything here runs in the
transaction of a step, so the parent's row is locked under its token: no two attempts spawn, and nobody cancels the
parent in between. How the parent is woken stands in ``wake``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from django.db.models import Q

from ..conf import get_settings
from ..dialects.rows import Claimed, NewJob
from ..errors import OptionError, TooDeep, TransitionRefused
from ..ids import new_job_id
from ..querysets.jobs import JobQuerySet
from ..states import OPEN, Status
from .cancel import cancel_all
from .database import dialect, jobs
from .enqueue import insert
from .retry import put_back
from .sequences import advance_after_commit, described
from .steps import hold

BATCH: Final = 500
COLUMNS: Final = ("id", "status", "result", "last_error")


class Child(NamedTuple):
    """What has become of a child that has ended."""

    id: UUID
    status: str
    result: str | None
    error: str | None


class Failing(NamedTuple):
    """The first child of a call that ended without a result, and its place among its siblings, from 0."""

    child: Child
    place: int
    definition: str


def spawn(parent: Claimed, call: str, prepared: Sequence[NewJob]) -> None:
    """Store the children of a call; their ids sort in the order in which they are given.

    Raises ``TooDeep`` when the parent is a child of children, and so on, for as many levels as the setting allows, and
    ``OptionError`` for a child of a sequence that a job above it belongs to: each would wait for the other's end.
    """
    _refuse_lines_of_ancestors(parent, {(job.more or {}).get("sequence_key") for job in prepared} - {None})
    depth = (jobs().values_list("depth", flat=True).get(id=parent.id) or 0) + 1
    limit = get_settings().child_depth
    if depth > limit:
        raise TooDeep(
            f"Job {parent.id} ({parent.definition}) is a child at level {depth - 1}: deeper than {limit} levels "
            "(setting CHILD_DEPTH) no job may have children. Does a job gather itself without end?"
        )
    born = {"parent_id": parent.id, "parent_call": call, "depth": depth}
    ids = sorted(new_job_id() for _ in prepared)
    insert([job._replace(id=id_, more={**(job.more or {}), **born}) for id_, job in zip(ids, prepared, strict=True)])


def _refuse_lines_of_ancestors(parent: Claimed, keys: set[Any]) -> None:
    above: UUID | None = parent.id
    while keys and above is not None:
        key, above = jobs().values_list("sequence_key", "parent_id").get(id=above)
        if key is not None and key in keys:
            raise OptionError(
                f"A child of job {parent.id} ({parent.definition}) has the {described(key)} of a job above it: it "
                "would wait for the end of that job, which waits for its children. Give it another key."
            )


def first_failing(parent_id: UUID, call: str) -> Failing | None:
    """Return the child that was the first to end without a result, if there is one."""
    group = jobs().of_call(parent_id, call)
    rows = group.unsuccessful().order_by("finished_at", "id").values_list(*COLUMNS, "definition")
    found = rows.first()
    if found is None:
        return None
    *columns, definition = found
    child = Child(*columns)
    ids = sorted(group.values_list("id", flat=True))
    return Failing(child, ids.index(child.id), definition)


def ended(parent_id: UUID, call: str) -> list[Child]:
    """Return all children, in the order in which they were given; for a call of which every child has ended."""
    rows = jobs().of_call(parent_id, call).values_list(*COLUMNS)
    # Here, as not every database sorts this kind of id as its text.
    return sorted(map(Child._make, rows), key=lambda child: child.id)


def run_again(parent_id: UUID, call: str, only: Q | None = None) -> int:
    """Put the children that ended without a result back into their queues, each with one more attempt at least.

    Those of a sequence wait for their turn, as after ``retry``.
    """
    these = jobs().of_call(parent_id, call).unsuccessful().filter(only or Q())
    found = set(these.values_list("queue", "sequence_key"))
    if not found:
        return 0
    moved = put_back(these)
    advance_after_commit(key for _queue, key in found if key is not None)
    if get_settings().notify:
        dialect().notify(sorted({queue for queue, _key in found}))
    return moved


def cancel_some(parent: Claimed, call: str, *, heed: bool) -> int:
    """Cancel up to 500 of the children that have not ended, with all below them; return how many there were.

    To be called until it returns 0. Raises what ``hold`` raises: an attempt that lost its job cancels nothing.
    """
    hold(parent, heed=heed)
    these = jobs().of_call(parent.id, call).filter(status__in=sorted(OPEN), cancel_requested_at=None)
    ids = list(these.order_by("id").values_list("id", flat=True)[:BATCH])
    if ids:
        cancel_all(ids, reason=f"cancelled by its parent {parent.id}")
    return len(ids)


# Deleting ---------------------------------------------------------------------------------------------------------


def refuse_to_delete(job_id: UUID) -> None:
    """Raise ``TransitionRefused`` when a job is needed by its parent, or by its children."""
    parent_id = jobs().values_list("parent_id", flat=True).get(id=job_id)
    if parent_id is not None and jobs().in_status(*OPEN).filter(id=parent_id).exists():
        raise TransitionRefused(
            f"Job {job_id} is a child of job {parent_id}, which has not ended and needs its result: cancel it instead, "
            "or delete it when its parent has ended."
        )
    if _with_open_children(jobs().filter(id=job_id)):
        raise TransitionRefused(f"Job {job_id} has children that have not ended: cancel it first.")


def still_needed(ids: Sequence[UUID]) -> set[UUID]:
    """Return those of some ended jobs that retention must leave alone: families are kept while one member may run.

    A parent that failed may be retried, and needs the results of its children then; one that has open children has to
    be there for an order to cancel it all.
    """
    these = jobs().filter(id__in=ids)
    parents = dict(these.filter(parent__isnull=False).values_list("id", "parent_id"))
    alive = jobs().in_status(*OPEN, Status.FAILED).filter(id__in=set(parents.values()))
    needing = set(alive.values_list("id", flat=True))
    return {job_id for job_id, parent_id in parents.items() if parent_id in needing} | _with_open_children(these)


def _with_open_children(these: JobQuerySet) -> set[UUID]:
    ids = list(these.values_list("id", flat=True))
    return set(jobs().filter(parent_id__in=ids, status__in=OPEN).values_list("parent_id", flat=True).distinct())
