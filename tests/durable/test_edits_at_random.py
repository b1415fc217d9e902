"""Random edits of a random workflow against what it has recorded: no call ever gets the value of another (I19, X50).

A workflow is a list of steps: a call, an atomic step, a wait for a message or for a time, a loop of one of them, or a
call that runs a workflow of its own. All but a time have a name and a value that no other has. It runs up to some
checkpoint, is killed there, edited (the kind of a step too), and runs again.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from django_durable_jobs import (
    Determinism,
    acall,
    asleep,
    atomic_step,
    await_for_message,
    call,
    faults,
    send_message,
    sleep,
    wait_for_message,
)
from django_durable_jobs.durable.handle import JobHandle
from django_durable_jobs.durable.steps import AtomicStep
from django_durable_jobs.models import Checkpoint
from django_durable_jobs.outcomes import Completed, Failed
from tests.durable.running import COMMITS, SCRIPTS, Killed, Runner, row

pytestmark = COMMITS

BRIEFLY = settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


KINDS = ["call", "step", "message", "sleep"]
POINTS = {"before-checkpoint", "after-checkpoint", "before-step", "after-step"}


@dataclass(frozen=True)
class Step:
    """One step of a workflow, made ``times`` times; a call with ``inner`` steps makes calls itself."""

    name: str
    times: int = 1
    kind: str = "call"
    inner: tuple[Step, ...] | None = None

    def value(self, number: int) -> str:
        """What it returns, and no other step does."""
        return f"{self.name}#{number}"

    @property
    def recorded_as(self) -> str:
        return "sleep" if self.kind == "sleep" else self.name


Flow = tuple[Step, ...]


def number_of_points(flow: Flow) -> int:
    """Count roughly at how many points the process may die."""
    return sum(step.times * (2 + number_of_points(step.inner or ())) for step in flow)


def receptions(flow: Flow) -> Counter[str]:
    """Count the messages that a run takes, by name."""
    taken: Counter[str] = Counter()
    for step in flow:
        if step.kind == "message":
            taken[step.name] += step.times
        for name, number in receptions(step.inner or ()).items():
            taken[name] += number * step.times
    return taken


def shapes(depth: int) -> st.SearchStrategy[Any]:
    """Give workflows without names: kind and number of steps, or the shape of what is inside one call."""
    steps: st.SearchStrategy[Any] = st.tuples(st.sampled_from(KINDS), st.integers(1, 3))
    if depth:
        steps = steps | st.deferred(lambda: shapes(depth - 1))
    return st.lists(steps, min_size=1, max_size=4)


def named(shape: list[Any], names: Iterator[int]) -> Flow:
    return tuple(
        Step(f"f{next(names)}", inner=named(one, names))
        if isinstance(one, list)
        else Step(f"f{next(names)}", kind=one[0], times=one[1])
        for one in shape
    )


EDITS = ["insert", "remove", "rename", "swap", "count", "kind"]


def edited(flow: Flow, draw: Callable[..., Any], names: Iterator[int]) -> Flow:
    """Make one edit, at any depth."""
    at = draw(st.integers(0, max(len(flow) - 1, 0)))
    if flow and flow[at].inner is not None and draw(st.booleans()):
        inner = edited(flow[at].inner or (), draw, names)
        return (*flow[:at], replace(flow[at], inner=inner), *flow[at + 1 :])
    kind = draw(st.sampled_from(EDITS))
    event(kind)
    if kind == "insert" or not flow:
        return (*flow[:at], Step(f"f{next(names)}", kind=draw(st.sampled_from(KINDS))), *flow[at:])
    if kind == "remove":
        return (*flow[:at], *flow[at + 1 :])
    if kind == "swap":
        first, second = at, draw(st.integers(0, len(flow) - 1))
        steps = list(flow)
        steps[first], steps[second] = steps[second], steps[first]
        return tuple(steps)
    changes: dict[str, Callable[[], dict[str, Any]]] = {
        "rename": lambda: {"name": f"f{next(names)}"},
        "count": lambda: {"times": draw(st.integers(0, 4))},
        "kind": lambda: {"kind": draw(st.sampled_from(KINDS)), "inner": None},
    }
    return (*flow[:at], replace(flow[at], **changes[kind]()), *flow[at + 1 :])


class Played:
    """Workflows that are being run, and which calls got a value that is not theirs."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.wrong: list[str] = []

    def function(self, step: Step) -> Callable[[int], Any]:
        """Make the function that a step calls; its name is the step's."""

        def sync(number: int) -> str:
            self.ran.append(step.value(number))
            self.run(step.inner or ())
            return step.value(number)

        sync.__qualname__ = step.name
        return sync

    def async_function(self, step: Step) -> Callable[[int], Any]:
        async def asynchronous(number: int) -> str:
            self.ran.append(step.value(number))
            await self.arun(step.inner or ())
            return step.value(number)

        asynchronous.__qualname__ = step.name
        return asynchronous

    def step(self, step: Step) -> AtomicStep[[int], str]:
        def atomic(number: int) -> str:
            self.ran.append(step.value(number))
            return step.value(number)

        return atomic_step(step.name)(atomic)

    def run(self, flow: Flow) -> None:
        for step in flow:
            for number in range(step.times):
                match step.kind:
                    case "call":
                        self.check(step, number, call(self.function(step), number))
                    case "step":
                        self.check(step, number, self.step(step)(number))
                    case "message":
                        self.check_received(step, wait_for_message(step.name))
                    case _:
                        sleep(0)

    async def arun(self, flow: Flow) -> None:
        for step in flow:
            for number in range(step.times):
                match step.kind:
                    case "call":
                        self.check(step, number, await acall(self.async_function(step), number))
                    case "step":
                        self.check(step, number, await self.step(step).acall(number))
                    case "message":
                        self.check_received(step, await await_for_message(step.name))
                    case _:
                        await asleep(0)

    def check(self, step: Step, number: int, value: object) -> None:
        if value != step.value(number):
            self.wrong.append(f"{step.value(number)} got {value}")

    def check_received(self, step: Step, value: Any) -> None:
        """Which message of its name comes depends on how many were taken before."""
        if not str(value).startswith(f"{step.name}#"):
            self.wrong.append(f"{step.name} got {value}")

    def script(self, flow: Flow, *, is_async: bool) -> Callable[[], Any]:
        def sync() -> None:
            self.run(flow)

        async def asynchronous() -> None:
            await self.arun(flow)

        return asynchronous if is_async else sync


