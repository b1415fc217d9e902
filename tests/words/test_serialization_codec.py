"""Values with an annotation: classes come back, and only where the annotation names them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any, NamedTuple, Optional, TypedDict

import pytest
from django.db.models import TextChoices
from hypothesis import given
from hypothesis import strategies as st

from django_durable_jobs.errors import SerializationError
from django_durable_jobs.serialization import Codec, decode
from tests.words.test_serialization import LIMIT, shape, values

pytestmark = pytest.mark.once


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Size(TextChoices):
    SMALL = "s", "Small"


class Level(IntEnum):
    LOW = 1


@dataclass
class Point:
    x: int
    y: float = 0.0
    when: datetime | None = None
    color: Color | None = None


@dataclass(frozen=True)
class Line:
    ends: tuple[Point, ...]
    tags: set[str] = field(default_factory=set, compare=False)


@dataclass
class Loose:
    content: Any


class Pair(NamedTuple):
    left: int
    right: Decimal


class Movie(TypedDict):
    title: str
    size: Size


class Odd(Enum):
    A = (1, 2)


NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Color, Color.RED),
        (Size, Size.SMALL),
        (Level, Level.LOW),
        (Point, Point(1, 2.5, NOW, Color.BLUE)),
        (Line, Line((Point(1), Point(2)), {"$b"})),
        (Pair, Pair(1, Decimal("2.0"))),
        (list[Color], [Color.RED, Color.BLUE]),
        (dict[str, Point], {"$a": Point(1)}),
        (Optional[Point], Point(1)),  # noqa: UP045 -- the older spelling is to work as well
        (Point | None, None),
        (Color | str, Color.RED),
        (datetime | Color | int, Color.RED),
        (Movie, {"title": "M", "size": Size.SMALL}),
        (set[Color], {Color.RED}),
        (tuple[Pair, Level], (Pair(1, Decimal(1)), Level.LOW)),
        (Any, {"a": (1,)}),
        (Point, {"x": 5}),
        (Color, "red"),
        (int, "anything"),
    ],
    ids=str,
)
def test_values_come_back_by_their_annotation(annotation: object, value: object) -> None:
    codec = Codec(annotation)
    back = codec.decode(codec.encode(value, limit=LIMIT))
    assert back == value
    assert shape(back) == shape(value)


@given(values, st.sampled_from([Point, Color, Any, list[Point], dict[str, Any], Color | str]))
def test_a_plain_value_comes_back_as_it_went_whatever_the_annotation_says(value: object, annotation: object) -> None:
    codec = Codec(annotation)
    assert shape(codec.decode(codec.encode(value, limit=LIMIT))) == shape(value)


@given(
    st.lists(
        st.builds(Point, st.integers(), st.floats(allow_nan=False, allow_infinity=False), color=st.sampled_from(Color))
    )
)
def test_dataclasses_in_a_list_come_back(points: list[Point]) -> None:
    codec = Codec(list[Point])
    assert codec.decode(codec.encode(points, limit=LIMIT)) == points


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Any, Color.RED),
        (str, Size.SMALL),
        (Any, Point(1)),
        (tuple, Pair(1, Decimal(1))),
        (Odd, Odd.A),
        (Color, Size.SMALL),
        (Point, Line(())),
        (Loose, Loose(Size.SMALL)),
        (Loose, Loose([Point(1)])),
        (Point, Point("not an int")),  # type: ignore[arg-type]
        (list[Color], [Color.RED, "blue"]),
        ("NotDefined", Color.RED),
        (dict[Color, int], {Color.RED: 1}),
    ],
    ids=str,
)
def test_a_class_that_would_not_come_back_is_refused(annotation: object, value: object) -> None:
    with pytest.raises(SerializationError, match=r"result.* cannot be stored"):
        Codec(annotation).encode(value, limit=LIMIT, what="result")


@pytest.mark.parametrize(
    "text", ['{"$enum":"green"}', '{"$dataclass":{"x":"1"}}', '{"$dataclass":{}}', "{", '{"$nope":1}']
)
def test_a_text_that_fits_its_class_no_more_raises_only_our_error(text: str) -> None:
    with pytest.raises(SerializationError):
        Codec(Point | Color).decode(text)


def test_a_class_tag_is_not_read_without_its_annotation() -> None:
    text = Codec(Color).encode(Color.RED, limit=LIMIT)
    assert text == '{"$enum":"red"}'
    with pytest.raises(SerializationError, match="no annotation names any more"):
        decode(text)


def test_no_class_name_is_stored() -> None:
    text = Codec(Line).encode(Line((Point(1, color=Color.RED),)), limit=LIMIT)
    assert not any(name in text for name in ("Line", "Point", "Color", "RED", __name__))
