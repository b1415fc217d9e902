"""Code that was changed while a job was under way (I19, X50): an error that names both calls, never a wrong value."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest

from django_durable_jobs import call
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


@pytest.mark.parametrize("edit", EDITS)
def test_x50_i19_a_changed_order_stops_the_job_and_names_both_calls(runner: Runner, edit: str) -> None:
    before, after, (key, recorded, found) = EDITS[edit]

    def script() -> None:
        before()

    job = runner.enqueue(script)
    # An inner call must not be stored itself, or nobody would ask for the calls inside it.
    inner = "inner call" in edit
    runner.attempt_until_killed("before-checkpoint" if inner else "after-body", at=3 if inner else 1)
    RAN.clear()
    SEEN.clear()
    SCRIPTS["script"] = after
    assert isinstance(runner.attempt(rescued=True), Failed)
    error = str(row(job).last_error)
    assert error.startswith(f"NonDeterminism: Call {key} of job {job.id} ")
    assert f"was recorded as 'tests.durable.test_edits.{recorded}'" in error
    assert f"now calls 'tests.durable.test_edits.{found}'" in error
    assert row(job).attempt == 2, "it is not retried: the same code would meet the same history"
    assert RAN == []
    for line in SEEN:
        asked, _, value = line.partition(": ")
        assert value == f"value of {asked}"


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
