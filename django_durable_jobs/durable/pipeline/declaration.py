"""How a pipeline is declared: its settings, its tasks, and the definitions that workers find."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, Unpack

from ... import registry
from ...backoff import Backoff
from ...definitions import Definition, define
from ...errors import DefinitionError, OptionError
from ...options import Options, check_timeout
from ...serialization import ArgumentCodec, Codec
from ..job import DurableJob, Invocation, wrapped
from ..targets import resolve

if TYPE_CHECKING:
    from ...operations.reports import RunReport
    from ..handle import JobHandle
    from ..options import EnqueueOptions
    from .run import Run

Mode = Literal["sequential", "parallel"]
OnFailure = Literal["fail_fast", "continue", "retry_on_failure"]
Task = Callable[..., Any]

TASK_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}")
TASK_TIMEOUT: Final = timedelta(minutes=5)


@dataclass(frozen=True)
class PipelineDefinition(Definition):
    """The definition of a pipeline's job: its arguments are those of its tasks, its result is the outcome."""

    first: Definition | None = None

    @property
    def is_run(self) -> bool:
        """It is one."""
        return True

    @functools.cached_property
    def arguments(self) -> ArgumentCodec:
        """How the arguments are checked, stored and read: as the tasks take them."""
        assert self.first is not None  # noqa: S101 -- there is no pipeline without a task
        return ArgumentCodec(self.first.function, self.name)

    @functools.cached_property
    def result(self) -> Codec:
        """How the outcome is stored and read."""
        return Codec(str)


@dataclass(frozen=True, slots=True)
class PipelineTask:
    """One task: its name, and its durable job ``<pipeline>.<task>`` with the settings that hold for it."""

    name: str
    job: DurableJob[..., Any]

    @property
    def options(self) -> Options:
        """What holds for each try: how many, how far apart, how long."""
        return self.job.options


