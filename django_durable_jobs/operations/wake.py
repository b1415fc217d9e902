"""Parking jobs, and ending their waits: by a message, by the end of children, by an event, or by an order to cancel.

What a job waits for stands in its ``waiting_for``: one text, which whoever ends the wait writes down in the same
way. A wait for a time has a ``run_at`` and is ended by ``promote``.

==================== ==========================================================================
``time``             nothing but ``run_at``
``message NAME``     a message with this name, sent to the job
``event K NAME KEY`` an event for the call K; see ``operations/events.py``
``approval K TITLE`` the decision that call K has asked for
``children G/K``     every child of call K (of generation G) has ended
``children! G/K``    the same, or one of them ended without a result
``sequence ...``     its turn in a sequence; see ``operations/sequences.py``, which alone ends this wait
``several``          more than one of these, in branches of an async job: whichever comes first
==================== ==========================================================================

Waking a job that need not wake does no harm: it looks, and parks again. So a wake-up may be generous, but must not
be lost. A message, a decision and the call of an event lock the job's row before they are stored, so a job that parks
finds them or is found by them.
The end of a child is looked at by both sides after their commit; ``wake_forgotten`` finds what a crash between
commit and look has left.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import timedelta
from functools import reduce
from operator import or_
from typing import Final
from uuid import UUID

from django.db import transaction
from django.db.models import CharField, Exists, F, OuterRef, Q, Subquery, Value
from django.db.models.functions import Coalesce, Substr
from django.db.models.lookups import IsNull, LessThanOrEqual

from ..conf import get_settings
from ..dialects.now import DatabaseNow
from ..dialects.rows import Claimed
from ..faults import fault
from ..models import Approval, EventWait, Message
from ..outcomes import CHILDREN, LINED_UP, Parked
from ..querysets.jobs import JobQuerySet
from ..states import LAST_FINAL, UNSUCCESSFUL, Status
from .database import alias, dialect, jobs
from .transition import move

TIME: Final = "time"
SEVERAL: Final = "several"
MESSAGE: Final = "message "
EVENT: Final = "event "
APPROVAL: Final = "approval "
ALL_CHILDREN: Final = f"{CHILDREN} "
FIRST_FAILURE: Final = f"{CHILDREN}! "
LOOK_AGAIN: Final = timedelta(hours=1)
"""After this a job with several waits looks for itself, should every other way have failed."""
BATCH: Final = 200
LONGEST: Final = 200
"""Characters of ``waiting_for``."""

Group = tuple[UUID, str | None]
"""Children of one call: the parent's id, and the call."""


def park(job: Claimed, outcome: Parked) -> bool:
    """Let a running job wait; ``False`` when its lease was lost. A message that is there already ends the wait."""
    several = len(set(outcome.waits)) > 1
    until = outcome.until
    moved = move(
        "park",
        jobs().filter(id=job.id),
        token=job.token,
        attempt=F("attempt") - 1,
        # It came to a rest, so it does not kill its worker.
        rescues=0,
        waiting_for=SEVERAL if several else outcome.waits[0],
        run_at=DatabaseNow() + LOOK_AGAIN if several and until is None else until,
    )
    if moved and _has_come(job.id, job.generation, outcome.waits):
        _wake(jobs().filter(id=job.id))
    fault("parked")
    return bool(moved)


def wait_at(prefix: str, key: str, text: str) -> str:
    """Say what call ``key`` waits for; what follows the key is for people, and may be cut."""
    return f"{prefix}{key} {text}"[:LONGEST]


def look_again(job_id: UUID) -> None:
    """End the wait of a job that has just been resumed, if what it waits for has come; under the lock of its row."""
    row = jobs().filter(id=job_id).in_status(Status.WAITING).values_list("generation", "waiting_for").first()
    generation, waiting_for = row or (0, None)
    if waiting_for is None:
        return
    if waiting_for.startswith(CHILDREN):
        # A child that ends meanwhile sees a job that is paused until this is committed.
        transaction.on_commit(lambda: wake_waiting({(job_id, waiting_for)}) and None, using=alias(), robust=True)
    elif waiting_for == SEVERAL or _has_come(job_id, generation, [waiting_for]):
        wake([job_id])


def _has_come(job_id: UUID, generation: int, waits: Iterable[str]) -> bool:
    """Look in the transaction that parked the job, which has its row locked."""

    def after(prefix: str) -> list[str]:
        return [wait.removeprefix(prefix) for wait in waits if wait.startswith(prefix)]

    def places(prefix: str) -> list[str]:
        return [text.partition(" ")[0] for text in after(prefix)]

    name = alias()
    sent = Message.objects.using(name).filter(job_id=job_id, name__in=after(MESSAGE), consumed_at=None)
    called = EventWait.objects.using(name).filter(job_id=job_id, key__in=places(EVENT), called=True)
    decided = Approval.objects.using(name).filter(
        job_id=job_id, generation=generation, key__in=places(APPROVAL), decision__isnull=False
    )
    # Django asks nothing of the database about an empty list.
    return any(found.exists() for found in (sent, called, decided)) or _is_to_be_cancelled(job_id)


