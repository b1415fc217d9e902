"""One run of a pipeline: from its beginning, over the tries of its tasks, to its report and its ending.

The order of things is one generator, ``_Run.tasks``, which says what is to be done next; ``run_sync`` and ``run_async``
do it. Each task has a place of its own in the job (its path), so that a further try of one does not move the others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast
from uuid import UUID

from ..definitions import Options
from ..errors import JobCancelled, NoRetry, RetryAfter, SerializationError, Snooze, TaskFailed, TimedOut
from ..operations import reports
from ..operations.database import dialect
from ..operations.reports import RUN, TASK, RunOutcome
from ..operations.steps import hold
from ..rendering import safe_str
from ..serialization import decode, encode_error
from .frames import Frame, calling_frame
from .points import Point, stored_form
from .running import MISUSE, Call, body, body_in_time, helpers_of, store, store_async
from .running import run_async as call_async
from .running import run_sync as call_sync
from .timers import rest

if TYPE_CHECKING:
    from ..dialects.rows import NewCheckpoint
    from ..operations.checkpoints import Stored
    from .pipeline import Pipeline, PipelineTask
    from .threads import Helpers

logger = logging.getLogger("django_durable_jobs.jobs")

ERROR_LENGTH: Final = 2000
ON_START: Final = 1
"""The place of the first hook below the beginning of the run; the other one's depends on the attempt."""


@dataclass(frozen=True, slots=True)
class Run:
    """What ``on_start`` is told."""

    job_id: UUID
    pipeline: str
    started_at: datetime
    tasks: tuple[str, ...]


class Tried(NamedTuple):
    """How a try of a task ended; ``attempt`` is that of the job in which it was made."""

    attempt: int
    error: str | None
    final: bool
    delay: float | None


class Rest(NamedTuple):
    """A wait between two tries."""

    point: Point
    delay: timedelta


class Try(Call):
    """One try of a task, as a durable call that is recorded whether it succeeds or not."""

    __slots__ = ()

    def __init__(self, task: PipelineTask, args: tuple[Any, ...], kwargs: dict[str, Any], frame: Frame) -> None:
        """Take the next place of the task."""
        super().__init__(task.job, Options(timeout=task.options.timeout), args, kwargs, frame)
        self.kind = TASK

    @property
    def timeout(self) -> timedelta | None:
        """What is left of the run's time, if the task may take longer."""
        own, left = self.options.timeout, self.frame.time_left()
        if left is None:
            return own
        return timedelta(seconds=max(left, 0.001)) if own is None else min(own, timedelta(seconds=max(left, 0.001)))

    def begin(self) -> None:
        """Fix when the try began; one that a worker was lost with goes on under its first time."""
        self.begun(lambda: dialect().now())

    def ended(self, text: str | None, error: Exception | None = None) -> str:
        """Put the end of the try into the form in which it is stored."""
        delay = error.delay.total_seconds() if isinstance(error, RetryAfter) else None
        reason = error.reason if isinstance(error, NoRetry | RetryAfter) else error
        form = {
            "attempt": self.job.attempt,
            "finished": self.job.now(),
            "result": text,
            "error": None if reason is None else _shown(reason),
            "final": isinstance(error, NoRetry | SerializationError),
            "delay": delay,
        }
        if error is not None:
            logger.warning("Task %s of job %s failed", self.name, self.job.id, exc_info=error)
        return stored_form(form, f"the result of task {self.name}")

    def rows(self, text: str) -> list[NewCheckpoint]:
        """Return what is to be stored with the end of the try."""
        history = self.job.history
        return history.rows_for(history.checkpoint(self.key, self.name, TASK, result=text))

    def stored(self, rows: list[NewCheckpoint], text: str) -> Tried:
        """Note that the rows are stored."""
        self.job.history.note_stored(rows)
        return _tried(text)

    def replayed(self, stored: Stored) -> Tried:
        """Read what is recorded."""
        return _tried(cast("str", stored.result))


def _tried(text: str) -> Tried:
    form = cast("dict[str, Any]", decode(text))
    return Tried(form["attempt"], form["error"], form["final"], form["delay"])


def _shown(error: BaseException | str) -> str:
    return error if isinstance(error, str) else f"{type(error).__name__}: {safe_str(error, ERROR_LENGTH)}"


Steps = Generator[Try | Rest, Tried | None, RunOutcome]


