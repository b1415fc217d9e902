"""Enqueues that one job answers for: debounce takes the last of a series, throttle the first.

One row per key names the job that answers. Every enqueue of the key locks that row first, until its transaction ends,
so of any number at once exactly one stores a job. All of it happens in the caller's transaction if one is open: what
rolls back was never there.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final
from uuid import UUID

from django.db.models import Exists, OuterRef, Q

from ..conf import get_settings
from ..dialects.now import DatabaseNow
from ..dialects.rows import NewJob
from ..keys import key_of
from ..models import Coalescing
from ..states import OPEN, Status
from .database import alias, dialect, jobs
from .enqueue import Request, insert, prepare

NOT_BEGUN: Final = (Status.SCHEDULED, Status.PENDING, Status.PAUSED)
"""Statuses of a job that nobody has claimed yet, if its token is 0."""
UNIQUE: Final = "unique"
"""How the keys of rows begin that name the holder of a unique key; for these ``until`` is when to look at them."""
BATCH: Final = 500
LOOK_AGAIN: Final = timedelta(hours=1)
LONGEST: Final = 250
"""Characters of a row's key; of a longer one, so many are kept and the rest is told apart by its hash."""
READABLE: Final = 180


def enqueue_once(request: Request) -> tuple[UUID, bool]:
    """Store the job, unless one that is there answers for it; return its id, and whether it was there.

    Arguments and key are checked before any SQL.
    """
    options = request.options
    given: dict[str, object] = dict.fromkeys(("debounce", "debounce_key", "debounce_max", "throttle", "throttle_key"))
    if options.debounce is not None:
        given["delay"] = options.debounce
    job = prepare([replace(request, options=options.changed(given))])[0]
    key = _key(request)
    return dialect().in_own_transaction(lambda: _store_once(request, job, key))


def _key(request: Request) -> str:
    options, name = request.options, request.definition.name
    way = "throttle" if options.debounce is None else "debounce"
    given = getattr(options, f"{way}_key")
    if given is None:
        return f"{way} {name}"
    return row_key(way, name, key_of(given, f"{way}_key", name, request.args, request.kwargs))


def row_key(way: str, definition: str, key: str) -> str:
    """Return the key of the row that says which job answers."""
    whole = f"{way} {definition} {key}"
    return whole if len(whole) <= LONGEST else f"{whole[:READABLE]} {sha256(whole.encode()).hexdigest()}"


def _store_once(request: Request, job: NewJob, key: str) -> tuple[UUID, bool]:
    dialect().lock_keys("Coalescing", [key])
    row = Coalescing.objects.using(alias()).select_for_update().get(key=key)
    now, options = dialect().now(), request.options
    until: datetime | None
    if options.throttle is not None:
        until = now + options.throttle
        if row.job_id is not None and row.until is not None and now < row.until:
            return row.job_id, True
    else:
        assert options.debounce is not None  # noqa: S101 -- one of the two is given
        until = now + options.debounce
        if row.job_id is not None and (put_off := _put_off(row.job_id, job.payload, until, options.debounce_max)):
            Coalescing.objects.using(alias()).filter(key=key).update(until=put_off)
            return row.job_id, True
    insert([job])
    Coalescing.objects.using(alias()).filter(key=key).update(job_id=job.id, until=until)
    return job.id, False


def _put_off(job_id: UUID, payload: str, due: datetime, longest: timedelta | None) -> datetime | None:
    """Give a job that has not begun other arguments and a later time, and return that; ``None`` if it has begun."""
    this = jobs().filter(id=job_id, token=0).in_status(*NOT_BEGUN)
    found = this.select_for_update().values_list("status", "paused_from", "created_at", "run_at").first()
    if found is None:
        return None
    status, paused_from, created_at, before = found
    if longest is not None:
        due = min(due, created_at + longest)
    if Status.PENDING in {status, paused_from}:
        # It is due already and only waits for a worker: it takes the arguments along.
        this.update(payload=payload)
        return due
    this.update(payload=payload, run_at=due)
    if before is not None and due < before and get_settings().notify:
        dialect().notify([""])
    return due


def prune_coalescing() -> int:
    """Look at up to 500 rows whose time is over, and delete those that answer for nothing any more."""
    answers = jobs().filter(id=OuterRef("job_id"), token=0).in_status(*NOT_BEGUN)
    lives = jobs().filter(id=OuterRef("job_id")).in_status(*OPEN)
    over = Coalescing.objects.using(alias()).filter(Q(until__lt=DatabaseNow()) | Q(until=None))
    answering = Q(Exists(answers)) | (Q(key__startswith=f"{UNIQUE} ") & Q(Exists(lives)))
    looked_at = list(over.order_by("until").values_list("key", flat=True)[:BATCH])
    deleted = over.filter(~answering, key__in=looked_at).delete()[0]
    # What is left is looked at later: live jobs must not keep others from their turn.
    over.filter(key__in=looked_at).update(until=DatabaseNow() + LOOK_AGAIN)
    return deleted
