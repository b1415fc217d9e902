"""What an enqueue refuses, in the caller and before any SQL (N14–N28, N31): nothing is stored, the field is named."""

from __future__ import annotations

import dataclasses
import enum
import io
import math
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import Group
from django.db import connection
from django.db.models.signals import post_save
from django.test.utils import CaptureQueriesContext
from django.utils.translation import gettext_lazy

from django_durable_jobs import ArgumentError, OptionError, SerializationError, UnknownDefinition, enqueue
from django_durable_jobs.errors import DefinitionError, DurableJobsError
from django_durable_jobs.models import Job
from tests.jobs import add, anything, noop

pytestmark = pytest.mark.django_db


def refused(attempt: Callable[[], object], *words: str, error: type[Exception] = DurableJobsError) -> str:
    """Make an enqueue that must be refused before any SQL; return its message."""
    with CaptureQueriesContext(connection) as captured, pytest.raises(error) as caught:
        attempt()
    assert isinstance(caught.value, (TypeError, ValueError, LookupError))
    assert len(captured) == 0, captured.captured_queries
    message = str(caught.value)
    assert message.isprintable(), message
    assert len(message) < 600
    for word in words:
        assert word in message
    assert not Job.objects.exists()
    return message


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    y: int


def deep(levels: int) -> object:
    value: object = 1
    for _n in range(levels):
        value = [value]
    return value


def cycle() -> object:
    value: list[object] = []
    value.append(value)
    return value


CANNOT_BE_STORED: dict[str, Any] = {
    "N14 not a number": math.nan,
    "N14 infinity": math.inf,
    "N14 minus infinity inside": {"a": [-math.inf]},
    "N15 NUL": "a\0b",
    "N15 NUL in a key": {"a\0b": 1},
    "N16 lone surrogate": "\ud800",
    "N18 object": object(),
    "N18 enum without annotation": Colour.RED,
    "N18 dataclass without annotation": Point(1, 2),
    "N18 model instance": Group(name="x"),
    "N18 lazy text": gettext_lazy("x"),
    "N18 queryset": Group.objects.all(),
    "N18 file": io.BytesIO(b"x"),
    "N18 function": len,
    "N18 class": int,
    "N19 number as key": {1: "a"},
    "N19 none as key": {None: "a"},
    "N19 number and its text as keys": {1: "a", "1": "b"},
    "N21 5,000 levels": deep(5000),
    "N21 cycle": cycle(),
    "N22 ten megabytes": "x" * 10_000_000,
}


@pytest.mark.parametrize("name", CANNOT_BE_STORED)
@pytest.mark.parametrize("by_keyword", [False, True], ids=["positional", "keyword"])
def test_a_value_that_would_not_come_back_is_refused(name: str, by_keyword: bool) -> None:
    value = CANNOT_BE_STORED[name]
    message = refused(
        (lambda: anything.enqueue(value=value)) if by_keyword else (lambda: anything.enqueue(value)),
        error=SerializationError,
    )
    assert ("tests.jobs.anything" if name.startswith("N22") else "args.value") in message


def test_n22_the_size_and_the_limit_are_given() -> None:
    refused(lambda: anything.enqueue("x" * 300_000), "300", "262", error=SerializationError)


COMES_BACK: dict[str, Any] = {
    "N17 large number": 2**70,
    "N17 float without fraction": 1e22,
    "N17 minus zero": -0.0,
    "N18 tuple": (1, (2,)),
    "N18 set": {1, 2},
    "N18 frozenset": frozenset({"a"}),
    "N18 datetime": datetime(2024, 3, 31, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
    "N18 offset": datetime(2024, 3, 31, tzinfo=timezone(timedelta(hours=5, minutes=45))),
    "N18 decimal": Decimal("1.10"),
    "N18 uuid": UUID(int=7),
    "N18 bytes": b"\0\xff",
    "N18 duration": timedelta(days=-1, microseconds=1),
    "N19 keys that look like numbers": {"1": "a", "true": None},
}


@pytest.mark.parametrize("name", COMES_BACK)
def test_a_value_that_is_taken_comes_back_as_it_was(name: str) -> None:
    value = COMES_BACK[name]
    stored = anything.enqueue(value).job().payload
    (back,), _none = anything.definition.arguments.load(stored)
    assert back == value
    assert type(back) is type(value)
    assert repr(back) == repr(value) or isinstance(value, set)


def test_n20_of_a_subclass_with_side_effects_the_plain_value_is_stored() -> None:
    class Loud(str):
        __slots__ = ()

        def __iter__(self) -> Any:
            raise AssertionError("run")

    (back,), _none = anything.definition.arguments.load(anything.enqueue(Loud("x")).job().payload)
    assert (back, type(back)) == ("x", str)


def test_n23_an_argument_that_is_changed_afterwards_is_stored_as_it_was() -> None:
    value = {"list": [1]}
    handle = anything.enqueue(value)
    value["list"].append(2)
    assert anything.definition.arguments.load(handle.job().payload)[0] == ({"list": [1]},)


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((), {}, ["a", "b"]),
        ((1,), {}, ["b"]),
        ((1, 2, 3), {}, ["3"]),
        ((1, 2), {"b": 3}, ["b"]),
        ((1,), {"c": 2}, ["c"]),
        ((1, 2), {"delay": 3}, ["delay"]),
        (("1", 2), {}, ["a", "int", "str"]),
        ((1, None), {}, ["b", "int"]),
    ],
)
def test_n24_arguments_that_do_not_fit_the_function_are_refused(
    args: tuple[Any, ...], kwargs: dict[str, Any], words: list[str]
) -> None:
    refused(lambda: add.enqueue(*args, **kwargs), "tests.jobs.add", *words, error=ArgumentError)


