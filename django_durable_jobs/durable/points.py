"""A point in a job's code where something durable happens: its place, its name, and what is recorded there.

``call()`` makes points, and so does everything that waits. A point that has happened is replayed from its
checkpoint; one that cannot happen yet parks the job: ``Parking`` ends the code, and the job runs again later.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from ..conf import get_settings
from ..errors import JobCancelled, OpenTransaction, Parking, TimedOut, TooDeep
from ..faults import fault
from ..operations.checkpoints import BEGINNING, BEGUN, Stored, fixed_by
from ..operations.compensations import COMPENSATION
from ..operations.connections import opened, transaction_open
from ..operations.database import dialect
from ..operations.generations import leave
from ..operations.steps import once
from ..options import check_timeout
from ..serialization import decode, decode_error, encode, encode_error
from .context import JobContext, Parked
from .frames import Frame, fields_of, frame_of_async, frame_of_sync, on_loop

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

    from ..dialects.rows import NewCheckpoint

logger = logging.getLogger("django_durable_jobs.jobs")

LONGEST_PATH: Final = 180
"""Characters of the key of a call that makes calls; the column takes 200."""
RAISED: Final = "raised"

Result = TypeVar("Result")


class Point:
    """A place in the code where something durable happens."""

    __slots__ = ("frame", "key", "kind", "name", "task")

    def __init__(self, name: str, kind: str, frame: Frame) -> None:
        """Take the next place of ``frame``; ``OpenTransaction`` inside a transaction."""
        try:
            frame.check()
        except (JobCancelled, TimedOut):
            # What undoes a call that was made is registered all the same; ``compensate`` raises this afterwards.
            if kind != COMPENSATION:
                raise
        self.frame = frame
        self.name = name
        self.kind = kind
        if opened():
            refuse_open_transaction(f"{kind}({name}) was made inside a transaction", "Leave it first.")
        if frame.depth >= get_settings().call_depth or len(frame.path) > LONGEST_PATH:
            raise TooDeep(f"Calls are nested deeper than {frame.depth} levels: {name} at {frame.path}.")
        frame.job.history.note_call_begins(frame.path, frame.task)
        self.key = frame.next_key()
        self.task = frame.task

    @property
    def job(self) -> JobContext:
        """The job whose code this is."""
        return self.frame.job

    def recorded(self, check: Callable[[Stored | None], object] | None = None) -> Stored | None:
        """Look for what an earlier attempt has recorded here.

        ``check`` raises what is wrong with it; called where a history is only checked, as the code may end here then.
        """
        return self._find(self.key, self.kind, check)

    def _find(self, key: str, kind: str, check: Callable[[Stored | None], object] | None = None) -> Stored | None:
        history = self.job.history
        if self.departs(key, kind) and not on_loop():
            self.begin_generation(key, kind)
        stored = history.find(key, self.name, kind, task=self.frame.task)
        if history.watch is not None:
            if check is not None:
                check(stored)
            history.watch(self, key, stored)
        return stored

    def departs(self, key: str, kind: str) -> bool:
        """Answer whether the code leaves the recorded way here, and may (``BEST_EFFORT``).

        Not in the branches of an async job, nor beside them: which of them had got how far would be left to chance,
        and so what a later attempt finds.
        """
        if not self.job.history.departs(key, self.name, kind) or self.task is not self.frame.task:
            return False
        return all(task.done() for task in list(self.job.tasks or ()))

    def begin_generation(self, key: str, kind: str) -> None:
        """Leave the recorded way: this call and what comes after it run again, in a new generation of checkpoints."""
        job, history = self.job, self.job.history
        calls = history.departure(key, self.name, kind, self.frame.task)
        fields = fields_of(job.row, job.worker_name)
        logger.warning("%s; generation %d begins here", calls, job.row.generation + 1, extra=fields)
        stays = history.what_stays(self.key)
        job.row, kept = job.recorder.transact(lambda: leave(job.row, stays, heed=not job.deaf))
        history.go_on_in(job.row, self.key, kept)

    def replayed(self, stored: Stored) -> Any:
        """Give back what is recorded; an error that the code caught is raised again."""
        if stored.error is not None:
            raise decode_error(stored.error)
        return self.read(cast("str", stored.result))

    def read(self, text: str) -> Any:
        """Read the stored form of this point's result."""
        return decode(text)

    def once(self, decide: Callable[[], str | None]) -> Stored | None:
        """Store what ``decide`` returns as the result of this point, in one transaction; see ``operations.steps``."""
        return self._once(self.job.history.checkpoint(self.key, self.name, self.kind), decide)

    def record(self, result: str) -> Stored:
        """Store a result that depends on nothing in the database; it shares its commit with other jobs' checkpoints."""
        job, rows = self.job, self.rows(result)
        try:
            job.recorder.record(rows)
        except BaseException:
            job.history.note_refused(rows)
            raise
        job.history.note_stored(rows)
        return Stored(self.name, self.kind, result, None)

    def rows(self, result: str) -> list[NewCheckpoint]:
        """Return what is to be stored with this result."""
        history = self.job.history
        return history.rows_for(history.checkpoint(self.key, self.name, self.kind, result=result))

    def begun(self, decide: Callable[[], Any], part: str = "") -> Any:
        """Return what was fixed when this point was first reached; ``decide`` says it in the first attempt.

        A point that fixes more than one thing tells them apart by ``part``.
        """
        key = f"{self.key}{BEGINNING}{part and f'.{part}'}"
        stored = self._find(key, BEGUN)
        if stored is None:
            row = self.job.history.checkpoint(key, self.name, BEGUN)
            # With the kind: a wait of another kind and the same name is another call.
            stored = cast("Stored", self._once(row, lambda: stored_form([self.kind, decide()])))
        return fixed_by(cast("str", stored.result))

    def give_up(self) -> None:
        """Note, in a transaction, that this attempt gets an error here: should it end by it, see ``anew``."""
        job = self.job
        row = job.history.checkpoint(f"{self.key}{BEGINNING}.{job.attempt}", self.name, BEGUN)
        once(job.row, row, lambda: stored_form([self.kind, RAISED]), heed=not job.deaf)

    def anew(self) -> str:
        """Return for which ``part`` this point begins anew, since its error ended an earlier attempt; empty if none.

        An error that the code caught is recorded as the result of this point: then nobody asks this.
        """
        find, key = self.job.history.find, f"{self.key}{BEGINNING}"
        earlier = range(self.job.attempt - 1, 0, -1)
        return next((f"{one}{BEGINNING}" for one in earlier if find(f"{key}.{one}", self.name, BEGUN) is not None), "")

    def deadline(self, timeout: timedelta | float | None, what: str, part: str = "") -> datetime | None:
        """Return when a wait ends that began at its first attempt, or anew; ``None`` when it never does."""
        if timeout is None:
            return None
        length = check_timeout(timeout, what)
        assert length is not None  # noqa: S101 -- only None is none
        return cast("datetime", self.begun(lambda: dialect().now() + length, part))

    def park(self, waiting_for: str, until: datetime | None = None) -> Parking:
        """Return what is to be raised: the job waits, and comes back here."""
        parking = Parking(waiting_for, until)
        self.job.parkings.append(Parked(parking, self.frame.path, self.task))
        return parking

    def fail(self, error: BaseException, task: asyncio.Task[Any] | None = None) -> Exception:
        """Note the error of this point and return it in the form in which a replay would raise it."""
        history = self.job.history
        text = encode_error(error, limit=get_settings().result_limit)
        history.note_error(history.checkpoint(self.key, self.name, self.kind, error=text), task)
        as_replayed = decode_error(text)
        as_replayed.__cause__ = error
        return as_replayed.with_traceback(error.__traceback__)

    def _once(self, row: NewCheckpoint, decide: Callable[[], str | None]) -> Stored | None:
        job, history = self.job, self.job.history
        before = history.take_caught()
        try:
            fault("before-step")
            heed = not job.deaf and self.kind != COMPENSATION
            stored = job.recorder.transact(lambda: once(job.row, row, decide, before=before, heed=heed))
            fault("after-step")
        except BaseException:
            history.note_refused([*before, row])
            raise
        if stored is None:
            history.note_refused([*before, row])
        else:
            history.note_stored([*before, row._replace(result=stored.result, error=stored.error)])
        return stored


