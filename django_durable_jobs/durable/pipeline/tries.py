"""One try of a pipeline's task: a durable call that is recorded whether it succeeds or not."""

from __future__ import annotations

import logging
from copy import deepcopy
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from ...errors import NoRetry, RetryAfter, SerializationError
from ...operations.reports import TASK, Lives
from ...options import Options
from ...rendering import safe_str
from ...serialization import decode
from ..frames import Frame, fields_of
from ..points import Point, stored_form
from ..running import Call

if TYPE_CHECKING:
    from .declaration import PipelineTask

logger = logging.getLogger("django_durable_jobs.jobs")

ERROR_LENGTH: Final = 2000


class Tried(NamedTuple):
    """How a try of a task ended.

    ``attempt`` is that of the job in which it was made; ``life`` counts the lives of the run, of which each has all
    tries anew: a next attempt after one that failed, and an order to retry. A worker that is lost begins none.
    """

    attempt: int
    error: str | None
    final: bool
    delay: float | None
    life: int
    failures: int
    finished: datetime

    def is_of_an_earlier_life(self, lives: Lives) -> bool:
        """Answer whether the run has ended since."""
        over = lives.ended_at is not None and self.finished <= lives.ended_at
        return over or self.failures < lives.failures


class Rest(NamedTuple):
    """A wait between two tries."""

    point: Point
    delay: timedelta


class Try(Call):
    """One try of a task, as a durable call that is recorded whether it succeeds or not."""

    __slots__ = ("failures", "life")

    def __init__(  # noqa: PLR0913 -- the task, its arguments, and which try it is
        self,
        task: PipelineTask,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        frame: Frame,
        *,
        life: int,
        failures: int,
    ) -> None:
        """Take the next place of the task. Each try has arguments of its own: none sees what another made of them."""
        args, kwargs = deepcopy((args, kwargs))
        super().__init__(task.job, Options(timeout=task.options.timeout), args, kwargs, frame)
        self.kind = TASK
        self.life = life
        self.failures = failures

    @property
    def place(self) -> str:
        """The task's: further tries of it have the same key for outside systems."""
        return self.frame.place

    @property
    def timeout(self) -> timedelta | None:
        """What is left of the run's time, if the task may take longer."""
        own, left = self.options.timeout, self.frame.time_left()
        if left is None:
            return own
        return timedelta(seconds=max(left, 0.001)) if own is None else min(own, timedelta(seconds=max(left, 0.001)))

    def begin(self) -> None:
        """Fix when the try began; one that a worker was lost with goes on under its first time."""
        # Not in the transaction: the first question for the time is one of its own.
        now = self.job.now()
        self.begun(lambda: now)

    def ended(self, text: str | None, error: Exception | None = None) -> str:
        """Put the end of the try into the form in which it is stored."""
        delay = error.delay.total_seconds() if isinstance(error, RetryAfter) else None
        reason = error.reason if isinstance(error, NoRetry | RetryAfter) else error
        form = {
            "attempt": self.job.attempt,
            "life": self.life,
            "failures": self.failures,
            "finished": self.job.now(),
            "result": text,
            "error": None if reason is None else _shown(reason),
            "final": isinstance(error, NoRetry | SerializationError),
            "delay": delay,
        }
        if error is not None:
            fields = fields_of(self.job.row, self.job.worker_name)
            logger.warning("Task %s of job %s failed", self.name, self.job.id, exc_info=error, extra=fields)
        return stored_form(form, f"the result of task {self.name}")

    def read(self, text: str) -> Tried:
        """Read what is recorded."""
        form = cast("dict[str, Any]", decode(text))
        return Tried(**{name: form[name] for name in Tried._fields})


def _shown(error: BaseException | str) -> str:
    return error if isinstance(error, str) else f"{type(error).__name__}: {safe_str(error, ERROR_LENGTH)}"


def delay_after(task: PipelineTask, tried: list[Tried]) -> timedelta | None:
    """Return how long to wait for the next try in this life of the run; ``None`` when none is left."""
    last = tried[-1]
    failures = 0
    for one in reversed(tried):
        if one.life != last.life:
            break
        failures += 1
    if last.final or failures > (task.options.retries or 0):
        return None
    if last.delay is not None:
        return timedelta(seconds=last.delay)
    assert task.options.backoff is not None  # noqa: S101 -- a pipeline gives each task one
    return task.options.backoff.delay(failures - 1)
