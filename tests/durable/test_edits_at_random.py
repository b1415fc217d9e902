"""Random edits of a random workflow against what it has recorded: no call ever gets the value of another (I19, X50).

A workflow is a list of steps: a call, a loop of calls, or a call that runs a workflow of its own. Every call has a
name and a value that no other has. It runs up to some checkpoint, is killed there, edited, and runs again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from django_durable_jobs import Determinism, acall, call
from django_durable_jobs.durable.handle import JobHandle
from django_durable_jobs.models import Checkpoint
from django_durable_jobs.outcomes import Completed, Failed
from tests.durable.running import COMMITS, SCRIPTS, Runner, row

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


@dataclass(frozen=True)
class Step:
    """One step of a workflow, ``times`` calls of one function; one with ``inner`` steps makes calls itself."""

    name: str
    times: int = 1
    inner: tuple[Step, ...] | None = None

    def value(self, number: int) -> str:
        """What the call returns, and no other call does."""
        return f"{self.name}#{number}"


Flow = tuple[Step, ...]


def number_of_calls(flow: Flow) -> int:
    return sum(step.times * (1 + number_of_calls(step.inner or ())) for step in flow)


def shapes(depth: int) -> st.SearchStrategy[Any]:
    """Give workflows without names: a number of calls, or the shape of what is inside one call."""
    steps: st.SearchStrategy[Any] = st.integers(1, 3)
    if depth:
        steps = steps | st.deferred(lambda: shapes(depth - 1))
    return st.lists(steps, min_size=1, max_size=4)


def named(shape: list[Any], names: Iterator[int]) -> Flow:
    return tuple(
        Step(f"f{next(names)}", times=one) if isinstance(one, int) else Step(f"f{next(names)}", inner=named(one, names))
        for one in shape
    )


EDITS = ["insert", "remove", "rename", "swap", "count"]


def edited(flow: Flow, draw: Callable[..., Any], names: Iterator[int]) -> Flow:
    """Make one edit, at any depth."""
    at = draw(st.integers(0, max(len(flow) - 1, 0)))
    if flow and flow[at].inner is not None and draw(st.booleans()):
        inner = edited(flow[at].inner or (), draw, names)
        return (*flow[:at], replace(flow[at], inner=inner), *flow[at + 1 :])
    kind = draw(st.sampled_from(EDITS))
    event(kind)
    if kind == "insert" or not flow:
        return (*flow[:at], Step(f"f{next(names)}"), *flow[at:])
    if kind == "remove":
        return (*flow[:at], *flow[at + 1 :])
    if kind == "rename":
        return (*flow[:at], replace(flow[at], name=f"f{next(names)}"), *flow[at + 1 :])
    if kind == "swap":
        first, second = at, draw(st.integers(0, len(flow) - 1))
        steps = list(flow)
        steps[first], steps[second] = steps[second], steps[first]
        return tuple(steps)
    return (*flow[:at], replace(flow[at], times=draw(st.integers(0, 4))), *flow[at + 1 :])


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

    def run(self, flow: Flow) -> None:
        for step in flow:
            function = self.function(step)
            for number in range(step.times):
                self.check(step, number, call(function, number))

    async def arun(self, flow: Flow) -> None:
        for step in flow:
            function = self.async_function(step)
            for number in range(step.times):
                self.check(step, number, await acall(function, number))

    def check(self, step: Step, number: int, value: object) -> None:
        if value != step.value(number):
            self.wrong.append(f"{step.value(number)} got {value}")

    def script(self, flow: Flow, *, is_async: bool) -> Callable[[], Any]:
        def sync() -> None:
            self.run(flow)

        async def asynchronous() -> None:
            await self.arun(flow)

        return asynchronous if is_async else sync


def top_level(flow: Flow) -> list[str]:
    return [step.name for step in flow for _ in range(step.times)]


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
    killed = data.draw(st.integers(0, number_of_calls(before)))
    point = data.draw(st.sampled_from(["before-checkpoint", "after-checkpoint"])) if killed else "after-body"
    # Nothing is drawn from here on: an example that hypothesis gives up leaves no job behind.
    played = Played()
    script = played.script(before, is_async=is_async)
    job = runner.enqueue(script, determinism=mode)
    runner.attempt_until_killed(point, at=max(killed, 1))
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
