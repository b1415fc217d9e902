"""What one run of a pipeline knows of itself: its beginning, its time, what comes next, and how it ends.

The order of things is one generator, ``Running.steps``, which says what is to be done next; who does it stands in
``conduct.py``. Each task has a place of its own in the job (its path), so that a further try of one does not move the
others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID

from ...errors import ChildFailed, NoRetry, Snooze, TaskFailed, TimedOut
from ...operations import reports
from ...operations.reports import RUN, RunOutcome
from ...operations.steps import hold
from ...options import Options
from ...serialization import decode, encode_error
from ..frames import Frame, fields_of
from ..gather import gather, threshold
from ..points import Point, stored_form
from ..running import HOPELESS, Call
from ..timers import rest
from .tries import Rest, Tried, Try, delay_after

if TYPE_CHECKING:
    from ...dialects.rows import NewCheckpoint
    from ...operations.checkpoints import Stored
    from ..threads import Helpers
    from .declaration import Pipeline

logger = logging.getLogger("django_durable_jobs.jobs")

ON_START: Final = 1
"""The place of the first hook below the beginning of the run; the other one's depends on the attempt."""

LEAST: Final = 0.001
"""Seconds that are left at least to a gather, which takes no less than some."""

Steps = Generator[Try | Rest, Tried | None, RunOutcome]


@dataclass(frozen=True, slots=True)
class Run:
    """What ``on_start`` is told."""

    job_id: UUID
    pipeline: str
    started_at: datetime
    tasks: tuple[str, ...]


class Running:
    """What a run knows of itself; the methods that ask the database are run in a thread by async jobs."""

    def __init__(self, pipeline: Pipeline, frame: Frame, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.pipeline = pipeline
        self.frame = frame
        self.job = frame.job
        self.args, self.kwargs = args, kwargs
        self.point = Point(pipeline.name, RUN, frame)
        self.started_at: datetime | None = None
        self.ends_at: float | None = None
        self.lives = reports.Lives(0, None)
        self.ended_in = self.job.attempt
        """The attempt in which the run came to what it ends with, which may have been one before a lost worker."""

    @property
    def helpers(self) -> Helpers:
        """The threads of an async job."""
        return self.job.helpers

    def begin(self) -> None:
        """Fix when the run began and when its time is over."""
        stored = self.point.recorded()
        if stored is None:
            stored = self.point.once(partial(self._beginning, self.job.now()))
        elif self.job.attempt > 1:
            self.lives = reports.lives(self.job.id)
        run = cast("dict[str, Any]", decode(cast("str", cast("Stored", stored).result)))
        self.started_at = run["started"]
        if run["deadline"] is not None:
            self.ends_at = self.job.after((run["deadline"] - self.job.now()).total_seconds())

    def _beginning(self, now: datetime) -> str:
        pipeline = self.pipeline
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

    def steps(self) -> Steps:
        """Say what is to be done next, one try after the other; return how the run ended, or raise why it failed."""
        errors = False
        for task in self.pipeline.tasks:
            frame = self._place(self.frame.next_key())
            tried: list[Tried] = []
            while not tried or tried[-1].error is not None:
                self._check_time()
                life = tried[-1].life + tried[-1].is_of_an_earlier_life(self.lives) if tried else 0
                one = Try(task, self.args, self.kwargs, frame, life=life, failures=self.lives.failures)
                tried.append(cast("Tried", (yield one)))
                error, self.ended_in = tried[-1].error, tried[-1].attempt
                if error is None:
                    break
                self._check_time()
                delay = delay_after(task, tried)
                if delay is not None:
                    if delay:
                        yield Rest(Point("retry", "sleep", frame), delay)
                elif self.pipeline.on_failure == "continue":
                    errors = True
                    break
                elif not tried[-1].is_of_an_earlier_life(self.lives):
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

    def gather(self) -> RunOutcome:
        """Run the tasks as children of the job, side by side; return how the run ended, or raise why it failed."""
        invocations = [task.job.s(*self.args, **self.kwargs) for task in self.pipeline.tasks]
        strategies = {"fail_fast": "fail_fast", "continue": "collect_all", "retry_on_failure": threshold(1)}
        strategy = cast("Any", strategies[self.pipeline.on_failure])
        # Not looked at before: that the time is over is for gather to see, which then cancels the open ones.
        left = None if self.ends_at is None else max(self.ends_at - self.job.after(0), LEAST)
        results = gather(*invocations, strategy=strategy, timeout=left)
        return "completed_with_errors" if results.failures() else "completed"

    def rest(self, order: Rest) -> None:
        """Wait between two tries, but not beyond the run's end."""
        left = order.delay if self.ends_at is None else timedelta(seconds=max(self.ends_at - self.job.after(0), 0))
        rest(order.point, lambda job: job.now() + min(order.delay, left))

    # Ends ---------------------------------------------------------------------------------------------------

    def outcome_of(self, error: Exception) -> RunOutcome | None:
        """Return how the run ends with this error; ``None`` when the job will have another attempt."""
        if isinstance(error, Snooze):
            return None
        if not isinstance(error, TaskFailed):
            self.ended_in = self.job.attempt
        if self.is_over:
            return "timeout"
        if isinstance(error, TaskFailed | ChildFailed) and self.pipeline.on_failure == "fail_fast":
            return "failed"
        if isinstance(error, (*HOPELESS, NoRetry)) or self.job.attempt >= self.job.max_attempts:
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
        return self.hook(self.pipeline.on_complete, ON_START + self.ended_in, report)

    def hook_failed(self, call: Call, error: Exception) -> list[NewCheckpoint]:
        """Note the error of a hook; return what is to be stored. One that is stored already is only raised again."""
        fields = fields_of(self.job.row, self.job.worker_name)
        logger.error("Hook %s of job %s failed", call.name, self.job.id, exc_info=error, extra=fields)
        history = self.job.history
        history.drop_errors_below(self.point.key)
        if call.recorded() is not None:
            return []
        return [history.checkpoint(call.key, call.name, call.kind, error=encode_error(error))]
