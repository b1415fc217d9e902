"""Generations of a job's checkpoints: a new one begins at a call, and takes over what was recorded before it.

Checkpoints never change. Whoever wants calls to run again (``retry`` from a call, code that went another way) leaves
the recorded ones as history and copies those before that call. What the others had done is given back: messages
that they consumed can be received again, and children that nobody waits for any more are cancelled. What they had
registered to undo them has not run: it goes along, and runs when the job fails in the end.

A call's key is its place as a path of numbers, ``3.1``, and ``3.0`` is what call 3 fixed when it began (or ``3.0.1``,
if that is more than one thing). Keys of other forms have no place in that order: ``v:...`` of version markers,
``u0/3`` of what undoes call 3 of a generation 0 that was left, and ``c...`` of compensations that have run, after which
nothing before them may be taken for done.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final, TypeVar
from uuid import UUID

from django.db.models import F, QuerySet

from ..dialects.rows import Claimed
from ..errors import JobNotFound, OptionError, TransitionRefused
from ..models import Approval, Checkpoint, Message
from ..outcomes import CHILDREN
from ..querysets.jobs import JobQuerySet
from ..rendering import safe_repr
from ..states import OPEN
from .cancel import cancel_all
from .checkpoints import BEGINNING
from .compensations import ANOTHERS, COMPENSATION, PATH
from .database import alias, jobs
from .steps import hold

BATCH: Final = 100
"""Checkpoints that are copied at once; each may hold a result of the largest size."""
VERSION: Final = "v:"
"""How keys of version markers begin."""
UNDOING: Final = f"{PATH}."
"""How keys of compensations that run begin, and that of the note that they do."""
LEFT: Final = "u"
"""How keys of compensations begin whose calls were left; the generation and the call's key follow."""
FIRST: Final = (1,)
SHOWN: Final = 20
DIGITS: Final = 9
"""Of one number of a call's place; no job makes so many calls."""

Item = TypeVar("Item")
Place = tuple[int, ...]
Keep = Callable[[str], bool]
"""Answers for a key whether the new generation has it."""


def place_of(key: str) -> Place | None:
    """Read a key as a call's place; ``None`` for one that has none."""
    parts = key.split(".")
    are_numbers = all(part.isascii() and part.isdigit() and len(part) <= DIGITS for part in parts)
    return tuple(map(int, parts)) if are_numbers else None


def beginning_of(key: str) -> str | None:
    """Return the call that fixed this when it began; ``None`` for what is itself the result of a call."""
    head, dot, _rest = f"{key}.".partition(f"{BEGINNING}.")
    return head if dot else None


def before(call: Place) -> Keep:
    """Say of a key whether its call was made before ``call``: of the calls around that one only the beginning was.

    Version markers stay: they say with which code the job began. They go with a beginning from the very first call.
    """

    def keep(key: str) -> bool:
        place = place_of(key)
        if place is None:
            return key.startswith(VERSION) and call != FIRST
        return place < call and place != call[: len(place)]

    return keep


def check_call(from_call: object, job_id: UUID, generation: int) -> Place:
    """Return the place of a call that the job has made, or would make next; ``OptionError`` lists those it has made."""
    number = isinstance(from_call, int) and not isinstance(from_call, bool) and 0 < from_call < 10**DIGITS
    text = str(from_call) if number or isinstance(from_call, str) else ""
    call = place_of(text)
    if call is None or 0 in call or ".".join(map(str, call)) != text:
        raise OptionError(f"from_call must be the key of a call, such as '3' or '3.1', not {safe_repr(from_call, 40)}.")
    names = dict(_checkpoints(job_id, generation).order_by("id").values_list("key", "name"))
    if call != FIRST and any(key.startswith(UNDOING) for key in names):
        raise TransitionRefused(
            f"The compensations of job {job_id} have begun to undo what its calls did, so none of them is taken over: "
            "fork it from its first call, or retry it without naming one."
        )
    made = {place[:length] for key in names if (place := place_of(key)) for length in range(1, len(place) + 1)}
    previous = (*call[:-1], call[-1] - 1)
    if call in made or call == FIRST or (call[-1] > 1 and previous in made):
        return call
    calls = sorted(place for place in made if 0 not in place)
    shown = [f"{key} {names.get(key, '')}".rstrip() for key in (".".join(map(str, place)) for place in calls[:SHOWN])]
    more = f" and {len(calls) - SHOWN} more" if len(calls) > SHOWN else ""
    recorded = f"made these: {', '.join(shown)}{more}" if shown else "recorded none"
    raise OptionError(f"Job {job_id} made no call {text}: it has {recorded}.")


