"""Exceptions of calls: what is kept, and that a stored text makes nothing run (S10, S11, X45)."""

from __future__ import annotations

import json
import sys
from decimal import InvalidOperation
from enum import Enum
from typing import Self

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy
from hypothesis import given
from hypothesis import strategies as st

from django_durable_jobs.errors import ArgumentError, CallError, SerializationError
from django_durable_jobs.rendering import format_traceback, safe_repr, safe_str
from django_durable_jobs.serialization import decode_error, encode_error
from tests.words.test_serialization import shape, values

pytestmark = pytest.mark.once


class Declined(Exception):
    def __init__(self, code: int, *, retry: bool) -> None:
        super().__init__(code)
        self.retry = retry


class Guarded(Exception):
    made = 0

    def __new__(cls, *args: object) -> Self:
        cls.made += 1
        return super().__new__(cls, *args)

    def __init__(self, *args: object) -> None:
        type(self).made += 1
        super().__init__(*args)


class DiskGone(OSError):
    def __init__(self, disk: str) -> None:
        super().__init__(5, "gone", disk)


class Loud(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Hidden(Enum):
    A = object()


def there_and_back(exc: BaseException) -> Exception:
    return decode_error(encode_error(exc))


@pytest.mark.parametrize(
    "exc",
    [
        ValueError("a", 1, (2,)),
        KeyError("missing"),
        ZeroDivisionError(),
        StopIteration(5),
        OSError(2, "No such file", "a.txt"),
        FileNotFoundError(2, "No such file", "a.txt", None, "b.txt"),
        DiskGone("sda"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        InvalidOperation("x"),
        User.DoesNotExist("gone"),
        ArgumentError("bad"),
        Declined(3, retry=True),
        Loud("x"),
        CallError("a.B", "c"),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_an_error_comes_back_as_itself(exc: Exception) -> None:
    back = there_and_back(exc)
    assert type(back) is type(exc)
    assert shape(back.args) == shape(exc.args)
    assert vars(back) == vars(exc)
    assert safe_str(back, 200) == safe_str(exc, 200)
    assert (back.__traceback__, back.__cause__, back.__context__) == (None, None, None)


@given(st.lists(values, max_size=3))
def test_any_storable_arguments_of_an_error_come_back(args: list[object]) -> None:
    assert shape(there_and_back(Guarded(*args)).args) == shape(tuple(args))


def test_reading_an_error_runs_no_constructor() -> None:
    text = encode_error(Guarded(1))
    before = Guarded.made
    assert type(decode_error(text)) is Guarded
    assert Guarded.made == before


def test_a_class_made_inside_a_function_is_found() -> None:
    for number in range(3):

        class Local(Exception):
            pass

        assert type(there_and_back(Local(number))) is Local


def test_notes_are_kept() -> None:
    exc = ValueError("a")
    exc.add_note("while testing")
    assert there_and_back(exc).__notes__ == ["while testing"]


@pytest.mark.parametrize(
    ("error", "messages"),
    [
        (ValidationError("one"), ["one"]),
        (ValidationError(gettext_lazy("Enter a number.")), ["Enter a number."]),
        (ValidationError(["one", "two"]), ["one", "two"]),
        (ValidationError("%(n)s", params={"n": 5}), ["5"]),
    ],
)
def test_a_validation_error_keeps_its_messages(error: ValidationError, messages: list[str]) -> None:
    back = there_and_back(error)
    assert isinstance(back, ValidationError)
    assert back.messages == messages


def test_a_validation_error_keeps_its_fields() -> None:
    back = there_and_back(ValidationError({"name": ["too long", "too odd"]}))
    assert isinstance(back, ValidationError)
    assert back.message_dict == {"name": ["too long", "too odd"]}


def test_the_errors_of_a_group_are_kept() -> None:
    back = there_and_back(ExceptionGroup("many", [ValueError(1), KeyError("a")]))
    assert isinstance(back, ExceptionGroup)
    assert [(type(error), error.args) for error in back.exceptions] == [(ValueError, (1,)), (KeyError, ("a",))]


def test_an_argument_that_cannot_be_stored_becomes_its_text_and_an_attribute_is_left_out() -> None:
    exc = Declined(Hidden, retry=True)  # type: ignore[arg-type]
    exc.lock = object()  # type: ignore[attr-defined]
    back = there_and_back(exc)
    assert back.args == ("<enum 'Hidden'>",)
    assert vars(back) == {"retry": True}


def test_s11_a_name_in_a_text_is_never_imported() -> None:
    assert "this" not in sys.modules
    form = {"module": "this", "qualname": "Zen", "message": "x", "args": [], "state": {}}
    back = decode_error(json.dumps(form))
    assert (type(back), getattr(back, "type_name", None), getattr(back, "message", None)) == (
        CallError,
        "this.Zen",
        "x",
    )
    assert "this" not in sys.modules


@pytest.mark.parametrize("name", ["SystemExit", "KeyboardInterrupt", "BaseException", "eval", "object", "type"])
def test_s11_what_is_no_exception_becomes_a_call_error(name: str) -> None:
    form = {"module": "builtins", "qualname": name, "message": "x", "args": [{"value": 1}], "state": {}}
    assert type(decode_error(json.dumps(form))) is CallError


def test_arguments_that_do_not_fit_the_class_become_a_call_error() -> None:
    form = {"module": "builtins", "qualname": "ExceptionGroup", "message": "x", "args": [], "state": {}}
    assert type(decode_error(json.dumps(form))) is CallError


GOOD = {"module": "builtins", "qualname": "ValueError", "message": "", "args": [], "state": {}}


@pytest.mark.parametrize(
    "form",
    [
        None,
        [],
        {},
        {"module": "builtins"},
        GOOD | {"args": {}},
        GOOD | {"args": [1]},
        GOOD | {"args": [{}]},
        GOOD | {"args": [{"value": {"$nope": 1}}]},
        GOOD | {"args": [{"call": "x"}]},
        GOOD | {"state": {"a": {"self": "x"}}},
        GOOD | {"state": {"a": {"self": -1}}},
        GOOD | {"module": 5},
        GOOD | {"args": [{"error": {}}]},
    ],
    ids=str,
)
def test_a_malformed_error_raises_only_our_error(form: object) -> None:
    with pytest.raises(SerializationError):
        decode_error(json.dumps(form))


def test_x45_a_huge_error_is_stored_within_the_limit() -> None:
    exc = ValueError("x" * 50_000_000, *["y" * 30_000] * 200)
    exc.more = ["z" * 20_000] * 50  # type: ignore[attr-defined]
    text = encode_error(exc)
    assert len(text.encode()) <= 256 * 1024
    assert "cut, 50000000 characters" in text or "cut, " in text
    assert type(decode_error(text)) is ValueError


def test_x45_an_error_that_contains_itself_is_stored() -> None:
    exc = ValueError("a")
    exc.args = (exc, [exc])
    exc.me = exc  # type: ignore[attr-defined]
    back = there_and_back(exc)
    assert type(back) is ValueError
    assert back.me is back  # type: ignore[attr-defined]


def test_x45_an_error_with_endless_or_broken_parts_is_stored() -> None:
    class Broken(Exception):
        @property
        def __dict__(self) -> dict[str, object]:  # type: ignore[override]
            raise RuntimeError("no attributes")

    ring: list[object] = [object()]
    ring += [ring] * 50
    exc = ValueError("a")
    exc.ring = ring  # type: ignore[attr-defined]
    assert type(there_and_back(exc)) is ValueError
    assert there_and_back(Broken("b")).args == ("b",)


def test_x45_a_text_that_raises_becomes_a_placeholder() -> None:
    assert safe_str(Loud(), 100) == "<Loud: its text cannot be shown>"
    assert safe_repr(Loud(), 100) == "<Loud: its repr cannot be shown>"
    assert "Loud" in format_traceback(Loud(), 1000)


def test_x45_a_huge_text_is_cut_with_its_length() -> None:
    assert safe_str("x" * 50_000_000, 40) == "xxxxxxxxxxxx… (cut, 50000000 characters)"
    assert len(safe_repr(["x" * 50_000_000], 80)) == 80


@given(st.text(st.characters()), st.integers(0, 50))
def test_x45_any_text_is_cut_to_the_limit_and_taken_by_any_database(text: str, limit: int) -> None:
    for shown in (safe_str(text, limit), safe_repr(text, limit)):
        assert len(shown) <= limit
        assert "\0" not in shown
        assert shown.encode().decode() == shown


@given(st.text(st.characters()), st.integers(0, 300))
def test_x45_any_traceback_is_cut_to_its_bytes(text: str, limit: int) -> None:
    shown = format_traceback(ValueError(text), limit)
    assert len(shown.encode()) <= limit
    assert "\0" not in shown


def test_x45_a_cycle_of_causes_ends() -> None:
    first, second = ValueError("first"), KeyError("second")
    first.__cause__, second.__cause__ = second, first
    shown = format_traceback(first, 10_000)
    assert "first" in shown
    assert "second" in shown


def test_x45_a_traceback_keeps_its_ends_and_shows_no_local_variables() -> None:
    password = "hunter2"  # noqa: S105 -- that it does not show is the point

    def fail() -> None:
        key = password + "!"
        raise ValueError("the message" + "x" * 50_000_000 + "the end" if key else "")

    with pytest.raises(ValueError, match="the message") as caught:
        fail()
    shown = format_traceback(caught.value, 2_000)
    assert shown.startswith("Traceback")
    assert "(cut, " in shown
    assert shown.endswith("the end\n")
    assert "hunter2!" not in shown


def test_long_chains_of_causes_end_too() -> None:
    exc = ValueError(0)
    for number in range(3_000):
        exc, inner = ValueError(number), exc
        exc.__cause__ = inner
    assert len(format_traceback(exc, 5_000).encode()) <= 5_000