def top_level(flow: Flow) -> list[str]:
    return [step.recorded_as for step in flow for _ in range(step.times)]


@contextmanager
def killed_at_a_point(number: int) -> Iterator[None]:
    """Let the process die at one of the points at which something is stored; at the end of the code at the latest."""
    seen = 0

    def hook(where: str) -> None:
        nonlocal seen
        seen += 1 if where in POINTS else number if where == "after-body" else 0
        if seen >= number:
            raise Killed(where)

    faults.install(hook)
    try:
        yield
    finally:
        faults.install(None)


def recorded(job: JobHandle[Any], generation: int) -> list[Any]:
    return list(Checkpoint.objects.filter(job_id=job.id, generation=generation).order_by("id").values())


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("mode", list(Determinism))
@given(data=st.data())
@BRIEFLY
def test_x50_i19_random_edits_never_give_a_call_the_value_of_another(
    runner: Runner, mode: Determinism, is_async: bool, data: st.DataObject
) -> None:
    names = count(1)
    before = named(data.draw(shapes(2)), names)
    after = before
    for _ in range(data.draw(st.integers(1, 3))):
        after = edited(after, data.draw, names)
    point = data.draw(st.integers(1, 1 + number_of_points(before)))
    # Nothing is drawn from here on: an example that hypothesis gives up leaves no job behind.
    played = Played()
    script = played.script(before, is_async=is_async)
    job = runner.enqueue(script, determinism=mode)
    for name, most in (receptions(before) + receptions(after)).items():
        for number in range(most):
            send_message(job, name, f"{name}#{number}")
    claimed = runner.claim()
    with killed_at_a_point(point):
        runner.run(claimed)
    runner.lose(claimed)
    old = recorded(job, 0)
    played.ran.clear()
    SCRIPTS[script.__name__] = played.script(after, is_async=is_async)

    outcome = runner.attempt(rescued=True)

    assert played.wrong == []
    assert recorded(job, 0)[: len(old)] == old, "what is recorded does not change"
    now = row(job)
    if isinstance(outcome, Failed):
        event("refused")
        assert mode is not Determinism.BEST_EFFORT
        assert (now.last_error or "").startswith("NonDeterminism: ")
        assert now.generation == 0
        return
    event("went on" if now.generation == 0 else "new generation")
    assert outcome == Completed(None)
    assert mode is Determinism.BEST_EFFORT or now.generation == 0
    keys = {str(place): name for place, name in enumerate(top_level(after), 1)}
    made = {one["key"]: one["name"].rpartition(".")[2] for one in recorded(job, now.generation)}
    assert {key: name for key, name in made.items() if key in keys} == keys
    if mode is Determinism.STRICT:
        assert {key for key in made if "." not in key} == set(keys)