def begin(job_id: UUID, generation: int, keep: Keep) -> set[str]:
    """Begin the generation after ``generation`` with what it keeps, give back the rest, and return the keys kept.

    For a job of which nothing is undone, in a transaction that has locked its row.
    """
    kept = copy(job_id, generation, keep, to=job_id, as_generation=generation + 1)
    _give_back_messages(job_id, kept)
    _take_questions_along(job_id, generation, kept)
    _cancel_children(job_id, kept)
    jobs().filter(id=job_id).update(generation=generation + 1)
    return kept


def begin_anew(ids: Sequence[UUID]) -> None:
    """Begin a generation that keeps nothing, of each of these jobs: their compensations have undone what they did.

    In a transaction that has locked their rows. What the compensations themselves have received stays received.
    """
    for batch in _batches(ids):
        consumed = Message.objects.using(alias()).filter(job_id__in=batch, consumed_at__isnull=False)
        consumed.exclude(consumed_key__startswith=UNDOING).update(consumed_at=None, consumed_key=None)
        _cancel(list(_open_children(batch).values_list("id", flat=True)))
        jobs().filter(id__in=batch).update(generation=F("generation") + 1)


def leave(job: Claimed, keep: Keep, *, heed: bool = True) -> tuple[Claimed, set[str]]:
    """Let a running job go on in a new generation; return the job as it is held from now on, and the keys kept.

    To be called in a transaction, which may be repeated. Raises what ``steps.hold`` raises.
    """
    hold(job, heed=heed)
    this = jobs().filter(id=job.id)
    new = job._replace(generation=job.generation + 1)
    if this.filter(generation=new.generation).exists():
        # Done before, and the answer was lost.
        return new, set(_checkpoints(job.id, new.generation).values_list("key", flat=True))
    return new, begin(job.id, job.generation, keep)


def copy(job_id: UUID, generation: int, keep: Keep, *, to: UUID, as_generation: int) -> set[str]:
    """Copy checkpoints that ``keep`` names, in the order in which they were stored; return their keys.

    What undoes calls stays with the job that made them: another one only sees that it was registered, and that job has
    it also for the calls that it leaves.
    """
    found = _checkpoints(job_id, generation).order_by("id").values_list("id", "key", "kind")
    chosen = {}
    for id_, key, kind in found:
        if keep(key):
            chosen[id_] = key
        elif to == job_id and kind == COMPENSATION:
            chosen[id_] = key if key.startswith(LEFT) else f"{LEFT}{generation}/{key}"
    for ids in _batches(list(chosen)):
        rows = list(Checkpoint.objects.using(alias()).filter(id__in=ids).order_by("id"))
        if len(rows) < len(ids):
            raise JobNotFound(f"Job {job_id} was deleted while its checkpoints were copied.")
        for row in rows:
            if to != job_id and row.kind == COMPENSATION:
                row.result = ANOTHERS
            row.key, row.pk, row.job_id, row.generation = chosen[row.pk], None, to, as_generation
        Checkpoint.objects.using(alias()).bulk_create(rows)
    return set(chosen.values())


def _checkpoints(job_id: UUID, generation: int) -> QuerySet[Checkpoint]:
    return Checkpoint.objects.using(alias()).filter(job_id=job_id, generation=generation)


def _batches(items: Sequence[Item]) -> Iterable[Sequence[Item]]:
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))


def _give_back_messages(job_id: UUID, kept: Collection[str]) -> None:
    consumed = Message.objects.using(alias()).filter(job_id=job_id, consumed_at__isnull=False)
    lost = [id_ for id_, key in consumed.values_list("id", "consumed_key") if _call_in(key) not in kept]
    for ids in _batches(lost):
        Message.objects.using(alias()).filter(id__in=ids).update(consumed_at=None, consumed_key=None)


def _take_questions_along(job_id: UUID, generation: int, kept: Collection[str]) -> None:
    """Let waits that go on find the decision; the other questions stay with their generation."""
    open_waits = [call for key in kept if (call := beginning_of(key)) is not None and call not in kept]
    asked = Approval.objects.using(alias()).filter(job_id=job_id, generation=generation)
    for calls in _batches(open_waits):
        asked.filter(key__in=calls).update(generation=generation + 1)


def _cancel_children(job_id: UUID, kept: Collection[str]) -> None:
    known = {*kept, *(beginning_of(key) for key in kept)}
    children = _open_children([job_id]).values_list("id", "parent_call")
    _cancel([id_ for id_, call in children if _call_in(call) not in known])


def _open_children(ids: Sequence[UUID]) -> JobQuerySet:
    return jobs().filter(parent_id__in=ids, parent_call__startswith=CHILDREN).in_status(*OPEN)


def _cancel(lost: list[UUID]) -> None:
    if lost:
        cancel_all(lost, reason="the call of its parent that waited for it is to run again")


def _call_in(text: str | None) -> str:
    """Return the call's key from a text that may name its generation too, such as ``children 0/3``."""
    return (text or "").rpartition("/")[2]
