"""Arguments: what fits a signature, how it is stored, what comes back."""

from __future__ import annotations

import asyncio
import functools
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_durable_jobs.errors import ArgumentError, SerializationError
from django_durable_jobs.serialization import ArgumentCodec
from tests.words.test_serialization import LIMIT, keys, shape, values
from tests.words.test_serialization_refused import LoudList, LoudStr

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nowhere import Missing  # type: ignore[import-not-found]

pytestmark = pytest.mark.once


class Color(Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    color: Color = Color.RED


def noop(n: int) -> None: ...
def optional(n: int = 0, *, ratio: float = 1.0, note: str = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013 -- the case
def only_position(a: int, b: int = 2, /, c: int = 3) -> None: ...
def everything(a: Any, /, b: Any, *rest: int, c: Any, **extra: Any) -> None: ...
def anything(*args: Any, **kwargs: Any) -> None: ...
def classes(point: Point, colors: list[Color] | None = None) -> None: ...
def containers(numbers: list[int], pair: tuple[int, str] = (1, "a")) -> None: ...
def either(when: datetime | str, color: Color | str = "x") -> None: ...
def unresolved(a: Missing, b: int, c: Point) -> None: ...
def abstract(items: Sequence[int]) -> None: ...
async def asynchronous(n: int) -> None: ...


def logged(function: Callable[..., object]) -> Callable[..., object]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> object:
        return function(*args, **kwargs)

    return wrapper


@logged
def wrapped(n: int, color: Color) -> None: ...


def codec(function: Callable[..., object]) -> ArgumentCodec:
    return ArgumentCodec(function, f"app.{function.__name__}")


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "text"),
    [
        (noop, (), {"n": 1}, '{"n":1}'),
        (noop, (1,), {}, '{"*":[1]}'),
        (noop, (2**70,), {}, '{"*":[{"$int":"0x400000000000000000"}]}'),
        (optional, (), {}, "{}"),
        (optional, (1,), {"ratio": 2}, '{"*":[1],"ratio":2}'),
        (optional, (), {"note": None}, '{"note":null}'),
        (only_position, (1,), {"c": 4}, '{"*":[1],"c":4}'),
        (everything, (1, 2, 3), {"c": 4, "a": 5}, '{"*":[1,2,3],"c":4,"a":5}'),
        (anything, ((1,),), {"$set": 1}, '{"$dict":{"*":[{"$tuple":[1]}],"$set":1}}'),
        (classes, (), {"point": Point(1)}, '{"point":{"$dataclass":{"x":1,"color":{"$enum":"red"}}}}'),
        (classes, (Point(1), [Color.RED]), {}, None),
        (classes, (Point(1), None), {}, None),
        (containers, ([1, 2],), {"pair": (1, "b")}, '{"*":[[1,2]],"pair":{"$tuple":[1,"b"]}}'),
        (either, (datetime(2026, 1, 1, tzinfo=UTC),), {"color": Color.RED}, None),
        (either, ("tomorrow", "pink"), {}, '{"*":["tomorrow","pink"]}'),
        (unresolved, ("?", 1, Point(1)), {}, None),
        (asynchronous, (1,), {}, '{"*":[1]}'),
        (wrapped, (1,), {"color": Color.RED}, '{"*":[1],"color":{"$enum":"red"}}'),
    ],
    ids=lambda part: getattr(part, "__name__", None),
)
def test_arguments_that_fit_come_back(
    function: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object], text: str | None
) -> None:
    arguments = codec(function)
    stored = arguments.dump(args, kwargs, LIMIT)
    assert text is None or stored == text
    back = arguments.load(stored)
    assert back == (args, kwargs)
    assert shape(back) == shape((args, kwargs))


@given(
    st.lists(values, max_size=3).map(tuple), st.dictionaries(keys.filter(lambda key: key != "*"), values, max_size=3)
)
def test_any_arguments_come_back_equal_and_of_the_same_types(args: tuple[object, ...], kwargs: dict[str, Any]) -> None:
    arguments = codec(anything)
    assert shape(arguments.load(arguments.dump(args, kwargs, LIMIT))) == shape((args, kwargs))


def attempt(function: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]) -> bool:
    try:
        result = function(*args, **kwargs)
    except TypeError:
        return False
    if asyncio.iscoroutine(result):
        result.close()
    return True


