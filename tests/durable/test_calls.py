"""What can be called durably, and where its result is kept (A6)."""

from __future__ import annotations

import functools
import gc
import weakref
from dataclasses import dataclass
from typing import Any

import pytest

from django_durable_jobs import call, current_job, durable_job
from django_durable_jobs.models import Checkpoint, Job
from django_durable_jobs.outcomes import BackedOff, Completed, Failed
from tests.durable.running import COMMITS, Runner, row, stored
from tests.jobs import add

pytestmark = COMMITS

LEDGER: list[str] = []


@pytest.fixture(autouse=True)
def _empty() -> None:
    LEDGER.clear()


@dataclass
class Point:
    x: int
    y: int

    def moved(self, by: int) -> Point:
        LEDGER.append("moved")
        return Point(self.x + by, self.y + by)


class Adder:  # noqa: PLW1641 -- see below
    """An object that can be called; with __eq__ and without __hash__."""

    def __init__(self, by: int) -> None:
        self.by = by

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Adder) and other.by == self.by

    def __call__(self, n: int) -> int:
        LEDGER.append("Adder")
        return n + self.by

    def method(self, n: int) -> int:
        LEDGER.append("method")
        return n + self.by


Adder.__hash__ = None  # type: ignore[assignment]  # said aloud: this is what the tests need


@durable_job
def double(n: int) -> int:
    LEDGER.append("double")
    return 2 * n


@durable_job(name="tests.named")
def renamed(n: int) -> int:
    LEDGER.append("renamed")
    return 3 * n


@durable_job
async def async_double(n: int) -> int:
    LEDGER.append("async_double")
    return 2 * n


@durable_job
def quadruple(n: int) -> int:
    return call(double, call(double, n))


def plain(n: int) -> int:
    LEDGER.append("plain")
    return n + 1


async def async_plain(n: int) -> int:
    LEDGER.append("async_plain")
    return n + 1


@functools.lru_cache
def cached(n: int) -> int:
    return n + 1


def twice(runner: Runner, work: Any) -> tuple[Any, Any]:
    """Run a job until it is over but not stored, and again from its checkpoints; return both results."""
    results: list[Any] = []

    def script() -> None:
        results.append(work())

    job = runner.enqueue(script)
    runner.attempt_until_killed("after-body")
    assert isinstance(runner.attempt(rescued=True), Completed), row(job).last_error
    first, second = results
    return first, second


@pytest.mark.parametrize(
    ("work", "expected", "name", "body"),
    [
        (lambda: call(double, 4), 8, "tests.durable.test_calls.double", "double"),
        (lambda: call("tests.named", 4), 12, "tests.named", "renamed"),
        (lambda: call(renamed, n=4), 12, "tests.named", "renamed"),
        (lambda: call(async_double, 4), 8, "tests.durable.test_calls.async_double", "async_double"),
        (lambda: call(plain, 4), 5, "tests.durable.test_calls.plain", "plain"),
        (lambda: call(async_plain, n=4), 5, "tests.durable.test_calls.async_plain", "async_plain"),
        (lambda: call(functools.partial(plain, 4)), 5, "tests.durable.test_calls.plain", "plain"),
        (lambda: call(functools.partial(functools.partial(double), 4)), 8, "tests.durable.test_calls.double", "double"),
        (lambda: call(Adder(3), 4), 7, "tests.durable.test_calls.Adder", "Adder"),
        (lambda: call(Adder(3).method, 4), 7, "tests.durable.test_calls.Adder.method", "method"),
        (lambda: call(Point(1, 2).moved, 4), Point(5, 6), "tests.durable.test_calls.Point.moved", "moved"),
        (lambda: call(Point, 1, 2), Point(1, 2), "tests.durable.test_calls.Point", None),
        (lambda: call(cached, 4), 5, "tests.durable.test_calls.cached", None),
        (lambda: call(len, "four"), 4, "builtins.len", None),
        (lambda: call("a,b".split, ","), ["a", "b"], "builtins.str.split", None),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
def test_a6_everything_that_has_a_name_can_be_called_and_is_called_once(
    runner: Runner, work: Any, expected: Any, name: str, body: str | None
) -> None:
    first, second = twice(runner, work)
    assert (first, type(first)) == (second, type(second)) == (expected, type(expected))
    assert [(row.key, row.name) for row in Checkpoint.objects.all()] == [("1", name)]
    assert [part for part in (body,) if part] == LEDGER


def test_a6_calls_inside_a_call_have_keys_below_it(runner: Runner) -> None:
    def script() -> int:
        return call(plain, 0) + call(plain, 1) + call(quadruple, 3)

    job = runner.enqueue(script)
    assert runner.attempt() == Completed("15")
    assert stored(job) == [("1", "plain"), ("2", "plain"), ("3", "quadruple"), ("3.1", "double"), ("3.2", "double")]


@pytest.mark.parametrize(
    ("target", "error", "hint"),
    [
        (lambda: 1, "DefinitionError", "no name by which a replay could tell it"),
        (functools.partial(lambda n: n, 1), "DefinitionError", "functools.partial of one"),
        (3, "DefinitionError", "not int"),
        (None, "DefinitionError", "not NoneType"),
        ("tests.nmaed", "UnknownDefinition", "Did you mean 'tests.named'?"),
    ],
    ids=["lambda", "partial of a lambda", "int", "None", "misspelt name"],
)
def test_what_has_no_stable_name_is_refused_clearly(runner: Runner, target: Any, error: str, hint: str) -> None:
    def script() -> None:
        call(target)

    job = runner.enqueue(script, retries=0)
    assert isinstance(runner.attempt(), Failed)
    assert error in str(row(job).last_error)
    assert hint in str(row(job).last_error)
    assert stored(job) == []


def test_a_plain_call_of_a_durable_job_is_the_function(runner: Runner) -> None:
    def script() -> int:
        return double(4) + renamed(1)

    job = runner.enqueue(script)
    assert runner.attempt() == Completed("11")
    assert stored(job) == []
    assert double(2) == 4


def test_functions_that_a_job_makes_anew_are_not_kept(runner: Runner) -> None:
    made: list[weakref.ref[Any]] = []

    def script() -> None:
        def inner() -> int:
            return 1

        made.append(weakref.ref(inner))
        call(inner)

    runner.enqueue(script)
    assert runner.attempt() == Completed(None)
    gc.collect()
    assert made[0]() is None


def enqueue_add() -> str:
    return str(add.enqueue(1, 2).id)


def test_n31_a_job_that_a_call_enqueues_is_enqueued_once_however_often_the_job_is_replayed(runner: Runner) -> None:
    def script() -> str:
        made = call(enqueue_add)
        if current_job().attempt == 1:
            raise ValueError("once")
        return made

    job = runner.enqueue(script)
    assert isinstance(runner.attempt(), BackedOff)
    child = Job.objects.exclude(id=job.id).get()
    outcomes = [runner.attempt(), runner.attempt()]
    assert {outcome for outcome in outcomes if isinstance(outcome, Completed)} == {
        Completed("3"),
        Completed(f'"{child.id}"'),
    }
    assert Job.objects.count() == 2
