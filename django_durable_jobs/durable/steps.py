"""``@atomic_step``: a step whose writes and checkpoint are one commit, so that it happens exactly once.

The step runs in a transaction of the jobs' database, on the connection of the thread that runs it. At its end the
job's row is locked under its token and the checkpoint is added; so the writes are there if and only if the job
knows of them, whatever dies when. A plain ``call()`` can only promise "at least once".
"""

from __future__ import annotations

import functools
import inspect
from asyncio import current_task
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast

from django.db import DatabaseError

from ..conf import get_settings
from ..definitions import return_annotation
from ..errors import DefinitionError, NotInJob
from ..operations.database import dialect
from ..operations.one_commit import one_commit
from ..operations.steps import once
from ..options import Options, check_label
from ..serialization import Codec
from .call import call_options
from .frames import Frame, calling_frame, frames, on_loop
from .points import Point
from .running import Call, recorded_async, repeated, repeated_async

if TYPE_CHECKING:
    from ..backoff import Backoff
    from ..operations.checkpoints import Stored

P = ParamSpec("P")
R = TypeVar("R")


class AtomicStep(Generic[P, R]):
    """A function that runs inside a job as one transaction, once; ``function`` is what was decorated."""

    def __init__(self, function: Callable[P, R], name: str, options: Options | None = None) -> None:
        """Take a function, the name that is recorded, and options that differ from the job's."""
        functools.update_wrapper(self, function)
        self.function = function
        self.name = name
        self.options = options or Options()
        self.codec = Codec(return_annotation(function))

    def __repr__(self) -> str:
        return f"<atomic step {self.name!r}>"

    def using(self, *, retries: int | None = None, backoff: Backoff | None = None) -> AtomicStep[P, R]:
        """Return the step with another number of repeats, or delay between them, when it fails."""
        return AtomicStep(self.function, self.name, call_options(retries, backoff))

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the step in a sync job: its writes to the jobs' database and its result are committed together.

        Exactly once in that database: it never runs again once it is committed, and nothing of a run that fails
        stays. A run that fails is repeated as with ``call()``. Raises what the function raises, after its repeats;
        ``NotInJob`` outside of a job, ``OpenTransaction`` inside ``atomic()`` or for a durable call inside the
        step, ``BrokenTransaction`` when the function ends or breaks its transaction, ``NonDeterminism`` when the
        job recorded something else here.
        """
        if on_loop():
            raise NotInJob(
                f"{self} would block the event loop: write `await {self._shown}.acall(...)` in an async job."
            )
        return cast("R", _run(Step(self, args, kwargs, self._frame(None))))

    def acall(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R]:
        """Do the same in an async job; the function runs in a thread.

        The place of the step is fixed here, not when it is awaited.
        """
        if not on_loop():
            raise NotInJob(f"{self}.acall() needs a running event loop: write `{self._shown}(...)` in a sync job.")
        return _run_async(Step(self, args, kwargs, self._frame(current_task())))

    @property
    def _shown(self) -> str:
        return getattr(self.function, "__name__", "step")

    def _frame(self, task: Any) -> Frame:
        if frames.get(None) is None:
            raise NotInJob(
                f"{self} works inside a running durable job only, in the thread or task that runs it. "
                f"To run it as a plain function here, call `{self._shown}.function(...)`."
            )
        return calling_frame(repr(self), task)


def atomic_step(name: str) -> Callable[[Callable[P, R]], AtomicStep[P, R]]:
    """Make a function a transactional step of jobs: ``@atomic_step("book seat")``.

    The ``name`` is what is recorded, so the function may move. It must be a sync function, at module level or
    inside another function. Only writes to the jobs' database are part of the transaction: mails, requests and
    other databases are not. Raises ``DefinitionError``, and ``OptionError`` for a name that cannot be stored.
    """
    if not isinstance(name, str):
        raise DefinitionError('Give the step a name: @atomic_step("book seat").')
    check_label(name, "The name of an atomic step")
    return lambda function: AtomicStep(_checked(function), name)


def _checked(function: Callable[P, R]) -> Callable[P, R]:
    if not inspect.isfunction(function):
        raise DefinitionError(f"@atomic_step needs a function defined with def, not {type(function).__name__}.")
    inner = inspect.unwrap(function)
    name = function.__qualname__
    if inspect.iscoroutinefunction(inner) or inspect.isasyncgenfunction(inner):
        raise DefinitionError(
            f"{name} is async: a transaction belongs to one thread. Define it with def, and write "
            "`await step.acall(...)` in an async job."
        )
    if inspect.isgeneratorfunction(inner):
        raise DefinitionError(f"{name} is a generator: a step returns a value, it does not yield.")
    around = name.rpartition(".")[0]
    if around and not around.endswith("<locals>"):
        raise DefinitionError(f"{name} is a method: make the step a function, and hand it what it needs.")
    return function


class Step(Call):
    """One atomic step on its way."""

    __slots__ = ()

    def __init__(self, step: AtomicStep[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any], frame: Frame) -> None:
        self.function, self.codec = step.function, step.codec
        self.inner, self.options = frame.options, step.options
        self.args, self.kwargs = args, kwargs
        Point.__init__(self, step.name, "step", frame)

    def encode(self, value: object) -> str:
        """Put the result into its stored form; the step's own transaction is still open."""
        self.refuse_open(but=dialect().connection)
        return self.codec.encode(value, limit=get_settings().result_limit, what=f"result of {self.name}")

    def run(self) -> Any:
        """Run the function once, in one commit with its checkpoint, and return the result as it is read back."""
        job, history = self.job, self.job.history
        row, before = history.checkpoint(self.key, self.name, self.kind), history.take_caught()
        found: Stored | None = None
        added = False

        def store(text: str) -> bool:
            nonlocal found, added
            added = False

            def decide() -> str:
                nonlocal added
                added = True
                return text

            try:
                found = once(job.row, row, decide, before=before, heed=not job.deaf)
            except DatabaseError as error:
                if dialect().is_disconnect(error) or dialect().is_conflict(error):
                    raise
                raise self.refused(error) from error
            return added

        def is_stored() -> bool:
            # The job's row is locked first, so a commit that is still on its way is waited for.
            nonlocal found
            found = job.recorder.transact(lambda: once(job.row, row, lambda: None, heed=False))
            return found is not None

        try:
            one_commit(f"Step {self.key} ({self.name}) of job {job.id}", self._body, store, is_stored)
        except BaseException:
            history.note_refused([*before, row])
            raise
        assert found is not None  # noqa: S101 -- stored, now or before
        stored = row._replace(result=found.result, error=found.error)
        if not added:
            # By another run of this step that was given up by its caller, and went on in its thread.
            history.note_refused([*before, row])
        history.note_stored([*before, stored] if added else [stored])
        return self.replayed(found)

    def _body(self) -> str:
        token = frames.set(self.child())
        try:
            return self.encode(self.function(*self.args, **self.kwargs))
        finally:
            frames.reset(token)


def _run(one: Step) -> Any:
    stored = one.recorded()
    return repeated(one, one.run) if stored is None else one.replayed(stored)


async def _run_async(one: Step) -> Any:
    stored = await recorded_async(one)
    if stored is not None:
        return one.replayed(stored)
    return await repeated_async(one, lambda: one.job.helpers.run(one.run))