@given(
    st.sampled_from([noop, optional, only_position, everything, anything, asynchronous]),
    st.lists(st.just(1), max_size=5).map(tuple),
    st.dictionaries(st.sampled_from(["n", "a", "b", "c", "ratio", "rest", "extra", "zzz"]), st.just(1)),
)
def test_n24_arguments_are_accepted_exactly_if_python_would_call_the_function(
    function: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]
) -> None:
    try:
        codec(function).dump(args, kwargs, LIMIT)
    except ArgumentError:
        accepted = False
    else:
        accepted = True
    assert accepted == attempt(function, args, kwargs)


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "message"),
    [
        (noop, (), {}, r"app\.noop\(n\) does not take these arguments; missing: 'n'"),
        (noop, (1, 2), {}, "2 positional arguments, at most 1 are taken"),
        (noop, (1,), {"n": 1}, "'n' is given twice"),
        (
            optional,
            (),
            {"ration": 1},
            r"optional\(n=…, \*, ratio=…, note=…\).*unexpected: 'ration' \(did you mean 'ratio'",
        ),
        (only_position, (), {"a": 1}, "missing: 'a'; unexpected: 'a'"),
        (everything, (), {}, "missing: 'a', 'b', 'c'"),
        (anything, (), {"*": 1}, r"'\*' cannot be a keyword"),
        (noop, ("x",), {}, r"app\.noop: parameter 'n' expects int, got 'x' \(str\): Expected `int`, got `str`"),
        (noop, (), {"n": 1.0}, "expects int, got 1.0"),
        (noop, (), {"n": True}, "expects int, got True"),
        (noop, (), {"n": None}, "expects int, got None"),
        (optional, (), {"ratio": "1"}, "expects float, got '1'"),
        (everything, (1, 2, "x"), {"c": 1}, "parameter 'rest' expects int"),
        (containers, ([1, "x"],), {}, r"'numbers' expects list\[int\].*at `\$\[1\]`"),
        (containers, ((1, 2),), {}, r"'numbers' expects list\[int\].*would give \[1, 2\]"),
        (containers, ([],), {"pair": [1, "a"]}, r"'pair' expects tuple\[int, str\]"),
        (either, (5,), {}, r"'when' expects datetime\.datetime \| str.*no alternative fits"),
        (classes, ({"x": "1"},), {}, "'point' expects Point"),
        (classes, (5,), {}, "'point' expects Point"),
    ],
)
def test_n24_arguments_that_do_not_fit_are_refused(
    function: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object], message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        codec(function).dump(args, kwargs, LIMIT)


def test_the_plain_form_of_a_class_is_stored_as_that_class() -> None:
    arguments = codec(classes)
    stored = arguments.dump((), {"point": {"x": 1, "color": "red"}, "colors": ["red"]}, LIMIT)
    assert arguments.load(stored) == ((), {"point": Point(1), "colors": [Color.RED]})


def test_a_text_is_no_datetime() -> None:
    def at(when: datetime) -> None: ...

    with pytest.raises(ArgumentError, match="'when' expects datetime"):
        codec(at).dump(("2026-01-01T00:00:00Z",), {}, LIMIT)


def test_an_abstract_annotation_accepts_what_implements_it() -> None:
    arguments = codec(abstract)
    assert arguments.load(arguments.dump(((1, 2),), {}, LIMIT)) == (((1, 2),), {})


def test_subclasses_of_plain_types_fit_the_annotation_of_their_base() -> None:
    def plain(text: str, items: list[int]) -> None: ...

    arguments = codec(plain)
    assert arguments.load(arguments.dump((LoudStr("a"), LoudList([1])), {}, LIMIT)) == (("a", [1]), {})


def test_leading_parameters_of_the_runner_are_not_the_callers() -> None:
    def job(context: object, n: int) -> None: ...

    arguments = ArgumentCodec(job, "app.job", skip=1)
    assert arguments.load(arguments.dump((1,), {}, LIMIT)) == ((1,), {})
    with pytest.raises(ArgumentError, match="unexpected: 'context'"):
        arguments.dump((1,), {"context": 2}, LIMIT)


def test_an_argument_that_cannot_be_stored_is_named_by_its_parameter() -> None:
    with pytest.raises(SerializationError, match=r"args\.c\.items\[3\]\.price cannot be stored"):
        codec(everything).dump((1, 2), {"c": {"items": [0, 0, 0, {"price": float("nan")}]}}, LIMIT)
    with pytest.raises(SerializationError, match=r"args\.args\[1\] cannot be stored"):
        codec(anything).dump((1, object()), {}, LIMIT)


def test_arguments_over_the_limit_are_refused_with_their_size() -> None:
    with pytest.raises(
        SerializationError, match=r"the arguments of app\.anything takes 1005 bytes as JSON, the limit is 100"
    ):
        codec(anything).dump(("x" * 995,), {}, 100)


def test_names_of_arguments_must_be_strings_that_can_be_stored() -> None:
    with pytest.raises(ArgumentError, match="must be strings"):
        codec(anything).dump((), {1: 2}, LIMIT)  # type: ignore[dict-item]
    with pytest.raises(SerializationError, match="NUL"):
        codec(anything).dump((), {"a\0": 2}, LIMIT)


def test_a_change_after_the_dump_has_no_effect() -> None:
    numbers = [1]
    arguments = codec(containers)
    stored = arguments.dump((numbers,), {}, LIMIT)
    numbers.append(2)
    assert arguments.load(stored) == (([1],), {})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "not an object"),
        ("nope", "not JSON"),
        ('{"*":{}}', "not a list"),
        ('{"*":{"$tuple":[1]}}', "not a list"),
        ('{"$set":[]}', "tag stands where"),
        ('{"n":{"$nope":1}}', "argument 'n'"),
        ('{"n":{"$enum":"red"}}', "argument 'n'.*no annotation names any more"),
        ('{"*":[{"$enum":"red"}]}', "argument 'n'.*no annotation names any more"),
    ],
)
def test_stored_arguments_that_cannot_be_read_raise_our_error_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(SerializationError, match=f"app.noop: .*{reason}"):
        codec(noop).load(text)
