"""The arguments of a call: checked against the function's signature, stored as text, given back.

Here: ``ArgumentCodec``. Not here: how one value is stored (``codec``), what a definition is (``definitions``).

A definition is compiled once, at its first use: annotations may name classes that are imported later than the
function. After that a call with plain arguments costs a few dictionary look-ups and one run of msgspec.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, NamedTuple, NoReturn, cast

from django_durable_jobs.errors import ArgumentError, SerializationError
from django_durable_jobs.rendering import safe_repr

from .codec import Codec, describe
from .reading import parse
from .signatures import POSITIONAL, Plan
from .values import Tagger, encode_plain, finish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class _Given(NamedTuple):
    """One argument and what is known of its parameter."""

    codec: Codec
    settled: frozenset[type] | None
    name: str
    what: str
    value: object


class ArgumentCodec:
    """Store and restore the arguments of one function.

    Keyword arguments are a JSON object by name; positional ones, if there are any, a list under ``"*"``. The
    text is made at once, so changing an argument afterwards changes nothing. Works for ``async def`` and for
    functions wrapped with ``functools.wraps``. Instances are safe to share between threads.
    """

    def __init__(self, function: Callable[..., object], name: str, *, skip: int = 0) -> None:
        """Take the function and its name in messages; ``skip`` leading parameters are not the caller's to give."""
        self._function = function
        self._name = name
        self._skip = skip
        self._plan: Plan | None = None

    def dump(self, args: tuple[object, ...], kwargs: dict[str, object], limit: int) -> str:
        """Return the arguments as JSON text of at most ``limit`` bytes.

        Raises ``ArgumentError`` if they do not fit the signature or an annotation that msgspec understands
        (strictly: no conversion, except that an int is a float and the plain form of an enum or dataclass is
        that class), and ``SerializationError`` for a value that cannot be stored.
        """
        plan = self._plan or self._compile()
        fits = plan.fits
        count = len(args)
        if count >= len(fits) and plan.rest is None:
            self._reject(plan, args, kwargs)
        fit = fits[count] if count < len(fits) else fits[-1]
        keys = kwargs.keys()
        if not ((keys == fit.required and not fit.lacking) or fit.accepts(keys)):
            self._reject(plan, args, kwargs)
        payload = kwargs
        if args:
            payload = {POSITIONAL: list(args), **kwargs}
            for index, value in enumerate(args):
                kinds = plan.settled[plan.name_at(index)]
                if kinds is not None and type(value) not in kinds:
                    return self._dump_in_full(plan, args, kwargs, payload, limit)
        settled, settled_extra = plan.settled_by_keyword, plan.settled_extra
        for name, value in kwargs.items():
            kinds = settled.get(name, settled_extra)
            if kinds is not None and type(value) not in kinds:
                return self._dump_in_full(plan, args, kwargs, payload, limit)
        return encode_plain(payload, limit) or self._dump_in_full(plan, args, kwargs, payload, limit)

    def load(self, text: str) -> tuple[tuple[object, ...], dict[str, object]]:
        """Return positional and keyword arguments as they were given, annotated classes included.

        The function may have changed since: raises ``ArgumentError`` if the arguments do not fit its signature any
        more, and ``SerializationError`` with the name and the reason if the text cannot be read.
        """
        try:
            payload = parse(text)
            if type(payload) is not dict:
                message = f"The stored arguments are not an object: {safe_repr(payload, 80)}."
                raise SerializationError(message)  # noqa: TRY301 -- the handler adds the name
            if '"$' in text:
                payload = self._untag(payload)
            positional = payload.pop(POSITIONAL, ())
            if type(positional) is list:
                positional = tuple(positional)
            elif positional != ():
                message = f"The positional arguments are not a list: {safe_repr(positional, 80)}."
                raise SerializationError(message)  # noqa: TRY301 -- as above
        except SerializationError as error:
            message = f"{self._name}: {error}"
            raise SerializationError(message) from error
        plan = self._plan or self._compile()
        count = len(positional)
        if count < len(plan.fits):
            fit = plan.fits[count]
            if not fit.lacking and (payload.keys() == fit.required or fit.accepts(payload.keys())):
                return positional, payload
        elif plan.rest is not None and plan.fits[-1].accepts(payload.keys()):
            return positional, payload
        try:
            self._reject(plan, positional, payload)
        except ArgumentError as error:
            message = f"The stored arguments do not fit the function any more: {error}"
            raise ArgumentError(message) from None

    def _untag(self, payload: dict[str, object]) -> dict[str, object]:
        plan = self._plan or self._compile()
        if len(payload) == 1 and type(payload.get("$dict")) is dict:
            payload = cast("dict[str, object]", payload["$dict"])
        elif any(name[0:1] == "$" for name in payload):
            message = f"A tag stands where the arguments should be: {safe_repr(payload, 80)}."
            raise SerializationError(message)
        restored: dict[str, object] = {}
        for name, node in payload.items():
            if name == POSITIONAL and type(node) is list:
                restored[name] = [
                    _restore(plan.codec_at(index), item, plan.name_at(index)) for index, item in enumerate(node)
                ]
            else:
                restored[name] = _restore(plan.codec_of(name), node, name)
        return restored

    def _dump_in_full(
        self,
        plan: Plan,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        payload: dict[str, object],
        limit: int,
    ) -> str:
        if not all(isinstance(name, str) for name in kwargs):
            raise ArgumentError(f"{self._name}: names of arguments must be strings, got {safe_repr(list(kwargs), 80)}.")
        given = list(_given(plan, args, kwargs))
        if not any(codec.restores_classes for codec, *_ in given):
            self._check(given)
            text = encode_plain(payload, limit)
            if text is not None:
                return text
        trees = []
        for codec, settled, name, what, value in given:
            try:
                if settled is None or type(value) in settled:
                    trees.append(codec.tree(value, limit, what))
                else:
                    trees.append(codec.argument_tree(value, limit, what))
            except ValueError as error:
                self._mismatch(codec, name, value, error)
        tagger = Tagger(limit, f"the name of an argument of {self._name}")
        named = {tagger.string(name): tree for name, tree in zip(kwargs, trees[len(args) :], strict=True)}
        tree: dict[str, object] = {POSITIONAL: trees[: len(args)], **named} if args else named
        if any(name[0:1] == "$" for name in named):
            tree = {"$dict": tree}
        return finish(tree, limit, f"the arguments of {self._name}")

    def _check(self, given: list[_Given]) -> None:
        for codec, settled, name, _, value in given:
            if settled is not None and type(value) not in settled:
                try:
                    codec.check(value)
                except ValueError as error:
                    self._mismatch(codec, name, value, error)

    def _mismatch(self, codec: Codec, name: str, value: object, error: ValueError) -> NoReturn:
        message = (
            f"{self._name}: parameter {name!r} expects {describe(codec.annotation)}, got {safe_repr(value, 80)} "
            f"({type(value).__name__}): {error}."
        )
        raise ArgumentError(message) from error

    def _reject(self, plan: Plan, args: tuple[object, ...], kwargs: dict[str, object]) -> NoReturn:
        fit = plan.fits[min(len(args), len(plan.fits) - 1)]
        faults = []
        if len(args) >= len(plan.fits) and plan.rest is None:
            faults.append(f"{len(args)} positional arguments, at most {len(plan.positional)} are taken")
        missing = [*fit.lacking, *(name for name in plan.order if name in fit.required and name not in kwargs)]
        if missing:
            faults.append("missing: " + ", ".join(map(repr, missing)))
        for name in kwargs:
            if name in fit.taken:
                faults.append(f"{name!r} is given twice")
            elif name == POSITIONAL:
                faults.append("'*' cannot be a keyword")
            elif fit.allowed is not None and name not in fit.allowed:
                near = difflib.get_close_matches(str(name), fit.allowed, 1)
                faults.append(f"unexpected: {safe_repr(name, 80)}" + (f" (did you mean {near[0]!r}?)" if near else ""))
        raise ArgumentError(f"{self._name}({plan.outline}) does not take these arguments; {'; '.join(faults)}.")

    def _compile(self) -> Plan:
        self._plan = plan = Plan(self._function, self._skip)
        return plan


def _given(plan: Plan, args: tuple[object, ...], kwargs: dict[str, object]) -> Iterator[_Given]:
    for index, value in enumerate(args):
        name = plan.name_at(index)
        beyond = index - len(plan.positional)
        what = f"args.{name}" + (f"[{beyond}]" if beyond >= 0 else "")
        yield _Given(plan.codec_at(index), plan.settled[name], name, what, value)
    for name, value in kwargs.items():
        settled = plan.settled_by_keyword.get(name, plan.settled_extra)
        yield _Given(plan.codec_of(name), settled, name, f"args.{name}", value)


def _restore(codec: Codec, node: object, name: str) -> object:
    try:
        return codec.restore(node)
    except SerializationError as error:
        message = f"argument {name!r}: {error}"
        raise SerializationError(message) from error
