"""Chunks: one call of a function that handles many jobs, each with an outcome of its own.

Here: what such a function is given, and what its signature says of one job. How chunks are formed and run stands in
``worker/lanes.py`` and ``worker/chunks.py``.
"""

from __future__ import annotations

import collections.abc
import inspect
import typing
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, Generic, Protocol, TypeVar, cast
from uuid import UUID

from .errors import DefinitionError, OptionError, _as_delay
from .rendering import safe_repr

T = TypeVar("T")
R = TypeVar("R")

MAX_CHUNK: Final = 1000
LONGEST_CHUNK_TIMEOUT: Final = timedelta(minutes=5)
"""Claimed jobs are held that long, and no other worker can run them."""

_NOTHING: Final = object()
_EXAMPLE: Final = "items: list[ChunkItem[int, str]]"


class Context(Protocol):
    """What an item asks of the attempt that it stands for."""

    @property
    def id(self) -> UUID:
        """The job."""

    @property
    def attempt(self) -> int:
        """Which attempt it is."""

    @property
    def fencing_token(self) -> int:
        """Which claim it is."""

    @property
    def interrupted(self) -> bool:
        """Whether it was asked to stop."""


class ChunkItem(Generic[T, R]):
    """One job of a chunk: ``ChunkItem[T, R]`` has an ``argument`` of type T and takes a ``result`` of type R.

    What is said of an item last is its job's outcome. One of which nothing was said is completed without a result
    when the function returns, and fails with the function's error when that raises. In tests of the function make
    items by ``ChunkItem(argument)``.
    """

    __slots__ = ("_context", "_error", "_result", "argument")

    def __init__(self, argument: T, context: Context | None = None) -> None:
        """Take the argument of the job; the worker adds the attempt."""
        self.argument = argument
        self._context = context
        self._result: Any = _NOTHING
        self._error: Exception | None = None

    def __repr__(self) -> str:
        return f"<chunk item of job {self._context.id if self._context is not None else '(none)'}>"

    @property
    def result(self) -> R | None:
        """The result of the job, ``None`` until it is set. Setting it says that the job has succeeded."""
        return None if self._result is _NOTHING else cast("R", self._result)

    @result.setter
    def result(self, value: R) -> None:
        self._result, self._error = value, None

    @property
    def error(self) -> Exception | None:
        """The error that was given to ``fail``."""
        return self._error

    def fail(self, error: Exception) -> None:
        """Say that this job alone has failed, as if its own function had raised ``error``.

        It is retried like any other; ``NoRetry``, ``RetryAfter`` and ``Snooze`` mean what they mean elsewhere.
        """
        if not isinstance(error, Exception):
            raise OptionError(f"fail() needs an exception, e.g. fail(ValueError('why')), not {type(error).__name__}.")
        self._result, self._error = _NOTHING, error

    @property
    def has_outcome(self) -> bool:
        """Whether anything was said of it."""
        return self._error is not None or self._result is not _NOTHING

    @property
    def id(self) -> UUID:
        """The job's id."""
        return self._attempt.id

    @property
    def attempt(self) -> int:
        """Which attempt of the job this is, from 1."""
        return self._attempt.attempt

    @property
    def fencing_token(self) -> int:
        """A number that is greater in every later run of the job."""
        return self._attempt.fencing_token

    @property
    def interrupted(self) -> bool:
        """Whether the work for this job is in vain: it is to be cancelled, its lease was lost, or the worker stops."""
        return self._attempt.interrupted

    @property
    def _attempt(self) -> Context:
        if self._context is None:
            raise OptionError("This item was not made by a worker: it stands for no job.")
        return self._context


def check_chunk(value: object) -> int | None:
    """Return how many jobs a chunk may have, or raise ``OptionError`` that says how many are allowed."""
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_CHUNK:
        return int(value)
    raise OptionError(f"chunk must be a whole number from 1 to {MAX_CHUNK}, not {safe_repr(value, 80)}.")


def check_chunk_timeout(value: object) -> timedelta | None:
    """Return how long a chunk may grow, or raise ``OptionError`` that says how long is allowed."""
    if value is None:
        return None
    length = _as_delay(value, "chunk_timeout")  # type: ignore[arg-type]  # it checks the type
    if length > LONGEST_CHUNK_TIMEOUT:
        raise OptionError(f"chunk_timeout must lie between 0 seconds and {LONGEST_CHUNK_TIMEOUT}, got {value!r}.")
    return length


def check_chunk_function(function: Callable[..., Any], *, atomic: bool = False) -> None:
    """Refuse a function that cannot take a chunk, by ``DefinitionError``, and ``atomic`` by ``OptionError``."""
    if atomic:
        raise OptionError("chunk and atomic exclude each other: the jobs of a chunk end one by one.")
    parameters = list(inspect.signature(function).parameters.values())
    fits = len(parameters) == 1 and parameters[0].kind in {
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    }
    annotation = _annotation(function)
    if fits and (annotation is Any or _is_list_of_items(annotation)):
        return
    raise DefinitionError(
        f"{function.__qualname__} has the option chunk, so it is given many jobs at once: write "
        f"def {function.__name__}({_EXAMPLE}), with the types of one job's argument and result."
    )


def types_of_one(function: Callable[..., Any]) -> tuple[Any, Any]:
    """Return the annotations of one job's argument and result; ``Any`` where the function does not say."""
    items = typing.get_args(_annotation(function))
    types = typing.get_args(items[0]) if items else ()
    return (types[0], types[1]) if len(types) == 2 else (Any, Any)  # noqa: PLR2004 -- argument and result


def function_of_one(function: Callable[..., Any]) -> Callable[[Any], None]:
    """Return a function with the signature that a single job of a chunk has; it does nothing."""

    def single(argument: Any) -> None:
        """Stand for one job."""

    single.__annotations__ = {"argument": types_of_one(function)[0]}
    return single


def _annotation(function: Callable[..., Any]) -> Any:
    try:
        hints = typing.get_type_hints(inspect.unwrap(function), include_extras=True)
    except Exception:  # noqa: BLE001 -- evaluating an annotation runs whatever the user wrote there
        return Any
    names = list(inspect.signature(function).parameters)
    return hints.get(names[0], Any) if names else Any


def _is_list_of_items(annotation: Any) -> bool:
    if annotation is list:
        return True
    if typing.get_origin(annotation) not in {list, collections.abc.Sequence}:
        return False
    (item,) = typing.get_args(annotation)
    return item is Any or item is ChunkItem or typing.get_origin(item) is ChunkItem
