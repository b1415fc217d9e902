"""A function's signature, compiled for checking calls.

Here: which arguments a call must and may have, and the codec of each parameter. Not here: storing (``arguments``).
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from inspect import Parameter
from typing import TYPE_CHECKING

from .codec import Codec

if TYPE_CHECKING:
    from collections.abc import Callable, KeysView, Mapping

POSITIONAL = "*"  # the key of positional arguments; no parameter can have this name

_BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_BY_KEYWORD = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
_PLAIN = Codec()


@dataclasses.dataclass(frozen=True, slots=True)
class Fit:
    """What the keywords must be, given the number of positional arguments."""

    required: frozenset[str]
    allowed: frozenset[str] | None  # None: any, there is a **parameter
    taken: frozenset[str]
    lacking: tuple[str, ...]  # positional-only parameters without a value

    def accepts(self, keys: KeysView[str]) -> bool:
        """Tell whether a call with these keywords would reach the function."""
        if self.lacking or not self.required <= keys:
            return False
        if self.allowed is None:
            return POSITIONAL not in keys and keys.isdisjoint(self.taken)
        return keys <= self.allowed


class Plan:
    """A compiled signature.

    ``fits[n]`` is for n positional arguments; ``settled`` has, by name, the types that need no check.
    """

    def __init__(self, function: Callable[..., object], skip: int) -> None:
        """Read the signature without its first ``skip`` parameters. Raises ``ValueError`` if there is none."""
        parameters = list(inspect.signature(function).parameters.values())[skip:]
        hints = _hints(function)
        self.outline = _outline(parameters)
        self.positional = tuple(p.name for p in parameters if p.kind in _BY_POSITION)
        self.rest = next((p.name for p in parameters if p.kind is Parameter.VAR_POSITIONAL), None)
        self._extra = next((p.name for p in parameters if p.kind is Parameter.VAR_KEYWORD), None)
        self.order = tuple(p.name for p in parameters)
        self.fits = tuple(self._fit(parameters, count) for count in range(len(self.positional) + 1))
        codecs = {p.name: Codec(hints.get(p.name, Parameter.empty)) for p in parameters}
        self.settled = {p.name: _settled(p, codecs[p.name]) for p in parameters if p.kind is not Parameter.VAR_KEYWORD}
        self.settled_extra = codecs[self._extra].settled if self._extra else None
        self._by_position = {p.name: codecs[p.name] for p in parameters if p.kind is not Parameter.VAR_KEYWORD}
        self._by_keyword = {p.name: codecs[p.name] for p in parameters if p.kind in _BY_KEYWORD}
        self._codec_of_extra = codecs[self._extra] if self._extra else _PLAIN
        self.settled_by_keyword = {name: self.settled[name] for name in self._by_keyword}

    def name_at(self, index: int) -> str:
        """Return the parameter that takes the positional argument ``index``; empty if there is none."""
        return self.positional[index] if index < len(self.positional) else self.rest or ""

    def codec_at(self, index: int) -> Codec:
        """Return the codec of a positional argument."""
        return self._by_position.get(self.name_at(index), _PLAIN)

    def codec_of(self, keyword: str) -> Codec:
        """Return the codec of a keyword argument."""
        return self._by_keyword.get(keyword, self._codec_of_extra)

    def _fit(self, parameters: list[Parameter], count: int) -> Fit:
        unbound = [p for p in parameters if p.name not in self.positional[:count]]
        bound = [p for p in parameters if p.name in self.positional[:count]]
        return Fit(
            required=frozenset(p.name for p in unbound if p.kind in _BY_KEYWORD and p.default is Parameter.empty),
            allowed=None if self._extra else frozenset(p.name for p in unbound if p.kind in _BY_KEYWORD),
            taken=frozenset(p.name for p in bound if p.kind in _BY_KEYWORD),
            lacking=tuple(
                p.name for p in unbound if p.kind is Parameter.POSITIONAL_ONLY and p.default is Parameter.empty
            ),
        )


def _settled(parameter: Parameter, codec: Codec) -> frozenset[type] | None:
    # `n: int = None` is an old habit, and the default must be allowed to be passed.
    if codec.settled is not None and parameter.default is None:
        return codec.settled | {type(None)}
    return codec.settled


def _hints(function: Callable[..., object]) -> Mapping[str, object]:
    """Return the annotations that can be resolved; a name imported for type checkers only costs its own alone."""
    target = inspect.unwrap(function)
    try:
        return typing.get_type_hints(target, include_extras=True)
    except Exception:  # noqa: BLE001 -- evaluating an annotation runs whatever the user wrote there
        hints: dict[str, object] = {}
        namespace = getattr(target, "__globals__", {})
        for name, annotation in getattr(target, "__annotations__", {}).items():
            holder = type("holder", (), {"__annotations__": {name: annotation}})
            try:
                hints.update(typing.get_type_hints(holder, namespace, include_extras=True))
            except Exception:  # noqa: BLE001, S112 -- as above: this parameter counts as unannotated
                continue
        return hints


def _outline(parameters: list[Parameter]) -> str:
    """Return the parameters by name; defaults may be long or secret."""
    bare = [
        p.replace(annotation=Parameter.empty, default=p.default if p.default is Parameter.empty else ...)
        for p in parameters
    ]
    return str(inspect.Signature(bare))[1:-1].replace("=Ellipsis", "=…")
