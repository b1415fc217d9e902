"""What is known about a decorated function.

Pure data: no database, no registry, no running. Its options are in ``options.py``.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from .chunks import check_chunk_function, function_of_one, types_of_one
from .errors import DefinitionError, OptionError
from .options import Options, given_not_for_decorator, shown
from .serialization import ArgumentCodec, Codec

NAME_PATTERN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,199}")


@dataclass(frozen=True, eq=False)
class Definition:
    """A function that can be stored by name and run later.

    ``place`` is file and line, for messages; ``options`` are the decorator's.
    """

    name: str
    function: Callable[..., Any]
    options: Options
    is_async: bool
    place: str
    atomic: bool = False
    """Whether the job's own writes and its completion are one commit."""
    api: bool = False
    """Whether it can be enqueued over HTTP."""

    @property
    def is_run(self) -> bool:
        """Whether it is a pipeline, whose job is a run of tasks with a report of its own."""
        return False

    @functools.cached_property
    def arguments(self) -> ArgumentCodec:
        """How the function's arguments are checked, stored and read; built at the first use."""
        single = self.function if self.options.chunk is None else function_of_one(self.function)
        return ArgumentCodec(single, self.name)

    @functools.cached_property
    def result(self) -> Codec:
        """How the function's result is stored and read; from its return annotation."""
        if self.options.chunk is not None:
            return Codec(types_of_one(self.function)[1])
        return Codec(return_annotation(self.function))


def return_annotation(function: Callable[..., Any]) -> Any:
    """Return the resolved return annotation of a function; ``Any`` when there is none to be had."""
    try:
        hints = inspect.get_annotations(inspect.unwrap(function), eval_str=True)
    except (NameError, TypeError, AttributeError, SyntaxError):
        return Any
    return hints.get("return", Any)


def define(
    function: Callable[..., Any],
    *,
    name: str | None = None,
    atomic: object = False,
    api: object = False,
    options: Mapping[str, object],
) -> Definition:
    """Check a decorated function and its options, and describe it; ``DefinitionError`` says what to change."""
    if isinstance(function, (staticmethod, classmethod)):
        raise DefinitionError("Put @durable_job on a plain function: static and class methods are not supported.")
    if not inspect.isfunction(function):
        raise DefinitionError(f"@durable_job needs a function defined with def, not {type(function).__name__}.")
    inner = inspect.unwrap(function)
    if not inspect.isfunction(inner):
        raise DefinitionError(f"{function.__qualname__} wraps {type(inner).__name__}: @durable_job needs a function.")
    if "<" in function.__qualname__ or "." in function.__qualname__:
        raise DefinitionError(
            f"{function.__module__}.{function.__qualname__} must be a function at module level "
            "(no lambda, nested function or method): a worker has to find it by its name."
        )
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        raise DefinitionError(
            f"{function.__qualname__} is a generator: durable jobs return a value, they do not yield."
        )
    for option in given_not_for_decorator(options):
        raise DefinitionError(
            f"{option!r} belongs to one enqueue: {function.__name__}.using({option}=...).enqueue(...)."
        )
    is_async = inspect.iscoroutinefunction(function)
    check_atomic(atomic, function.__qualname__, is_async=is_async)
    if not isinstance(api, bool):
        raise OptionError(f"api must be True or False, not {shown(api)}.")
    full_name = f"{function.__module__}.{function.__qualname__}" if name is None else name
    if not isinstance(full_name, str) or not NAME_PATTERN.fullmatch(full_name):
        raise DefinitionError(f"name {shown(full_name)} does not match {NAME_PATTERN.pattern}.")
    checked = Options().changed(options)
    if checked.chunk is not None:
        check_chunk_function(function, atomic=bool(atomic))
    return Definition(
        name=full_name,
        function=function,
        options=checked,
        is_async=is_async,
        place=f"{inner.__code__.co_filename}:{inner.__code__.co_firstlineno}",
        atomic=bool(atomic),
        api=api,
    )


def check_atomic(atomic: object, name: str, *, is_async: bool) -> None:
    """Refuse an ``atomic`` that is no bool, and one where there can be no transaction."""
    if not isinstance(atomic, bool):
        raise OptionError(f"atomic must be True or False, not {shown(atomic)}.")
    if atomic and is_async:
        raise DefinitionError(
            f"{name} is async: atomic=True needs a function defined with def, since a transaction belongs to one "
            "thread. In an async job use @atomic_step for the part that writes."
        )