class _Run:
    """What a run knows of itself; the methods that ask the database are run in a thread by async jobs."""

    def __init__(self, pipeline: Pipeline, frame: Frame, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.pipeline = pipeline
        self.frame = frame
        self.job = frame.job
        self.args, self.kwargs = args, kwargs
        self.point = Point(pipeline.name, RUN, frame)
        self.started_at: datetime | None = None
        self.ends_at: float | None = None

    @property
    def helpers(self) -> Helpers:
        """The threads of an async job."""
        return helpers_of(self.job)

    def begin(self) -> None:
        """Fix when the run began and when its time is over."""
        stored = self.point.recorded() or self.point.once(self._beginning)
        run = cast("dict[str, Any]", decode(cast("str", cast("Stored", stored).result)))
        self.started_at = run["started"]
        if run["deadline"] is not None:
            self.ends_at = self.job.after((run["deadline"] - self.job.now()).total_seconds())

    def _beginning(self) -> str:
        pipeline, now = self.pipeline, dialect().now()
        names = [task.name for task in pipeline.tasks]
        return stored_form(
            {
                "pipeline": pipeline.name,
                "started": now,
                "deadline": None if pipeline.timeout is None else now + pipeline.timeout,
                "tasks": names,
                "children": {f"{pipeline.name}.{name}": name for name in names} if pipeline.mode == "parallel" else {},
            }
        )

    def tasks(self) -> Steps:
        """Say what is to be done next, one try after the other; return how the run ended, or raise why it failed."""
        errors = False
        for task in self.pipeline.tasks:
            frame = self._place(self.frame.next_key())
            tried: list[Tried] = []
            while not tried or tried[-1].error is not None:
                self._check_time()
                tried.append(cast("Tried", (yield Try(task, self.args, self.kwargs, frame))))
                error = tried[-1].error
                if error is None:
                    break
                self._check_time()
                delay = _delay(task, tried)
                if delay is not None:
                    if delay:
                        yield Rest(Point("retry", "sleep", frame), delay)
                elif self.pipeline.on_failure == "continue":
                    errors = True
                    break
                elif tried[-1].attempt >= self.job.attempt:
                    raise TaskFailed(f"Task {task.name} of {self.pipeline.name} failed: {error}")
        return "completed_with_errors" if errors else "completed"

    def _place(self, path: str) -> Frame:
        frame = Frame(self.job, self.frame.options, path)
        frame.deadline = self._deadline()
        frame.settle(self.frame.task)
        return frame

    def _deadline(self) -> float | None:
        limits = [limit for limit in (self.frame.deadline, self.ends_at) if limit is not None]
        return min(limits, default=None)

    def _check_time(self) -> None:
        if self.is_over:
            raise TimedOut(f"The run of {self.pipeline.name} took longer than {self.pipeline.timeout}.")

    @property
    def is_over(self) -> bool:
        """Whether the time of the whole run is over."""
        return self.ends_at is not None and self.job.is_past(self.ends_at)

    def rest(self, order: Rest) -> None:
        """Wait between two tries, but not beyond the run's end."""
        left = order.delay if self.ends_at is None else timedelta(seconds=max(self.ends_at - self.job.after(0), 0))
        rest(order.point, lambda: dialect().now() + min(order.delay, left))

    # Ends ---------------------------------------------------------------------------------------------------

    def outcome_of(self, error: Exception) -> RunOutcome | None:
        """Return how the run ends with this error; ``None`` when the job will have another attempt."""
        if isinstance(error, Snooze):
            return None
        if self.is_over:
            return "timeout"
        final: tuple[type[Exception], ...] = (*MISUSE, SerializationError, NoRetry)
        if isinstance(error, TaskFailed) and self.pipeline.on_failure == "fail_fast":
            return "failed"
        if isinstance(error, final) or self.job.attempt >= self.job.max_attempts:
            return "failed"
        return None

    def write(self, outcome: RunOutcome) -> reports.RunReport | None:
        """Write the report, under the token."""
        row = self.job.row

        def work() -> reports.RunReport | None:
            hold(row, heed=False)
            return reports.write(row.id, row.generation, outcome)

        return self.job.recorder.transact(work)

    def hook(self, function: Callable[[Any], Any], number: int, told: object) -> Call:
        """Make the durable call of a hook; it may still run when the time of the run is over."""
        frame = self._place(self.point.key)
        frame.deadline = None
        frame.calls = number - 1
        return Call(function, Options(), (told,), {}, frame)

    def start_hook(self) -> Call | None:
        """Return the call of ``on_start``."""
        if self.pipeline.on_start is None:
            return None
        assert self.started_at is not None  # noqa: S101 -- the run has begun
        names = tuple(task.name for task in self.pipeline.tasks)
        return self.hook(self.pipeline.on_start, ON_START, Run(self.job.id, self.pipeline.name, self.started_at, names))

    def end_hook(self, report: reports.RunReport | None) -> Call | None:
        """Return the call of ``on_complete``; a run that is retried ends again, and tells it again."""
        if self.pipeline.on_complete is None or report is None:
            return None
        return self.hook(self.pipeline.on_complete, ON_START + self.job.attempt, report)

    def hook_failed(self, call: Call, error: Exception) -> list[NewCheckpoint]:
        """Note the error of a hook; return what is to be stored. One that is stored already is only raised again."""
        logger.error("Hook %s of job %s failed", call.name, self.job.id, exc_info=error)
        history = self.job.history
        history.drop_errors_below(self.point.key)
        if call.recorded() is not None:
            return []
        return [history.checkpoint(call.key, call.name, call.kind, error=encode_error(error))]


def _delay(task: PipelineTask, tried: list[Tried]) -> timedelta | None:
    """Return how long to wait for the next try in this attempt of the job; ``None`` when none is left."""
    last = tried[-1]
    failures = 0
    for one in reversed(tried):
        if one.attempt != last.attempt:
            break
        failures += 1
    if last.final or failures > (task.options.retries or 0):
        return None
    if last.delay is not None:
        return timedelta(seconds=last.delay)
    assert task.options.backoff is not None  # noqa: S101 -- a pipeline gives each task one
    return task.options.backoff.delay(failures - 1)


# Doing it -----------------------------------------------------------------------------------------------------------


def run_sync(pipeline: Pipeline, /, *args: Any, **kwargs: Any) -> str:
    """Run a pipeline in the thread of its job; returns its outcome."""
    run = _Run(pipeline, calling_frame(f"Pipeline {pipeline.name}", None), args, kwargs)
    try:
        return _whole(run)
    except JobCancelled:
        run.write("cancelled")
        raise


def _whole(run: _Run) -> str:
    try:
        run.begin()
        _hook(run, run.start_hook())
        outcome = _steps(run)
    except Exception as error:
        ending = run.outcome_of(error)
        if ending is None:
            raise
        _hook(run, run.end_hook(run.write(ending)))
        raise NoRetry(error) from error
    _hook(run, run.end_hook(run.write(outcome)))
    return outcome


def _steps(run: _Run) -> RunOutcome:
    steps, answer = run.tasks(), None
    try:
        while True:
            order = steps.send(answer)
            answer = None
            if isinstance(order, Rest):
                run.rest(order)
            else:
                answer = _try(order)
    except StopIteration as end:
        return cast("RunOutcome", end.value)


def _try(one: Try) -> Tried:
    recorded = one.recorded()
    if recorded is not None:
        return one.replayed(recorded)
    one.begin()
    try:
        text = one.ended(one.encode(body(one)))
    except (*MISUSE, Snooze):
        raise
    except Exception as error:  # noqa: BLE001 -- it is recorded
        text = one.ended(None, error)
    return cast("Tried", store(one, text))


def _hook(run: _Run, call: Call | None) -> None:
    if call is None:
        return
    try:
        call_sync(call)
    except Exception as error:  # noqa: BLE001 -- it is recorded
        if rows := run.hook_failed(call, error):
            run.job.recorder.record(rows)


async def run_async(pipeline: Pipeline, /, *args: Any, **kwargs: Any) -> str:
    """Run a pipeline with async tasks in the task of its job."""
    run = _Run(pipeline, calling_frame(f"Pipeline {pipeline.name}", asyncio.current_task()), args, kwargs)
    try:
        return await _awhole(run)
    except (JobCancelled, asyncio.CancelledError):
        if isinstance(run.job.why, JobCancelled):
            await run.helpers.run(lambda: run.write("cancelled"))
        raise


async def _awhole(run: _Run) -> str:
    run_in_thread = run.helpers.run
    try:
        await run_in_thread(run.begin)
        await _ahook(run, run.start_hook())
        outcome = await _asteps(run)
    except Exception as error:
        ending = run.outcome_of(error)
        if ending is None:
            raise
        await _ahook(run, run.end_hook(await run_in_thread(partial(run.write, ending))))
        raise NoRetry(error) from error
    await _ahook(run, run.end_hook(await run_in_thread(partial(run.write, outcome))))
    return outcome


async def _asteps(run: _Run) -> RunOutcome:
    helpers = run.helpers
    steps, answer = run.tasks(), None
    try:
        while True:
            order = steps.send(answer)
            answer = None
            if isinstance(order, Rest):
                await helpers.run(partial(run.rest, order))
            else:
                answer = await _atry(order)
    except StopIteration as end:
        return cast("RunOutcome", end.value)


async def _atry(one: Try) -> Tried:
    helpers = helpers_of(one.job)
    recorded = one.recorded()
    if recorded is not None:
        return one.replayed(recorded)
    await helpers.run(one.begin)
    failure: Exception | None = None
    text = None
    try:
        text = one.encode(await body_in_time(one, helpers))
    except (*MISUSE, Snooze):
        raise
    except Exception as error:  # noqa: BLE001 -- it is recorded
        failure = error
    return cast("Tried", await store_async(one, await helpers.run(lambda: one.ended(text, failure)), helpers))


async def _ahook(run: _Run, call: Call | None) -> None:
    if call is None:
        return
    helpers = run.helpers
    try:
        await call_async(call)
    except Exception as error:  # noqa: BLE001 -- it is recorded
        if rows := run.hook_failed(call, error):
            await helpers.record(rows)
