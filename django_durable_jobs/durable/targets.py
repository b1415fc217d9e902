"""What a durable call runs: a durable job, the name of one, or any other callable that has a name of its own.

A replay recognises calls by name, so everything that is called needs one that stays the same from attempt to
attempt, and tells it from its neighbours.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from .. import registry
from ..definitions import Definition, return_annotation
from ..errors import DefinitionError
from ..operations.checkpoints import LONGEST_NAME
from ..options import Options
from ..serialization import Codec
from .job import DurableJob


class Target(NamedTuple):
    """A callable, its recorded name, the codec of its result, and its definition's options if it is a durable job."""

    function: Callable[..., Any]
    name: str
    codec: Codec
    options: Options | None


# Weak: functions that a job makes anew each time must not stay, nor what they hold.
_known: WeakKeyDictionary[Callable[..., Any], tuple[str, Codec]] = WeakKeyDictionary()


def resolve(target: object) -> Target:
    """Describe what is to be called; ``DefinitionError`` or ``UnknownDefinition`` if it cannot be."""
    if isinstance(target, DurableJob):
        return _of_definition(target.definition, target.options)
    if isinstance(target, str):
        definition = registry.get(target)
        return _of_definition(definition, definition.options)
    if not callable(target):
        raise DefinitionError(f"call() needs a function or the name of a durable job, not {type(target).__name__}.")
    inner: Any = target
    while isinstance(inner, functools.partial):
        inner = inner.func
    if isinstance(inner, DurableJob):
        return _of_definition(inner.definition, inner.options)._replace(function=target)
    return Target(target, *_describe(inner), None)


def _of_definition(definition: Definition, options: Options) -> Target:
    if definition.atomic:
        raise DefinitionError(
            f"{definition.name} is a job with atomic=True: its commit is its own completion, so it cannot be a call "
            "of another job. Make its function an @atomic_step, or enqueue it."
        )
    if definition.is_run:
        raise DefinitionError(
            f"call() cannot run the pipeline {definition.name}: it is a run with tries, hooks and a report of its own. "
            "Use gather(pipeline.s(...)), or enqueue it."
        )
    if definition.options.chunk is not None:
        raise DefinitionError(f"call() cannot run {definition.name}: it takes chunks of jobs. Enqueue it.")
    return Target(definition.function, definition.name, definition.result, options)


def _describe(target: Any) -> tuple[str, Codec]:
    """Name a callable and read its return annotation; remembered for functions, as it costs more than a call."""
    if inspect.ismethod(target):
        return _describe(target.__func__)
    if not (isinstance(target, type) or inspect.isroutine(target) or "__qualname__" in getattr(target, "__dict__", {})):
        # An object that can be called, known by its class.
        return _name(type(target)), Codec(return_annotation(type(target).__call__))
    try:
        return _known[target]
    except (KeyError, TypeError):
        pass
    # Calling a class gives an instance of it.
    found = _name(target), Codec(target if isinstance(target, type) else return_annotation(target))
    with suppress(TypeError):  # what cannot be hashed or referred to weakly is read each time
        _known[target] = found
    return found


def _name(source: Any) -> str:
    own = source.__qualname__
    if own.rpartition(".")[2] == "<lambda>":
        raise DefinitionError(
            "call() cannot take a lambda: it has no name by which a replay could tell it from another one. "
            "Use a function defined with def, or functools.partial of one."
        )
    module = getattr(source, "__module__", None) or "builtins"
    return f"{module}.{own}"[:LONGEST_NAME]
