"""Lines: of the jobs with one key, one at a time may run (a sequence), or so many as the key has places.

A job with a ``sequence_key`` or a concurrency is stored as waiting, for ``sequence``. Its row in the table of sequences
names the jobs at the front, those that are not lined up; when one has ended, the oldest is let go on. Both who enqueues
and who ends a job look after their commit (``advance``), so whoever commits last sees everything; looks at one key
wait for each other at the sequence's row. What a crash between commit and look leaves is found by
``advance_forgotten``. No lock is taken in a caller's transaction.

Jobs without a key never come here, and no statement that claims or completes knows of lines. So a line that is full
costs the claims of its queue nothing.

A sequence keeps its order whatever happens: a job that is not due, backs off or is paused holds up those behind it. A
line with a concurrency does not: there such a job has no place, and lines up again when its time has come.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef, Q

from .. import registry
from ..conf import get_settings
from ..dialects.rows import NewJob
from ..errors import JobNotFound, UnknownDefinition
from ..ids import Identified, id_of
from ..models import Job, Sequence
from ..outcomes import LINED_UP
from ..rendering import safe_repr
from ..states import LINES, OPEN, Status
from .database import alias, dialect, jobs
from .key_rates import Window, window
from .orders import tell
from .transition import move
from .wake import TIME

if TYPE_CHECKING:
    from ..querysets.jobs import JobQuerySet

NOT_BEFORE: Final = f"{LINED_UP}, not before "
"""How the wait of a job begins that has a time, too; the instant follows."""
BATCH: Final = 50
CONCURRENT: Final = " "
"""How the stored key of a line with a concurrency begins. No key of a sequence does: keys have no space at the ends."""

# Written out: an open job that waits for its turn is not at the front, even if it was once (an order to retry).
_UNDER_WAY: Final = (
    Q(waiting_for=None)
    | ~Q(waiting_for__startswith=LINED_UP)
    | (Q(status=Status.PAUSED.value) & ~Q(sequence_key__startswith=CONCURRENT))
)


def lined_up(new: Iterable[NewJob]) -> list[NewJob]:
    """Return the jobs as they are stored: those of a sequence wait for their turn, then for their time."""
    return [_lined_up(job) for job in new]


def _lined_up(job: NewJob) -> NewJob:
    if job.more is None or job.more.get("sequence_key") is None:
        return job
    if job.more["sequence_key"].startswith(CONCURRENT):
        # One that is due later lines up then; see `promote` of the dialects.
        return job._replace(more={**job.more, "waiting_for": LINED_UP})
    due = job.run_at if job.delay is None else dialect().now() + job.delay
    waiting_for = LINED_UP if due is None else f"{NOT_BEFORE}{due.isoformat()}"
    return job._replace(run_at=None, delay=None, more={**job.more, "waiting_for": waiting_for})


def advance_after_commit(keys: Iterable[str]) -> None:
    """Look at these sequences when the present transaction is committed; now if there is none."""
    found = frozenset(keys)
    if not found:
        return

    def look() -> None:
        advance(found)

    # Robust: the commit has happened, and the look can be made up for.
    transaction.on_commit(look, using=alias(), robust=True)


def advance(keys: Collection[str]) -> int:
    """Let the next job go on of each of these sequences whose front has ended; return how many did."""
    ordered = sorted(keys)
    return sum(
        dialect().in_own_transaction(partial(_advance, ordered[start : start + BATCH]))
        for start in range(0, len(ordered), BATCH)
    )


def _advance(keys: list[str]) -> int:
    dialect().lock_keys("Sequence", keys)
    sequences = Sequence.objects.using(alias()).filter(key__in=keys)
    lines = {row.key: row for row in sequences}
    fronts = {key: _front(lines[key]) for key in keys}
    present = jobs().filter(_UNDER_WAY, id__in=[job_id for front in fronts.values() for job_id in front])
    under_way = set(present.in_status(*OPEN).values_list("id", flat=True))
    staying = {key: [job_id for job_id in fronts[key] if job_id in under_way] for key in keys}
    limited = any(line.rate is not None for line in lines.values())
    windows = {key: window(line, dialect().now()) for key, line in lines.items()} if limited else {}
    next_ones = {key: _next_ones(lines[key], len(staying[key]), windows.get(key)) for key in keys}
    # Those that were cancelled or deleted since they were read are missing; who did it looks after the commit.
    found = list(
        jobs()
        .filter(id__in=[job_id for ids in next_ones.values() for job_id in ids])
        .in_status(*LINES)
        .order_by("id")
        .select_for_update()
        .values_list("id", "queue", "waiting_for", "status", "token")
    )
    # Not asked of the database, which might read everything that waits in line to answer it.
    rows = [row[:3] for row in found if row[3] == Status.WAITING and (row[2] or "").startswith(LINED_UP)]
    _let_go_on(rows)
    # One that is paused is at the front of its sequence now; who resumes it looks again.
    going = {row[0] for row in rows} | {row[0] for row in found if row[3] == Status.PAUSED}
    over, tokens = [], {row[0]: row[4] for row in found}
    for key in keys:
        fresh = [job_id for job_id in next_ones[key] if job_id in going]
        front = [*staying[key], *fresh]
        if front != fronts[key]:
            others = [str(job_id) for job_id in front[1:]] or None
            sequences.filter(key=key).update(
                job_id=front[0] if front else None, others=others, places=lines[key].places
            )
        if (limit := windows.get(key)) is not None:
            let_go = [*limit.counted, *((str(job_id), tokens[job_id]) for job_id in fresh)]
            sequences.filter(key=key).update(let_go=let_go, opens_at=lines[key].opens_at)
        if not front and not lines[key].is_ordered:
            over.append(key)
    if over:
        sequences.filter(key__in=over).delete()
    return len(rows)


def _front(line: Sequence) -> list[UUID]:
    return [*([line.job_id] if line.job_id is not None else []), *map(UUID, line.others or [])]


def _next_ones(line: Sequence, taken: int, limit: Window | None) -> list[UUID]:
    """Return the oldest jobs that are lined up, as many as there are free places, and as a rate lets begin."""
    if not line.key.startswith(CONCURRENT):
        return [] if taken else _oldest(line.key, 1)[0]
    ids, definition = _oldest(line.key, 1)
    if not ids:
        return ids
    line.places = _places(definition, line.places)
    free = (line.ordered or line.places) - taken
    if limit is not None and limit.free < free:
        ids, _definition = _oldest(line.key, limit.free + 1)
        _put_off(line, ids[limit.free :], limit)
        return ids[: limit.free]
    return ids[: max(0, free)] if free <= 1 else _oldest(line.key, free)[0]


def _put_off(line: Sequence, following: list[UUID], limit: Window) -> None:
    """Have the line looked at when its rate lets the next job begin: until then that is scheduled, then it lines up."""
    is_set = line.opens_at is not None and limit.now < line.opens_at <= limit.look_at
    if not is_set and following:
        line.opens_at = limit.look_at
        move("put_off", jobs().filter(id__in=following), waiting_for=LINED_UP, run_at=limit.look_at)
        tell("")


def _places(definition: str, known: int | None) -> int:
    """Return the concurrency of a definition; what was known of it where this process does not have its code."""
    try:
        return registry.get(definition).options.concurrency or 1
    except UnknownDefinition:
        return known or 1


def _oldest(key: str, count: int) -> tuple[list[UUID], str]:
    """Return the oldest jobs that are lined up, and the definition of the first.

    One that was paused in a sequence keeps its place there, and those behind it theirs. When the front has ended, all
    that wait are lined up, and what is paused was. With several places, others of the key may wait for something else.
    """
    # The key is given as a range, as then only the index of sequences has the order: by the primary key PostgreSQL
    # would read what has ended, if that is most of the table. One look for each status: see `StatusIndex`.
    these = jobs().filter(sequence_key__gte=key, sequence_key__lte=key).order_by("sequence_key", "id")
    if key.startswith(CONCURRENT):
        these = these.filter(status=Status.WAITING.value, waiting_for__startswith=LINED_UP)
    looks = [LINES] if dialect().has_partial_indexes else [{status} for status in LINES]
    found = sorted(row for look in looks for row in these.in_status(*look).values_list("id", "definition")[:count])
    return [job_id for job_id, _definition in found[:count]], found[0][1] if found else ""


def _let_go_on(rows: list[tuple[UUID, str, str | None]]) -> None:
    now, at_once, queues = dialect().now(), [], set()
    for job_id, queue, waiting_for in rows:
        _words, _mark, text = (waiting_for or "").partition(NOT_BEFORE)
        due = datetime.fromisoformat(text) if text else None
        if due is not None and due > now:
            jobs().filter(id=job_id).update(waiting_for=TIME, run_at=due)
            queues.add("")
        else:
            at_once.append(job_id)
            queues.add(queue)
    if at_once:
        move("wake", jobs().filter(id__in=at_once), run_at=None)
    if queues and get_settings().notify:
        dialect().notify(sorted(queues))


def advance_forgotten() -> int:
    """Look at up to 50 lines of which nobody has told: a process died between a commit and its look."""
    under_way = Exists(jobs().filter(_UNDER_WAY, id=OuterRef("job_id")).in_status(*OPEN))
    lines = Sequence.objects.using(alias())
    stopped = lines.exclude(under_way).filter(job_id__isnull=False).values_list("key", flat=True)
    begun = Exists(lines.filter(key=OuterRef("sequence_key"), job_id__isnull=False))
    lined = jobs().filter(waiting_for__startswith=LINED_UP).in_status(Status.WAITING).exclude(begun)
    waiting = lined.filter(sequence_key__isnull=False).values_list("sequence_key", flat=True)
    return advance(set(stopped.union(waiting)[:BATCH]) | _with_a_free_place())


def _with_a_free_place() -> set[str]:
    """Return up to 50 lines with several places of which some may be free; others are found by a later look."""
    several = Q(places__gt=1) | Q(ordered__gt=1)
    rows = list(Sequence.objects.using(alias()).filter(several).order_by("?")[:BATCH])
    ids = [job_id for row in rows for job_id in _front(row)]
    under_way = set(jobs().filter(_UNDER_WAY, id__in=ids).in_status(*OPEN).values_list("id", flat=True))
    return {row.key for row in rows if len(under_way.intersection(_front(row))) < (row.ordered or row.places or 1)}


def described(line: str) -> str:
    """Name a line by the option of its jobs and their key."""
    option = "concurrency_key" if line.startswith(CONCURRENT) else "sequence_key"
    return f"{option} {safe_repr(line.removeprefix(CONCURRENT), 80)}"


def line_up_again(these: JobQuerySet, **values: Any) -> int:
    """Let jobs that have no place wait for their turn once more; the caller looks after the commit."""
    return move("line_up", these.filter(sequence_key__isnull=False), waiting_for=LINED_UP, **values)


def leaves_place(sequence_key: str | None) -> dict[str, str]:
    """Return what to set on a job that comes back later: with a concurrency it gives its place to others until then."""
    return {"waiting_for": LINED_UP} if sequence_key is not None and sequence_key.startswith(CONCURRENT) else {}


def blocked_by(job: Identified | UUID | str) -> Job | None:
    """Return the job that is in front of a job that waits for its turn in a sequence, and must end first.

    ``None`` for a job that does not wait for its turn. Raises ``JobNotFound``.
    """
    job_id = id_of(job)
    this = jobs().filter(id=job_id)
    row = this.values_list("sequence_key", "status", "waiting_for").first()
    if row is None:
        raise JobNotFound(f"There is no job {job_id}.")
    key, status, waiting_for = row
    if status != Status.WAITING or not (waiting_for or "").startswith(LINED_UP):
        return None
    front = Sequence.objects.using(alias()).filter(key=key).values("job_id")
    return jobs().light().filter(id__in=front).exclude(id__in=this.values("id")).in_status(*OPEN).first()
