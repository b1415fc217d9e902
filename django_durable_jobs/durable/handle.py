"""A job that was enqueued, as the code that enqueued it sees it."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, cast
from uuid import UUID

from asgiref.sync import sync_to_async

from .. import registry
from ..clock import SYSTEM
from ..errors import JobFailed, JobNotFound, UnknownDefinition, _as_delay
from ..operations.database import jobs
from ..operations.reports import RunReport
from ..operations.reports import read as read_report
from ..serialization import decode
from ..states import FINAL, Status

if TYPE_CHECKING:
    from ..models import Job

R = TypeVar("R")

LONGEST_LOOK = 1.0
"""Seconds between two looks at most, while waiting for a result."""


class Progress(NamedTuple):
    """How far a job has come; ``total`` is ``None`` where nobody knows."""

    current: float
    total: float | None
    message: str


@dataclass(frozen=True, slots=True)
class JobHandle(Generic[R]):
    """Id and definition of an enqueued job; every question asks the database anew."""

    id: UUID
    definition: str
    existing: bool = field(default=False, compare=False)
    """Whether the enqueue was answered with a job that was there already (``unique_key``, ``debounce``, …)."""

    def job(self) -> Job:
        """Return the stored job; ``JobNotFound`` when its transaction rolled back or it was deleted."""
        found = jobs().filter(id=self.id).first()
        if found is None:
            raise JobNotFound(f"There is no job {self.id}: not committed, or deleted.")
        return found

    @property
    def status(self) -> Status:
        """The present status."""
        return Status(self.job().status)

    @property
    def progress(self) -> Progress | None:
        """How far the job has said that it has come, ``None`` if it has said nothing; see ``progress()``."""
        stored = self.job().progress
        return None if stored is None else Progress(**stored)

    def result(self, timeout: timedelta | float | None = 0) -> R:
        """Return the job's result, waiting up to ``timeout`` (seconds or timedelta; ``None``: without limit) for it.

        Raises ``JobFailed`` when the job ended without a result, ``TimeoutError`` when it has not ended, and
        ``OptionError`` for a timeout that is none. Do not wait inside a job: it would hold its slot; use ``call()``.
        """
        deadline = _deadline(timeout)
        pause, never = 0.005, threading.Event()
        while True:
            job = self.job()
            if Status(job.status) in FINAL:
                return self._result_of(job)
            left = LONGEST_LOOK if deadline is None else deadline - SYSTEM.monotonic()
            if left <= 0:
                raise TimeoutError(f"Job {self.id} is {job.status}: no result within {timeout} seconds.")
            SYSTEM.wait(never, min(pause, left, LONGEST_LOOK))
            pause *= 1.5

    async def aresult(self, timeout: timedelta | float | None = 0) -> R:  # noqa: ASYNC109 -- the same signature as result()
        """Do what ``result`` does without blocking the event loop."""
        deadline = _deadline(timeout)
        pause = 0.005
        while True:
            try:
                return await sync_to_async(self.result)(0)
            except TimeoutError:
                if deadline is not None and SYSTEM.monotonic() >= deadline:
                    raise
            await asyncio.sleep(min(pause, LONGEST_LOOK))
            pause *= 1.5

    def report(self) -> RunReport | None:
        """Return what the tasks of a pipeline's run came to.

        ``None`` while it has not ended, for a run that was cancelled before it began, and for any other job.
        """
        return read_report(self.id)

    def _result_of(self, job: Job) -> R:
        if Status(job.status) is not Status.COMPLETED:
            raise JobFailed(
                f"Job {self.id} ({self.definition}) is {job.status}: {job.last_error or 'no error recorded'}"
            )
        if job.result is None:
            return None  # type: ignore[return-value]  # R is None then
        return cast("R", result_value(self.definition, job.result))


def result_value(definition: str, text: str) -> Any:
    """Read a stored result with the types of the definition, or plainly where it is not known here."""
    try:
        codec = registry.get(definition).result
    except UnknownDefinition:
        return decode(text)
    return codec.decode(text)


def _deadline(timeout: timedelta | float | None) -> float | None:
    return None if timeout is None else SYSTEM.monotonic() + _as_delay(timeout, "result's timeout").total_seconds()
