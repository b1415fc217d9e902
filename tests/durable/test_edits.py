"""Code that was changed while a job was under way (I19, X50): an error that names both calls, never a wrong value.

In the mode BEST_EFFORT the changed code runs, in a new generation of checkpoints (I13). Random edits of random
workflows: ``test_edits_at_random.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from django_durable_jobs import Determinism, call
from django_durable_jobs.durable.handle import JobHandle
from django_durable_jobs.models import Checkpoint
from django_durable_jobs.outcomes import Completed, Failed
from tests.durable.running import COMMITS, SCRIPTS, Runner, row

pytestmark = COMMITS

RAN: list[str] = []
SEEN: list[str] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    RAN.clear()
    SEEN.clear()


def a() -> str:
    RAN.append("a")
    return "value of a"


def b() -> str:
    RAN.append("b")
    return "value of b"


def c() -> str:
    RAN.append("c")
    return "value of c"


def new() -> str:
    RAN.append("new")
    return "value of new"


def item(n: int) -> str:
    RAN.append(f"item {n}")
    return f"value of item {n}"


def take(*calls: Callable[[], str]) -> None:
    """Make calls and note each value beside the call it came from."""
    SEEN.extend(f"{one.__name__}: {call(one)}" for one in calls)


def loop(times: int) -> None:
    SEEN.extend(f"item {n}: {call(item, n)}" for n in range(times))
    take(c)


def nested(*calls: Callable[[], str]) -> Callable[[], None]:
    def inner() -> None:
        take(*calls)

    return inner


EDITS: dict[str, tuple[Callable[[], None], Callable[[], None], tuple[str, str, str]]] = {
    "inserted at the front": (lambda: take(a, b, c), lambda: take(new, a, b, c), ("1", "a", "new")),
    "inserted in the middle": (lambda: take(a, b, c), lambda: take(a, new, b, c), ("2", "b", "new")),
    "removed at the front": (lambda: take(a, b, c), lambda: take(b, c), ("1", "a", "b")),
    "removed in the middle": (lambda: take(a, b, c), lambda: take(a, c), ("2", "b", "c")),
    "renamed": (lambda: take(a, b, c), lambda: take(a, new, c), ("2", "b", "new")),
    "swapped": (lambda: take(a, b, c), lambda: take(b, a, c), ("1", "a", "b")),
    "one round of the loop more": (lambda: loop(2), lambda: loop(3), ("3", "c", "item")),
    "one round of the loop less": (lambda: loop(2), lambda: loop(1), ("2", "item", "c")),
    "inserted into an inner call": (
        lambda: call(nested(a, b)),
        lambda: call(nested(a, new, b)),
        ("1.2", "b", "new"),
    ),
    "swapped in an inner call": (lambda: call(nested(a, b)), lambda: call(nested(b, a)), ("1.1", "a", "b")),
}


def begin_and_edit(runner: Runner, edit: str, **options: Any) -> JobHandle[Any]:
    """Let a job come to its end, and die before that is stored; then change its code."""
    before, after, _places = EDITS[edit]

    def script() -> None:
        before()

    job = runner.enqueue(script, **options)
    # An inner call must not be stored itself, or nobody would ask for the calls inside it.
    inner = "inner call" in edit
    runner.attempt_until_killed("before-checkpoint" if inner else "after-body", at=3 if inner else 1)
    RAN.clear()
    SEEN.clear()
    SCRIPTS["script"] = after
    return job


@pytest.mark.parametrize("mode", [None, Determinism.STRICT])
@pytest.mark.parametrize("edit", EDITS)
def test_x50_i19_a_changed_order_stops_the_job_and_names_both_calls(
    runner: Runner, edit: str, mode: Determinism | None
) -> None:
    key, recorded, found = EDITS[edit][2]
    job = begin_and_edit(runner, edit, determinism=mode)
    assert isinstance(runner.attempt(rescued=True), Failed)
    error = str(row(job).last_error)
    assert error.startswith(f"NonDeterminism: Call {key} of job {job.id} ")
    assert f"was recorded as 'tests.durable.test_edits.{recorded}'" in error
    assert f"now calls 'tests.durable.test_edits.{found}'" in error
    assert f"({__file__}:" in error, "and the line of the code"
    assert row(job).attempt == 2, "it is not retried: the same code would meet the same history"
    assert RAN == []
    check_seen()


def check_seen() -> None:
    """No call got the value of another one."""
    for line in SEEN:
        asked, _, value = line.partition(": ")
        assert value == f"value of {asked}"


RUN_AGAIN = {
    "inserted at the front": ["new", "a", "b", "c"],
    "inserted in the middle": ["new", "b", "c"],
    "removed at the front": ["b", "c"],
    "removed in the middle": ["c"],
    "renamed": ["new", "c"],
    "swapped": ["b", "a", "c"],
    "one round of the loop more": ["item 2", "c"],
    "one round of the loop less": ["c"],
    "inserted into an inner call": ["new", "b"],
    "swapped in an inner call": ["b", "a"],
}


@pytest.mark.parametrize("edit", EDITS)
def test_x50_i13_best_effort_runs_from_the_changed_call_on_in_a_new_generation(
    runner: Runner, edit: str, caplog: pytest.LogCaptureFixture
) -> None:
    key, recorded, found = EDITS[edit][2]
    job = begin_and_edit(runner, edit, determinism=Determinism.BEST_EFFORT)
    caplog.clear()
    old = list(Checkpoint.objects.order_by("id").values())
    assert isinstance(runner.attempt(rescued=True), Completed)
    assert RUN_AGAIN[edit] == RAN
    check_seen()
    assert row(job).generation == 1
    assert list(Checkpoint.objects.filter(generation=0).order_by("id").values()) == old
    (line,) = [entry.getMessage() for entry in caplog.records if entry.levelname == "WARNING"]
    assert f"Call {key} of job {job.id}" in line
    assert f"recorded as 'tests.durable.test_edits.{recorded}'" in line
    assert f"now calls 'tests.durable.test_edits.{found}'" in line
    assert f"({__file__}:" in line


def test_i19_swallowing_the_error_does_not_let_the_job_go_on(runner: Runner) -> None:
    def script() -> None:
        take(a, b, c)

    job = runner.enqueue(script)
    runner.attempt_until_killed("after-body")
    RAN.clear()

    def changed() -> str:
        for one in (new, b, c, a):  # the last one is not recorded: it would run
            with suppress(Exception):  # what careless code does
                take(one)
        return "done"

    SCRIPTS["script"] = changed
    assert isinstance(runner.attempt(rescued=True), Failed)
    assert "recorded as 'tests.durable.test_edits.a'" in str(row(job).last_error)
    assert RAN == []


@pytest.mark.parametrize("edit", EDITS)
def test_x50_best_effort_the_new_generation_holds_in_later_attempts(runner: Runner, edit: str) -> None:
    job = begin_and_edit(runner, edit, determinism=Determinism.BEST_EFFORT)
    runner.attempt_until_killed("after-body", rescued=True)
    RAN.clear()
    SEEN.clear()
    assert isinstance(runner.attempt(rescued=True), Completed)
    assert RAN == []
    check_seen()
    assert row(job).generation == 1


@pytest.mark.parametrize("at", ["before-checkpoint", "after-checkpoint"])
def test_best_effort_killed_in_the_new_generation_goes_on_there(runner: Runner, at: str) -> None:
    job = begin_and_edit(runner, "swapped", determinism=Determinism.BEST_EFFORT)
    runner.attempt_until_killed(at, rescued=True)
    RAN.clear()
    assert isinstance(runner.attempt(rescued=True), Completed)
    assert (["b", "a", "c"] if at == "before-checkpoint" else ["a", "c"]) == RAN
    assert row(job).generation == 1


def test_calls_added_at_the_end_run_and_calls_removed_at_the_end_are_left(runner: Runner) -> None:
    def script() -> None:
        take(a, b)

    runner.enqueue(script)
    runner.attempt_until_killed("after-body")
    RAN.clear()
    SCRIPTS["script"] = lambda: take(a, b, c)
    runner.attempt_until_killed("after-body", rescued=True)
    assert RAN == ["c"]
    SCRIPTS["script"] = lambda: take(a)
    assert runner.attempt(rescued=True) == Completed(None)
    assert RAN == ["c"]
