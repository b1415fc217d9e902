"""Sequences: of the jobs with one key, one at a time may run, in the order in which they were enqueued.

A job with a ``sequence_key`` is stored as waiting, for ``sequence``. Its row in the table of sequences names the job
at the front, the only one that is not lined up; when that has ended, the oldest one is let go on. Both who enqueues
and who ends a job look after their commit (``advance``), so whoever commits last sees everything; looks at one key
wait for each other at the sequence's row. What a crash between commit and look leaves is found by
``advance_forgotten``. No lock is taken in a caller's transaction.

Jobs without a key never come here, and no statement that claims or completes knows of sequences.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef, Q

from ..conf import get_settings
from ..dialects.rows import NewJob
from ..errors import JobNotFound
from ..ids import Identified, id_of
from ..models import Job, Sequence
from ..states import LINES, OPEN, Status
from .database import alias, dialect, jobs
from .transition import move
from .wake import LINED_UP, TIME

if TYPE_CHECKING:
    from ..querysets.jobs import JobQuerySet

NOT_BEFORE: Final = f"{LINED_UP}, not before "
"""How the wait of a job begins that has a time, too; the instant follows."""
BATCH: Final = 50

# Written out: an open job that waits for its turn is not at the front, even if it was once (an order to retry).
_UNDER_WAY: Final = ~(Q(status=Status.WAITING.value) & Q(waiting_for__startswith=LINED_UP))


def lined_up(new: Iterable[NewJob]) -> list[NewJob]:
    """Return the jobs as they are stored: those of a sequence wait for their turn, then for their time."""
    return [_lined_up(job) for job in new]


def _lined_up(job: NewJob) -> NewJob:
    if job.more is None or job.more.get("sequence_key") is None:
        return job
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
    fronts = {key: front for key, front in sequences.values_list("key", "job_id") if front is not None}
    present = jobs().filter(_UNDER_WAY, id__in=list(fronts.values())).in_status(*OPEN)
    under_way = set(present.values_list("id", flat=True))
    free = [key for key in keys if fronts.get(key) not in under_way]
    oldest = {key: job_id for key in free if (job_id := _oldest(key)) is not None}
    # Those that were cancelled or deleted since they were read are missing; who did it looks after the commit.
    found = list(
        jobs()
        .filter(id__in=oldest.values())
        .in_status(*LINES)
        .order_by("id")
        .select_for_update()
        .values_list("id", "queue", "waiting_for", "status")
    )
    # Not asked of the database, which might read everything that waits in line to answer it.
    rows = [row[:3] for row in found if row[3] == Status.WAITING and (row[2] or "").startswith(LINED_UP)]
    _let_go_on(rows)
    # One that is paused is at the front now; who resumes it looks again.
    going = {row[0] for row in rows} | {row[0] for row in found if row[3] == Status.PAUSED}
    chosen = {key: job_id for key, job_id in oldest.items() if job_id in going}
    for key, job_id in chosen.items():
        sequences.filter(key=key).update(job_id=job_id)
    if over := [key for key in free if key not in chosen]:
        sequences.filter(key__in=over).delete()
    return len(rows)


def _oldest(key: str) -> UUID | None:
    """Return the oldest job that is lined up; one that was paused there keeps its place, and those behind it theirs.

    When the front has ended, all that wait are lined up, and what is paused was.
    """
    # The key is given as a range, as then only the index of sequences has the order: by the primary key PostgreSQL
    # would read what has ended, if that is most of the table. One look for each status: see `StatusIndex`.
    these = jobs().filter(sequence_key__gte=key, sequence_key__lte=key).order_by("sequence_key", "id")
    looks = [LINES] if dialect().has_partial_indexes else [{status} for status in LINES]
    found = (these.in_status(*look).values_list("id", flat=True).first() for look in looks)
    return min((job_id for job_id in found if job_id is not None), default=None)


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
    """Look at up to 50 sequences of which nobody has told: a process died between a commit and its look."""
    under_way = Exists(jobs().filter(_UNDER_WAY, id=OuterRef("job_id")).in_status(*OPEN))
    stopped = Sequence.objects.using(alias()).exclude(under_way).values_list("key", flat=True)
    begun = Exists(Sequence.objects.using(alias()).filter(key=OuterRef("sequence_key")))
    lined = jobs().filter(waiting_for__startswith=LINED_UP).in_status(Status.WAITING).exclude(begun)
    waiting = lined.filter(sequence_key__isnull=False).values_list("sequence_key", flat=True)
    return advance(set(stopped.union(waiting)[:BATCH]))


def line_up_again(these: JobQuerySet, **values: Any) -> int:
    """Let ended jobs of sequences wait for their turn once more; the caller looks after the commit."""
    return move("line_up", these.filter(sequence_key__isnull=False), waiting_for=LINED_UP, **values)


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
