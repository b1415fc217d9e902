"""What cannot be stored, or not as it is: the bad inputs N14 to N23 one by one."""

from __future__ import annotations

import io
import math
import sys
from collections import OrderedDict
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING

import pytest
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.utils.functional import SimpleLazyObject
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy

from django_durable_jobs.errors import SerializationError
from django_durable_jobs.serialization import MAX_DEPTH, decode, encode

if TYPE_CHECKING:
    from collections.abc import Iterator
from tests.words.test_serialization import LIMIT, shape, there_and_back

pytestmark = pytest.mark.once


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, Decimal("NaN"), Decimal("Infinity")])
def test_n14_nan_and_infinity_are_refused(number: object) -> None:
    with pytest.raises(SerializationError, match=r"args\.price\[1\] cannot be stored.*(?i:nan and infinities)"):
        encode({"price": [1, number]}, limit=LIMIT, what="args")


@pytest.mark.parametrize("value", ["a\0b", {"a\0b": 1}, ["a", ("\0",)]])
def test_n15_nul_is_refused_in_strings_and_keys(value: object) -> None:
    with pytest.raises(SerializationError, match="NUL"):
        encode(value, limit=LIMIT)


def test_a_backslash_that_only_looks_like_an_escaped_nul_is_kept() -> None:
    assert there_and_back("\\u0000") == "\\u0000"


@pytest.mark.parametrize("value", ["\ud800", {"\udfff": 1}, [{"a": "x\ud800y"}]])
def test_n16_lone_surrogates_are_refused(value: object) -> None:
    with pytest.raises(SerializationError, match="lone surrogate"):
        encode(value, limit=LIMIT)


@pytest.mark.parametrize(
    "number",
    [
        2**70,
        -(2**70),
        2**63,
        2**64,
        2**64 - 1,
        -(2**63) - 1,
        10**5000,
        1e22,
        1e16,
        -0.0,
        0.0,
        5e-324,
        sys.float_info.max,
    ],
    ids=lambda number: f"{number:.3g}" if isinstance(number, float) else f"{number.bit_length()} bits",
)
def test_n17_numbers_come_back_exactly(number: float) -> None:
    back = there_and_back(number)
    assert type(back) is type(number)
    assert back == number
    assert math.copysign(1, back) == math.copysign(1, number) if isinstance(back, float) else True


def test_n17_a_literal_that_is_too_large_for_a_float_is_refused() -> None:
    with pytest.raises(SerializationError):
        decode("1e400")


class Color(Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (Color.RED, "annotate it with this class"),
        (gettext_lazy("Hello"), "lazy string"),
        (SimpleLazyObject(lambda: "Hello"), "lazy object"),
        (User(pk=1), "primary key"),
        (User.objects, "model manager"),
        (ContentFile(b"x"), "file"),
        (io.BytesIO(), "file"),
        (bytearray(b"x"), "bytearray"),
        (1j, "complex"),
        (object(), "object"),
        (len, "builtin"),
        (int, "type"),
        (iter([]), "iterator"),
    ],
    ids=lambda part: type(part).__name__ if not isinstance(part, str) else part,
)
def test_n18_what_cannot_come_back_is_refused_with_advice(value: object, advice: str) -> None:
    with pytest.raises(SerializationError, match=rf"args\.items\[1\] cannot be stored\. .*{advice}.*Allowed are"):
        encode({"items": [1, value]}, limit=LIMIT, what="args")


def test_n18_a_queryset_is_refused_without_being_evaluated() -> None:
    with pytest.raises(SerializationError, match="list of primary keys"):
        encode(User.objects.none(), limit=LIMIT)


@pytest.mark.parametrize("value", [{1: 2}, {None: 1}, {True: 1}, {1: "a", "1": "b"}, {("a",): 1}, {Color.RED: 1}])
def test_n19_keys_that_are_not_strings_are_refused(value: object) -> None:
    with pytest.raises(SerializationError, match="Keys of a dict must be strings"):
        encode(value, limit=LIMIT)


class Twin(str):
    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def test_n19_two_keys_that_become_one_are_refused() -> None:
    with pytest.raises(SerializationError, match="same string"):
        encode({Twin("a"): 1, Twin("a"): 2}, limit=LIMIT)