class Pipeline:
    """A job made of tasks that run one after the other, or side by side as jobs of their own."""

    def __init__(  # noqa: PLR0913 -- these are its settings
        self,
        name: str,
        *,
        mode: Mode = "sequential",
        on_failure: OnFailure = "fail_fast",
        retries: int = 1,
        retry_interval: timedelta | float = timedelta(seconds=1),
        retry_factor: float = 2,
        task_timeout: timedelta | float | None = TASK_TIMEOUT,
        timeout: timedelta | float | None = None,
        queue: str | None = None,
        priority: int | str | None = None,
        run_retries: int | None = None,
        on_start: Callable[[Run], Any] | None = None,
        on_complete: Callable[[RunReport], Any] | None = None,
    ) -> None:
        """Declare a pipeline; tasks are added with ``@pipeline.task()``.

        Each task gets the arguments of the run. A task that fails is tried again ``retries`` times, after
        ``retry_interval`` (times ``retry_factor`` each time), without holding a slot meanwhile. ``on_failure``
        says what a failed task means: "fail_fast" ends the run as failed; "continue" runs the other tasks, and the
        job is completed with the outcome ``completed_with_errors``; "retry_on_failure" runs the failed tasks again
        in the next of the job's attempts (``run_retries`` after the first; the setting ``RETRIES`` unless given),
        a parallel one once, and what has completed is kept.
        ``task_timeout`` limits one try and ``timeout`` the whole run from its first
        start; both ask, as ``call.using(timeout=...)`` does.

        ``on_start(run)`` and ``on_complete(report)`` are durable calls, so each runs at least once; their errors
        are recorded and do not fail the run. ``on_complete`` runs when the run comes to its end in a worker, not
        when it is cancelled or lost. Raises ``OptionError`` or ``DefinitionError`` at import.
        """
        if mode not in ("sequential", "parallel"):
            raise OptionError(f"mode must be 'sequential' or 'parallel', not {mode!r:.80}.")
        if on_failure not in ("fail_fast", "continue", "retry_on_failure"):
            known = "'fail_fast', 'continue' or 'retry_on_failure'"
            raise OptionError(f"on_failure must be {known}, not {on_failure!r:.80}.")
        for hook in (on_start, on_complete):
            if hook is not None:
                resolve(hook)
        self.name = name
        self.mode = mode
        self.on_failure = on_failure
        self.timeout = check_timeout(timeout)
        self.on_start = on_start
        self.on_complete = on_complete
        self.tasks: list[PipelineTask] = []
        self._interval = retry_interval
        self._factor = retry_factor
        given = {"queue": queue, "priority": priority}
        common = {option: value for option, value in given.items() if value is not None}
        own = {} if run_retries is None else {"retries": run_retries}
        self._options: dict[str, object] = {**common, **own, "backoff": self._backoff(retry_interval, retry_factor)}
        self._task_options: dict[str, object] = {
            **common,
            "retries": retries,
            "backoff": self._options["backoff"],
            "timeout": task_timeout,
        }
        for options in (self._options, self._task_options):
            Options().changed(options)

    def __repr__(self) -> str:
        return f"<pipeline {self.name}>"

    def task(  # noqa: PLR0913 -- as above
        self,
        function: Task | None = None,
        /,
        *,
        name: str | None = None,
        retries: int | None = None,
        retry_interval: timedelta | float | None = None,
        retry_factor: float | None = None,
        timeout: timedelta | float | None = None,
        queue: str | None = None,
    ) -> Any:
        """Add a function at module level as the next task: ``@nightly.task`` or ``@nightly.task(retries=5)``.

        What is given here holds instead of the pipeline's setting. All tasks take the same parameters. The function
        becomes the durable job ``<pipeline>.<task>`` and can be called plainly, as any.
        """
        given = {"retries": retries, "timeout": timeout, "queue": queue}
        own: dict[str, object] = {option: value for option, value in given.items() if value is not None}
        if retry_interval is not None or retry_factor is not None:
            own["backoff"] = self._backoff(
                self._interval if retry_interval is None else retry_interval,
                self._factor if retry_factor is None else retry_factor,
            )
        if function is not None:
            return self._add(function, name, own)
        return lambda decorated: self._add(decorated, name, own)

    @property
    def job(self) -> DurableJob[..., Any]:
        """The durable job that runs the pipeline."""
        if not self.tasks:
            raise DefinitionError(f"Pipeline {self.name!r} has no tasks: add functions with @pipeline.task().")
        return wrapped(registry.get(self.name))

    def using(self, **options: Unpack[EnqueueOptions]) -> DurableJob[..., Any]:
        """Return the pipeline's job with other options for one enqueue: queue, priority, delay, run_at, id, …."""
        return self.job.using(**options)

    def s(self, *args: Any, **kwargs: Any) -> Invocation[Any]:
        """Return the pipeline with these arguments, for ``enqueue_many`` and ``gather``."""
        return self.job.s(*args, **kwargs)

    def enqueue(self, *args: Any, **kwargs: Any) -> JobHandle[Any]:
        """Store a run; its result is its outcome, and ``handle.report()`` says more."""
        return self.job.enqueue(*args, **kwargs)

    async def aenqueue(self, *args: Any, **kwargs: Any) -> JobHandle[Any]:
        """Do what ``enqueue`` does without blocking the event loop."""
        return await self.job.aenqueue(*args, **kwargs)

    # Declaring ----------------------------------------------------------------------------------------------

    @staticmethod
    def _backoff(interval: timedelta | float, factor: float) -> Backoff:
        cap = timedelta(days=1)
        return Backoff.exponential(interval, cap=max(cap, Backoff.fixed(interval).base), jitter=False, factor=factor)

    def _add(self, function: Task, name: str | None, own: dict[str, object]) -> DurableJob[..., Any]:
        if isinstance(function, DurableJob):
            function = function.definition.function
        given = getattr(function, "__name__", "") if name is None else name
        if not isinstance(given, str) or not TASK_NAME.fullmatch(given):
            raise DefinitionError(f"The name of a task must match {TASK_NAME.pattern}, not {given!r:.80}.")
        definition = define(function, name=f"{self.name}.{given}", options={**self._task_options, **own})
        known = [task for task in self.tasks if task.name != given or task.job.definition.place != definition.place]
        if any(task.name == given for task in known):
            raise DefinitionError(f"Pipeline {self.name!r} has two tasks named {given!r}: give one another name=.")
        if known:
            self._compare(known[0].job.definition, definition)
        registry.register(definition)
        job = wrapped(definition)
        self.tasks = [*known, PipelineTask(given, job)]
        registry.register(self._definition())
        return job

    def _compare(self, first: Definition, other: Definition) -> None:
        theirs, own = (list(inspect.signature(one.function).parameters.values()) for one in (first, other))
        if theirs != own:
            raise DefinitionError(
                f"{other.name} takes {_shown(own)}, but {first.name} takes {_shown(theirs)}: each task gets the "
                "arguments of the run, so all take the same."
            )

    def _definition(self) -> PipelineDefinition:
        from .conduct import run_async, run_sync  # noqa: PLC0415 -- that module knows this one

        first = self.tasks[0].job.definition
        is_async = self.mode == "sequential" and any(task.job.definition.is_async for task in self.tasks)
        return PipelineDefinition(
            name=self.name,
            function=functools.partial(run_async if is_async else run_sync, self),
            options=Options().changed(self._options),
            is_async=is_async,
            place=first.place,
            first=first,
        )


def _shown(parameters: list[inspect.Parameter]) -> str:
    return str(inspect.Signature([one.replace(annotation=inspect.Parameter.empty) for one in parameters]))