def stored_form(value: object, what: str = "value") -> str:
    """Put a value into the form in which it is stored; ``SerializationError`` if it has none, or is too large."""
    return encode(value, limit=get_settings().result_limit, what=what)


def here(what: str, name: str, kind: str) -> Point:
    """Make the point of a wait in sync code; ``what`` names it in errors."""
    return Point(name, kind, frame_of_sync(what))


def elsewhere(what: str, name: str, kind: str, work: Callable[[Point], Result]) -> Coroutine[Any, Any, Result]:
    """Make the same in async code; what is returned does its work, which asks the database, in a thread.

    The place is fixed here, not when the result is awaited; see ``AsyncCaller``.
    """
    return _in_thread(Point(name, kind, frame_of_async(what)), work)


async def _in_thread(point: Point, work: Callable[[Point], Result]) -> Result:
    task = asyncio.current_task()
    if task is not point.frame.task:
        point.job.note_task(task)
    point.task = task
    running = point.job.helpers.run(partial(work, point))
    return await (_to_the_end(running) if point.kind == COMPENSATION else running)


async def _to_the_end(running: Coroutine[Any, Any, Result]) -> Result:
    work, struck = await ended(running)
    if struck is not None and work.exception() is None:
        raise struck
    return work.result()


async def ended(running: Coroutine[Any, Any, Result]) -> tuple[asyncio.Task[Result], asyncio.CancelledError | None]:
    """Wait for what must not be given up half-way; return it with the cancellation that came meanwhile."""
    work = asyncio.ensure_future(running)
    struck: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            struck = error
    return work, struck


def refuse_open_transaction(what: str, advice: str, *, but: BaseDatabaseWrapper | None = None) -> None:
    """Raise ``OpenTransaction`` when this thread has a transaction open, other than on connection ``but``."""
    for connection in opened():
        if connection is not but and transaction_open(connection):
            raise OpenTransaction(
                f"{what} on database {connection.alias!r}, e.g. atomic(). If it rolled back, the checkpoint would stay "
                f"and the effects would not. {advice}"
            )
