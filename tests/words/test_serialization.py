"""Values to text and back: the property for all of them, the stored forms, and texts that cannot be read."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_durable_jobs.errors import SerializationError
from django_durable_jobs.serialization import decode, encode

pytestmark = pytest.mark.once

LIMIT = 256 * 1024
BERLIN = ZoneInfo("Europe/Berlin")


def shape(value: Any) -> object:
    """Describe a value so that two descriptions are equal only if value and all types are."""
    kind = type(value)
    if kind in (list, tuple):
        return kind, [shape(item) for item in value]
    if kind is dict:
        return kind, [(shape(key), shape(item)) for key, item in value.items()]
    if kind in (set, frozenset):
        return kind, sorted(map(repr, map(shape, value)))
    if kind in (datetime, time):
        return kind, value.isoformat(), value.fold, repr(value.tzinfo)
    return kind, repr(value)


def there_and_back(value: object) -> object:
    return decode(encode(value, limit=LIMIT))


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
keys = texts | st.sampled_from(["$", "$set", "$dict", "$datetime", "*"])
zones = st.sampled_from([None, UTC, timezone(timedelta(hours=-3, seconds=7)), BERLIN, ZoneInfo("UTC")])
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | st.binary(max_size=8)
    | st.dates()
    | st.times(timezones=st.sampled_from([None, UTC]))
    | st.timedeltas()
    | st.datetimes(timezones=zones)
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.uuids()
)
hashables = st.recursive(
    scalars, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=4
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(keys, inner, max_size=3)
        | st.tuples(inner)
        | st.sets(hashables, max_size=3)
    ),
    max_leaves=12,
)


@given(values)
def test_every_allowed_value_comes_back_equal_and_of_the_same_types(value: object) -> None:
    assert shape(there_and_back(value)) == shape(value)


@given(values)
def test_a_value_read_back_and_stored_again_gives_the_same_text(value: object) -> None:
    text = encode(value, limit=LIMIT)
    assert encode(decode(text), limit=LIMIT) == text


@given(st.recursive(texts, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=10))
def test_no_data_is_taken_for_a_tag(value: object) -> None:
    disguised = json.loads(encode(value, limit=LIMIT))
    assert shape(there_and_back(disguised)) == shape(disguised)


@pytest.mark.parametrize("fold", [0, 1])
@pytest.mark.parametrize("zone", [None, UTC, BERLIN])
@pytest.mark.parametrize(
    "wall",
    [datetime(2026, 10, 25, 2, 30), datetime(2026, 3, 29, 2, 30), datetime(2026, 7, 1)],  # noqa: DTZ001 -- zone follows
    ids=["twice", "never", "once"],
)
def test_zone_and_fold_come_back(wall: datetime, zone: ZoneInfo | None, fold: int) -> None:
    moment = wall.replace(tzinfo=zone, fold=fold)
    back = there_and_back(moment)
    assert isinstance(back, datetime)
    assert (back.tzinfo, back.fold, back.replace(tzinfo=None)) == (zone, fold, wall.replace(fold=fold))


def test_a_zone_is_stored_in_brackets_after_its_offset() -> None:
    text = encode(datetime(2026, 1, 1, tzinfo=BERLIN), limit=LIMIT)
    assert text == '{"$datetime":"2026-01-01T00:00:00+01:00[Europe/Berlin]"}'


def test_the_instant_is_kept_when_the_rules_of_a_zone_have_changed() -> None:
    back = decode('{"$datetime":"2026-01-01T00:00:00+03:00[Europe/Berlin]"}')
    assert back == datetime(2025, 12, 31, 21, tzinfo=UTC)
    assert isinstance(back, datetime)
    assert back.tzinfo is BERLIN


@pytest.mark.parametrize("zone", ["Mars/Base", "../../etc/passwd", "/etc/passwd", "CET ", "", "europe/berlin"])
def test_an_unknown_zone_in_stored_text_never_becomes_a_path(zone: str) -> None:
    with pytest.raises(SerializationError):
        decode(json.dumps({"$datetime": f"2026-01-01T00:00:00+01:00[{zone}]"}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1,]",
        "NaN",
        '"\ud800"',
        "[" * 100_000,
        '{"$set":[[]]}',
        '{"$set":1}',
        '{"$tuple":{}}',
        '{"$dict":[]}',
        '{"$nope":1}',
        '{"$":1}',
        '{"$set":[],"a":1}',
        '{"a":1,"$set":[]}',
        '{"$datetime":5}',
        '{"$datetime":"yesterday"}',
        '{"$datetime":"0001-01-01T00:00:00+14:00[Europe/Berlin]"}',
        '{"$datetime":"2026-01-01T00:00:00[Europe/Berlin]"}',
        '{"$date":"2026-02-30"}',
        '{"$time":"25:00"}',
        '{"$timedelta":[1,2]}',
        '{"$timedelta":[true,0,0]}',
        '{"$timedelta":[99999999999999999999,0,0]}',
        '{"$decimal":"NaN"}',
        '{"$decimal":"x"}',
        '{"$decimal":1}',
        '{"$uuid":"x"}',
        '{"$bytes":"*"}',
        '{"$bytes":"ä"}',
        '{"$int":"12"}',
        '{"$int":12}',
        '{"$enum":"red"}',
        '{"$dataclass":{}}',
        '{"$namedtuple":[]}',
        '{"$enum":{"$nope":1}}',
    ],
    ids=lambda text: text[:40].encode("ascii", "replace").decode(),
)
def test_a_text_that_cannot_be_read_raises_only_our_error(text: str) -> None:
    with pytest.raises(SerializationError):
        decode(text)


@given(st.text() | st.recursive(scalars.filter(lambda v: isinstance(v, str | int)), st.lists).map(repr))
def test_any_text_is_either_read_or_refused_with_our_error(text: str) -> None:
    with suppress(SerializationError):
        decode(text)


@pytest.mark.parametrize("levels", [300, 900, 3_000])
def test_a_deep_text_with_tags_is_either_read_or_refused_with_our_error(levels: int) -> None:
    with suppress(SerializationError):
        decode("[" * levels + '{"$set":[]}' + "]" * levels)


def test_types_of_the_table_are_stored_as_documented() -> None:
    value = {
        "tuple": (1,),
        "set": {2, 1},
        "frozenset": frozenset(),
        "bytes": b"\0",
        "date": date(2026, 1, 1),
        "time": time(1, 2, 3, 4),
        "timedelta": timedelta(microseconds=-1),
        "Decimal": Decimal("1.00"),
        "UUID": UUID(int=1),
        "int": 2**70,
        "dict": {"$set": 1},
    }
    assert json.loads(encode(value, limit=LIMIT)) == {
        "tuple": {"$tuple": [1]},
        "set": {"$set": [1, 2]},
        "frozenset": {"$frozenset": []},
        "bytes": {"$bytes": "AA=="},
        "date": {"$date": "2026-01-01"},
        "time": {"$time": "01:02:03.000004"},
        "timedelta": {"$timedelta": [-1, 86399, 999999]},
        "Decimal": {"$decimal": "1.00"},
        "UUID": {"$uuid": "00000000-0000-0000-0000-000000000001"},
        "int": {"$int": "0x400000000000000000"},
        "dict": {"$dict": {"$set": 1}},
    }
