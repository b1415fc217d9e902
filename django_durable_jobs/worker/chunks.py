"""Running chunks: one call of a function for many claimed jobs, and an outcome for each of them.

The jobs stay what they are: each has its lease, its token and its attempt, and ends by itself. Only their code is one
call, so there is no single job in it: durable calls and ``current_job()`` are refused.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextvars import Context
from types import CoroutineType
from typing import Any, NamedTuple

from asgiref.sync import async_to_sync

from ..chunks import ChunkItem
from ..dialects.rows import Claimed
from ..durable.doors import ThreadDoor, was_struck
from ..durable.frames import chunk_running, fields_of
from ..errors import NoRetry, SerializationError
from ..faults import fault
from ..outcomes import Outcome
from . import sessions
from .executor import Executor, Prepared

logger = logging.getLogger("django_durable_jobs.jobs")

Ended = list[tuple[Claimed, Outcome]]


class _One(NamedTuple):
    """A job of the chunk that is being run."""

    prepared: Prepared
    item: ChunkItem[Any, Any]


class ChunkExecutor(Executor):
    """Runs the functions of claimed jobs, alone or in chunks."""

    def run_chunk(self, jobs: Sequence[Claimed]) -> Ended:
        """Run jobs of one definition in this thread, together. Raises nothing; see ``run``."""
        try:
            sessions.before_job()
            ended = Context().run(self._run_chunk, jobs)
        except BaseException as error:  # noqa: BLE001 -- not the jobs' code, which is caught closer to it
            ended = [(job, self._stumbled(job, error)) for job in jobs]
        try:
            left = sessions.clean_up(anew=was_struck())
        except BaseException:
            fields = fields_of(jobs[0], self._worker_name)
            logger.exception("Connections could not be cleaned after a chunk with job %s", jobs[0].id, extra=fields)
            return ended
        return ended if left is None else [(job, self._left_open(job, outcome, left)) for job, outcome in ended]

    def _run_chunk(self, jobs: Sequence[Claimed]) -> Ended:
        ones, ended = self._prepare_chunk(jobs)
        if not ones:
            return ended
        call, raised = _call_of(ones), None
        try:
            fault("before-body")
            value = self._called(call, ones)
            fault("after-body")
            _refuse_value(call, value)
        except BaseException as error:  # noqa: BLE001 -- SystemExit and the like end the jobs, not the worker
            raised = error
        return ended + [(one.prepared.context.row, self._outcome(one, raised)) for one in ones]

    def _called(self, call: Prepared, ones: list[_One]) -> object:
        # A single job of the chunk is not stopped: the others run in the same call.
        door = ThreadDoor()
        stop = self.stops.limit([one.prepared.context for one in ones], door)
        try:
            value = call.definition.function(*call.args)
            if type(value) is CoroutineType:
                value = async_to_sync(_awaited)(value)
        finally:
            door.close()
            self.stops.forget(stop)
        return value

    async def run_chunk_async(self, jobs: Sequence[Claimed]) -> Ended:
        """Do the same on the event loop; a cancelled task becomes released jobs."""
        try:
            ones, ended = self._prepare_chunk(jobs)
        except BaseException as error:  # noqa: BLE001 -- as in run_chunk()
            return [(job, self._stumbled(job, error)) for job in jobs]
        if not ones:
            return ended
        lane = self._helpers.enter()
        call, raised = _call_of(ones), None
        try:
            fault("before-body")
            value = await self.limited(call, [one.prepared.context for one in ones])
            fault("after-body")
            _refuse_value(call, value)
        except BaseException as error:  # noqa: BLE001 -- as above
            raised = error
        self._helpers.leave(lane)
        return ended + [(one.prepared.context.row, self._outcome(one, raised)) for one in ones]

    def _prepare_chunk(self, jobs: Sequence[Claimed]) -> tuple[list[_One], Ended]:
        """Return the jobs that run, and how those ended that cannot."""
        chunk_running.set(jobs[0].definition)
        ones: list[_One] = []
        ended: Ended = []
        for job in jobs:
            prepared = self._prepare(job)
            if not isinstance(prepared, Prepared):
                ended.append((job, prepared))
                continue
            try:
                prepared.context.check()
            except BaseException as error:  # noqa: BLE001 -- it was cancelled before it began
                ended.append((job, self._raised(prepared, error)))
                continue
            (argument,) = prepared.args or prepared.kwargs.values()
            ones.append(_One(prepared, ChunkItem(argument, prepared.context)))
        return ones, ended

    def _outcome(self, one: _One, raised: BaseException | None) -> Outcome:
        prepared, item = one
        error: BaseException | None = item.error
        if error is None and not item.has_outcome:
            error = raised
        if error is None:
            try:
                return self._returned(prepared, item.result)
            except BaseException as refused:  # noqa: BLE001 -- a result that cannot be stored ends its own job only
                error = refused
        return self._raised(prepared, error)


def _call_of(ones: list[_One]) -> Prepared:
    """Describe the one call: the definition's function with all items, under the time limit of the first job."""
    first = ones[0].prepared
    return Prepared(first.definition, ([one.item for one in ones],), {}, first.context)


def _refuse_value(call: Prepared, value: object) -> None:
    # An error for those items of which nothing was said: whoever returns results believes that they are taken.
    if value is not None:
        raise NoRetry(
            SerializationError(
                f"{call.definition.name} returned {type(value).__name__}: the function of a chunk returns nothing, "
                "and sets item.result for each of its items."
            )
        )


async def _awaited(coroutine: Any) -> Any:
    return await coroutine