def _is_to_be_cancelled(job_id: UUID) -> bool:
    return jobs().filter(id=job_id, cancel_requested_at__isnull=False).exists()


def children_wait(generation: int, key: str, *, first_failure: bool) -> str:
    """Return the words for a wait for the children of a call, which each of them has as its ``parent_call``."""
    return f"{FIRST_FAILURE if first_failure else ALL_CHILDREN}{generation}/{key}"


def wake_waiting(groups: Collection[Group]) -> int:
    """Wake the parents that wait for one of these groups of children, if it has ended.

    To be called after the commit that ended a child, and after the one that parked a parent: whichever is the later
    of the two sees both.
    """
    waiting = jobs().in_status(Status.WAITING).filter(id__in={parent for parent, _call in groups})
    waits = dict(waiting.values_list("id", "waiting_for"))
    return wake(
        {
            parent
            for parent, call in groups
            if parent in waits and waits[parent] in (call, SEVERAL) and _group_has_ended(parent, call)
        }
    )


def wake(ids: Collection[UUID]) -> int:
    """End the waits of these jobs."""
    return dialect().in_own_transaction(lambda: _wake(jobs().filter(id__in=ids))) if ids else 0


def _wake(these: JobQuerySet) -> int:
    # The one wait that must not end early: others of its sequence may be under way.
    these = these.filter(~Q(waiting_for__startswith=LINED_UP))
    queues = set(these.in_status(Status.WAITING).values_list("queue", flat=True))
    moved = move("wake", these, run_at=None) if queues else 0
    if moved and get_settings().notify:
        dialect().notify(sorted(queues))
    return moved


def any_open(parent: UUID, call: str | None) -> bool:
    """Answer whether a child of a call has not ended."""
    status = jobs().of_call(parent, call).last_status().first()
    return status is not None and status > LAST_FINAL


def children_have_ended() -> Q:
    """Say of a waiting parent that the children it waits for have ended, or one has failed where that is enough."""
    # One entry of an index for each parent. By EXISTS some databases read all children of all parents.
    children = jobs().of_call(OuterRef("id"), OuterRef("waiting_for"))
    failed = (Subquery(children.filter(status=status).values("status")[:1]) for status in sorted(UNSUCCESSFUL))
    one_failed = reduce(or_, (Q(IsNull(child, False)) for child in failed))
    return Q(waiting_for__startswith=CHILDREN) & _all_ended(children) | (
        Q(waiting_for__startswith=FIRST_FAILURE) & one_failed
    )


def _all_ended(children: JobQuerySet) -> Q:
    last = Coalesce(Subquery(children.last_status()), Value(""), output_field=CharField())
    return Q(LessThanOrEqual(last, Value(LAST_FINAL)))


def _one_of_several_has_ended() -> Q:
    """Say of a job with several waits that one for children has ended since its last attempt began."""
    children = jobs().filter(parent=OuterRef("id"), finished_at__gte=OuterRef("started_at"))
    siblings = jobs().of_call(OuterRef("parent"), OuterRef("parent_call"))
    failed = Q(parent_call__startswith=FIRST_FAILURE, status__in=UNSUCCESSFUL)
    return Q(waiting_for=SEVERAL) & Q(Exists(children.filter(failed | _all_ended(siblings))))


def _group_has_ended(parent: UUID, call: str | None) -> bool:
    if (call or "").startswith(FIRST_FAILURE) and jobs().of_call(parent, call).unsuccessful().exists():
        return True
    return not any_open(parent, call)


def wake_forgotten() -> int:
    """Wake up to 200 jobs whose wait has ended although nobody told them: a worker died between commit and look."""
    mail = Message.objects.using(alias()).filter(
        job=OuterRef("id"), name=Substr(OuterRef("waiting_for"), len(MESSAGE) + 1), consumed_at=None
    )
    reasons = [
        Q(cancel_requested_at__isnull=False),
        children_have_ended(),
        _one_of_several_has_ended(),
        Q(waiting_for__startswith=MESSAGE) & Q(Exists(mail)),
    ]
    waiting = jobs().in_status(Status.WAITING).filter(reduce(or_, reasons))
    return wake(list(waiting.values_list("id", flat=True)[:BATCH]))