FAR = [
    datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
    datetime(1969, 12, 31, tzinfo=UTC),
    datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-12))),
    datetime(9001, 1, 1, tzinfo=UTC),
]


@pytest.mark.parametrize("value", FAR)
def test_n25_a_moment_out_of_range_is_refused(value: datetime) -> None:
    refused(lambda: noop.using(run_at=value).enqueue(1), "run_at", "1970 and 9000", error=OptionError)


def test_n25_a_moment_without_a_zone_is_refused() -> None:
    naive = datetime(2030, 1, 1)  # noqa: DTZ001 - that is the mistake
    refused(lambda: noop.using(run_at=naive).enqueue(1), "run_at", "time zone", error=OptionError)


@pytest.mark.parametrize("value", ["2030-01-01T00:00Z", 1_900_000_000, timedelta(1)])
def test_n25_a_moment_is_a_datetime(value: Any) -> None:
    refused(lambda: noop.using(run_at=value).enqueue(1), "run_at must be a datetime", error=OptionError)


@pytest.mark.parametrize(
    ("hour", "fold", "in_utc"),
    [(2, 0, "2030-03-31 01:30"), (2, 1, "2030-03-31 00:30")],
)
def test_n25_a_moment_in_a_gap_is_stored_as_the_instant_that_python_says(hour: int, fold: int, in_utc: str) -> None:
    local = datetime(2030, 3, 31, hour, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=fold)
    run_at = noop.using(run_at=local).enqueue(1).job().run_at
    assert run_at is not None
    assert run_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M") == in_utc
    assert run_at == local.astimezone(UTC)


@pytest.mark.parametrize("fold", [0, 1])
def test_n25_of_a_repeated_hour_the_fold_says_which(fold: int) -> None:
    local = datetime(2030, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=fold)
    run_at = noop.using(run_at=local).enqueue(1).job().run_at
    assert run_at == datetime(2030, 10, 27, fold, 30, tzinfo=UTC)


@pytest.mark.parametrize("value", [-1, -0.001, math.nan, math.inf, 10**12, "5", True, timedelta(days=-1)])
def test_n26_a_delay_out_of_range_is_refused(value: Any) -> None:
    refused(lambda: noop.using(delay=value).enqueue(1), "delay must", error=OptionError)


def test_delay_and_run_at_together_are_refused() -> None:
    when = datetime(2030, 1, 1, tzinfo=UTC)
    refused(lambda: noop.using(delay=1, run_at=when).enqueue(1), "delay or run_at, not both", error=OptionError)


def test_of_delay_and_run_at_the_later_word_holds() -> None:
    when = datetime(2030, 1, 1, tzinfo=UTC)
    assert noop.using(delay=1).using(run_at=when).enqueue(1).job().run_at == when
    assert noop.using(run_at=when).using(delay=1).enqueue(1).job().run_at != when


@pytest.mark.parametrize("value", [101, -101, 3.1, "highest", True, None])
def test_n27_a_priority_out_of_range_is_refused(value: Any) -> None:
    refused(lambda: noop.using(priority=value).enqueue(1), "priority", "-100 to 100", error=OptionError)


@pytest.mark.parametrize("value", ["", "a b", "a/b", "..", "x" * 101, "\0"])
def test_n8_a_queue_that_is_no_name_is_refused(value: str) -> None:
    refused(lambda: noop.using(queue=value).enqueue(1), "queue", "pattern", error=OptionError)


@pytest.mark.parametrize(("given", "near"), [("retry", "retries"), ("que", "queue"), ("run_att", "run_at")])
def test_n9_an_unknown_option_of_using_is_refused_with_the_nearest(given: str, near: str) -> None:
    refused(lambda: noop.using(**{given: 1}), given, near, error=DefinitionError)  # type: ignore[arg-type]


@pytest.mark.parametrize("target", [len, os.system, "os.system", "no.such.job", "", 5, None, "tests.jobs.ad", ["x"]])
def test_n28_what_is_no_durable_job_is_refused(target: Any) -> None:
    message = refused(lambda: enqueue(target, 1), error=UnknownDefinition)
    assert target != "tests.jobs.ad" or "'tests.jobs.add'" in message


def test_n28_a_function_from_outside_is_never_imported_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.import_module", lambda name: pytest.fail(f"imported {name}"))
    refused(lambda: enqueue("wave.open", "x"), "wave.open", error=UnknownDefinition)


def test_n31_a_job_is_enqueued_in_a_signal_handler() -> None:
    def saved(instance: Group, **_kwargs: Any) -> None:
        noop.enqueue(instance.pk)

    post_save.connect(saved, sender=Group)
    try:
        Group.objects.create(name="one")
    finally:
        post_save.disconnect(saved, sender=Group)
    assert Job.objects.count() == 1


def test_what_is_refused_leaves_the_callers_transaction_usable() -> None:
    refused(lambda: noop.enqueue("x"))  # type: ignore[arg-type]
    assert noop.enqueue(1).status == "pending"
