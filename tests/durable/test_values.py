"""What comes back is what was given: in the first run, in a replay, and in the end (A8, I15); and what cannot (X46)."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from django_durable_jobs import CallError, call, durable_job
from django_durable_jobs.models import Checkpoint
from django_durable_jobs.outcomes import Completed, Failed
from tests.durable.running import COMMITS, SCRIPTS, Runner, row, stored

pytestmark = COMMITS

SEEN: list[Any] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    SEEN.clear()


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(NamedTuple):
    width: int
    height: int


@dataclass
class Order:
    number: UUID
    total: Decimal
    placed: datetime
    color: Color
    tags: set[str] = field(default_factory=set)
    size: Size = field(default_factory=lambda: Size(1, 2))


ORDER = Order(
    UUID(int=7),
    Decimal("12.50"),
    datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
    Color.BLUE,
    {"a"},
    Size(3, 4),
)

PLAIN: list[Any] = [
    None,
    True,
    0,
    2**70,
    -0.0,
    1e22,
    "ü\u2028😀",
    "",
    b"\x00\xff",
    (1, (2, [3])),
    [1, 2.0, "3"],
    {"1": {"$tag": [()]}},
    {1, 2},
    frozenset({"x"}),
    datetime(2026, 3, 29, 1, 30, tzinfo=ZoneInfo("Europe/Berlin")),
    datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    datetime(2026, 1, 1, tzinfo=UTC),
    datetime(2026, 1, 1),  # noqa: DTZ001 -- without a zone is a value too
    date(2026, 2, 28),
    timedelta(days=-1, microseconds=1),
    Decimal("0.10"),
    UUID(int=1),
]


@durable_job
def echo_order(order: Order, color: Color, sizes: list[Size]) -> tuple[Order, Color, list[Size]]:
    SEEN.append((order, color, sizes))
    return order, color, sizes


@durable_job
def echo(value: Any) -> Any:
    SEEN.append(value)
    return value


def order_of(number: int) -> Order:
    return Order(UUID(int=number), ORDER.total, ORDER.placed, ORDER.color, ORDER.tags, ORDER.size)


def same(left: object, right: object) -> bool:
    """Equal, of the same types all the way down, and of the same sign."""
    return repr(left) == repr(right) and type(left) is type(right) and left == right


def test_a8_i15_a_value_is_the_same_as_argument_as_call_result_at_replay_and_as_result(runner: Runner) -> None:
    def give(index: int) -> Any:
        return PLAIN[index]

    def script() -> Any:
        SEEN.append([call(give, index) for index in range(len(PLAIN))])
        return SEEN[-1]

    jobs = echo.enqueue_many([(value,) for value in PLAIN])
    for job, value in zip(jobs, PLAIN, strict=True):
        assert isinstance(runner.attempt(), Completed)
        assert same(SEEN.pop(), value)
        assert same(job.result(), value)
    job = runner.enqueue(script)
    runner.attempt_until_killed("after-body")
    assert isinstance(runner.attempt(rescued=True), Completed)
    first, replayed = SEEN
    assert all(map(same, first, PLAIN))
    assert all(map(same, replayed, PLAIN))
    assert all(map(same, job.result(), PLAIN))


def test_a8_i15_annotated_classes_come_back_everywhere(runner: Runner) -> None:
    def script() -> None:
        SEEN.append(call(echo_order, ORDER, Color.RED, [Size(5, 6)]))
        SEEN.append(call(order_of, 9))

    job = echo_order.enqueue(ORDER, color=Color.RED, sizes=[Size(5, 6)])
    assert isinstance(runner.attempt(), Completed)
    expected = (ORDER, Color.RED, [Size(5, 6)])
    assert same(SEEN.pop(), expected)
    assert same(job.result(), expected)
    runner.enqueue(script)
    runner.attempt_until_killed("after-body")
    assert isinstance(runner.attempt(rescued=True), Completed)
    body, first, first_plain, replayed, replayed_plain = SEEN
    assert same(body, expected)
    assert same(first, expected)
    assert same(replayed, expected)
    assert same(first_plain, order_of(9))
    assert same(replayed_plain, order_of(9))


def test_i15_the_first_run_gets_what_a_replay_would_get_not_the_object_itself(runner: Runner) -> None:
    class Shouting(str):
        __slots__ = ()

    given = Shouting("hey"), [1]

    def give() -> Any:
        return given

    def script() -> None:
        got = call(give)
        SEEN.append(got)
        got[1].append(2)

    runner.enqueue(script)
    assert isinstance(runner.attempt(), Completed)
    (got,) = SEEN
    assert type(got[0]) is str
    assert given[1] == [1]


# Values that cannot be stored -------------------------------------------------------------------------------------


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


UNSTORABLE: dict[str, tuple[Callable[[], Any], str]] = {
    "NaN": (lambda: float("nan"), "NaN and infinities are not stored"),
    "infinity": (lambda: [1, float("inf")], "NaN and infinities are not stored"),
    "NUL": (lambda: "a\0b", "NUL character"),
    "NUL in a key": (lambda: {"a\0": 1}, "NUL character"),
    "lone surrogate": (lambda: "\ud800", "lone surrogate"),
    "too large": (lambda: "x" * 2_000_000, "the limit is 1048576"),
    "an object": (object, "type object is not one that is stored"),
    "a dataclass without annotation": (lambda: ORDER, "annotate it with this class"),
    "key that is no string": (lambda: {1: 2}, "Keys of a dict must be strings"),
    "endless": (endless, "nested more than 100 levels deep, or contains itself"),
    "a generator": (lambda: (n for n in [1]), "type generator is not one that is stored"),
}


def test_x46_a_result_that_cannot_be_stored_fails_the_job_once_with_the_reason(runner: Runner) -> None:
    for make, reason in UNSTORABLE.values():

        def script(make: Callable[[], Any] = make) -> Any:
            return make()

        job = runner.enqueue(script, retries=5)
        assert isinstance(runner.attempt(), Failed)
        found = row(job)
        assert (found.status, found.attempt) == ("failed", 1)
        assert str(found.last_error).startswith("SerializationError: result of tests.durable.running.scripted")
        assert reason in str(found.last_error)


def test_x46_a_call_result_that_cannot_be_stored_fails_the_job_once_with_the_reason(runner: Runner) -> None:
    for kind, (make, reason) in UNSTORABLE.items():

        def give(kind: str = kind, make: Callable[[], Any] = make) -> Any:
            SEEN.append(kind)
            return make()

        def script(give: Callable[[], Any] = give) -> None:
            call(give)

        job = runner.enqueue(script, retries=5)
        assert isinstance(runner.attempt(), Failed)
        found = row(job)
        assert (found.status, found.attempt) == ("failed", 1)
        assert str(found.last_error).startswith("SerializationError: result of tests.durable.test_values.")
        assert reason in str(found.last_error)
        assert stored(job) == []
    assert list(UNSTORABLE) == SEEN, "no call is repeated: its result would be refused again"


def test_x46_the_worker_goes_on_after_a_result_that_cannot_be_stored(runner: Runner) -> None:
    def script() -> Any:
        return float("nan")

    runner.enqueue(script)
    good = echo.enqueue(1)
    assert isinstance(runner.attempt(), Failed)
    assert isinstance(runner.attempt(), Completed)
    assert good.result() == 1


# Errors at replay -------------------------------------------------------------------------------------------------


class Declined(Exception):
    """An error with attributes and a constructor that takes others."""

    def __init__(self, code: int, *, order: int) -> None:
        super().__init__(f"declined with {code}")
        self.code = code
        self.order = order


def decline() -> None:
    SEEN.append("declined")
    raise Declined(402, order=7)


def test_i15_a_caught_error_is_of_the_same_class_with_the_same_attributes_at_replay(runner: Runner) -> None:
    def script() -> list[Any]:
        try:
            call.using(retries=0)(decline)
        except Declined as error:
            SEEN.append((str(error), error.args, error.code, error.order))
            call(order_of, 1)
        return []

    job = runner.enqueue(script)
    runner.attempt_until_killed("after-body")
    assert isinstance(runner.attempt(rescued=True), Completed)
    expected = ("declined with 402", ("declined with 402",), 402, 7)
    assert ["declined", expected, expected] == SEEN
    assert stored(job) == [("1", "decline!"), ("2", "order_of")]


def test_an_error_whose_class_is_gone_is_a_call_error_with_its_name_and_message(runner: Runner) -> None:
    def script() -> str:
        try:
            call.using(retries=0)(decline)
        except CallError as error:
            return f"{error.type_name}|{error.message}"
        except Declined:
            call(order_of, 1)
        return ""

    job = runner.enqueue(script)
    runner.attempt_until_killed("after-body")
    text = str(Checkpoint.objects.get(key="1").error)
    Checkpoint.objects.filter(key="1").update(error=text.replace("Declined", "Vanished"))

    def after() -> str:
        got = script()
        call(order_of, 1)
        return got

    SCRIPTS["script"] = after
    assert isinstance(runner.attempt(rescued=True), Completed)
    assert job.result() == "tests.durable.test_values.Vanished|declined with 402"


def test_the_traceback_of_a_failed_call_shows_where_it_failed(runner: Runner) -> None:
    def script() -> None:
        call.using(retries=0)(decline)

    runner.enqueue(script, retries=0)
    outcome = runner.attempt()
    assert isinstance(outcome, Failed)
    assert "in decline" in outcome.failure.traceback
    assert outcome.failure.error == "Declined: declined with 402"