def explode(*_: object) -> Iterator[object]:
    raise AssertionError("a method of the subclass was used")


class LoudStr(str):
    __slots__ = ()
    __iter__ = __str__ = __len__ = __repr__ = encode = explode  # type: ignore[assignment]


class LoudInt(int):
    __str__ = __repr__ = __int__ = __index__ = explode  # type: ignore[assignment]


class LoudFloat(float):
    __str__ = __repr__ = __float__ = explode  # type: ignore[assignment]


class LoudList(list[object]):
    __iter__ = __len__ = __getitem__ = explode  # type: ignore[assignment]


class LoudTuple(tuple[object, ...]):
    __slots__ = ()
    __iter__ = __len__ = __getitem__ = explode  # type: ignore[assignment]


class LoudDict(dict[str, object]):
    __iter__ = __len__ = __getitem__ = keys = values = items = explode  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (LoudStr("a"), "a"),
        (LoudInt(3), 3),
        (LoudFloat(2.5), 2.5),
        (LoudList([1, LoudInt(2)]), [1, 2]),
        (LoudTuple([1]), (1,)),
        (LoudDict({LoudStr("a"): 1}), {"a": 1}),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (mark_safe("<b>"), "<b>"),
    ],
    ids=lambda part: type(part).__name__,
)
def test_n20_of_a_subclass_the_plain_value_is_stored_and_no_method_of_it_runs(value: object, plain: object) -> None:
    assert shape(there_and_back([value])) == shape([plain])


class Precise(datetime):
    nanosecond = 5

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Precise)

    __hash__ = datetime.__hash__


def test_n20_a_subclass_that_holds_more_than_its_base_is_refused() -> None:
    with pytest.raises(SerializationError, match="holds more than its base datetime"):
        encode(Precise(2026, 1, 1, tzinfo=UTC), limit=LIMIT)


def nested(levels: int) -> list[object]:
    value: list[object] = []
    for _ in range(levels - 1):
        value = [value]
    return value


def test_n21_the_deepest_allowed_value_comes_back() -> None:
    assert there_and_back(nested(MAX_DEPTH)) == nested(MAX_DEPTH)
    assert there_and_back([nested(MAX_DEPTH - 1), (1,)]) == [nested(MAX_DEPTH - 1), (1,)]


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 5_000])
def test_n21_deeper_values_are_refused(levels: int) -> None:
    with pytest.raises(SerializationError, match="more than 100 levels"):
        encode(nested(levels), limit=LIMIT)


def test_n21_cycles_are_refused() -> None:
    ring: list[object] = []
    ring += [ring, ring]
    with pytest.raises(SerializationError, match="contains itself"):
        encode(ring, limit=LIMIT)


def test_n21_a_value_that_repeats_one_part_exponentially_is_refused_by_size() -> None:
    value: list[object] = [1]
    for _ in range(60):
        value = [value, value]
    with pytest.raises(SerializationError, match=f"more than {LIMIT} bytes"):
        encode(value, limit=LIMIT)


def test_n22_a_value_over_the_limit_is_refused_with_its_size() -> None:
    with pytest.raises(SerializationError, match="args takes 10485770 bytes as JSON, the limit is 262144"):
        encode({"a": "ä" * (5 * 1024 * 1024) + "bb"}, limit=LIMIT, what="args")


def test_n22_the_limit_counts_bytes_and_is_itself_allowed() -> None:
    assert encode("ä", limit=4) == '"ä"'
    with pytest.raises(SerializationError, match="takes 4 bytes as JSON, the limit is 3"):
        encode("ä", limit=3)


def test_n23_a_change_after_encoding_has_no_effect() -> None:
    value = {"items": [1]}
    text = encode(value, limit=LIMIT)
    value["items"].append(2)
    assert decode(text) == {"items": [1]}


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_a_message_survives_a_value_that_cannot_be_shown() -> None:
    with pytest.raises(SerializationError, match="its repr cannot be shown"):
        encode(Unprintable(), limit=LIMIT)


def test_a_message_shows_at_most_80_characters_of_the_value_and_no_control_characters() -> None:
    with pytest.raises(SerializationError) as caught:
        encode(["\x1b[31m\0" + "x" * 10_000_000], limit=LIMIT)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 600
