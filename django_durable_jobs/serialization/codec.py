"""Values with an annotation: dataclasses, enum members and named tuples come back as what they were.

Here: what msgspec knows of one annotation, the proof that a value returns, and the check of an argument. Not
here: signatures (``arguments``), tags (``values``, ``reading``).
"""

from __future__ import annotations

import dataclasses
import types
import typing
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from inspect import Parameter
from typing import cast
from uuid import UUID

import msgspec
import msgspec.inspect

from django_durable_jobs.errors import SerializationError
from django_durable_jobs.rendering import safe_repr

from .reading import Untagger, parse
from .values import Tagger, encode_plain, finish

# Types that msgspec is to leave alone: a str is no datetime here, as tags have done that work already.
_NATIVE = (bytes, bytearray, datetime, date, time, timedelta, UUID, Decimal)

_UNANNOTATED = (Parameter.empty, typing.Any, object)

_SIMPLE: dict[object, frozenset[type]] = {
    kind: frozenset({kind})
    for kind in (int, str, bool, type(None), list, dict, tuple, set, frozenset, bytes, date, time, datetime)
} | {float: frozenset({float, int}), timedelta: frozenset({timedelta}), UUID: frozenset({UUID})}


@dataclasses.dataclass(frozen=True, slots=True)
class _Member:
    """An annotation, or one alternative of it, that msgspec understands."""

    annotation: object
    has_classes: bool
    exact: bool  # converting a fitting value gives an equal one; not so for abstract collections


class Codec:
    """Encode and decode values of one annotation, such as the return annotation of a function.

    Classes come back only where the annotation names them. A value that holds one is proven at encoding by
    reading it back; plain values never pay for that. An annotation that msgspec does not know counts as none.
    """

    def __init__(self, annotation: object = Parameter.empty) -> None:
        """Take the annotation, with names resolved; ``inspect.Parameter.empty`` is none."""
        annotation = type(None) if annotation is None else annotation
        self.annotation = annotation
        self._members, self.checked = _members(annotation)
        self._with_classes = [member for member in self._members if member.has_classes]
        #: Types whose values need no check and no proof; ``None`` where there is nothing to check at all.
        self.settled = _settled(annotation) if self.checked or self._with_classes else None

    @property
    def restores_classes(self) -> bool:
        """Whether the annotation names a dataclass, an enum or a named tuple."""
        return bool(self._with_classes)

    def encode(self, value: object, *, limit: int, what: str = "value") -> str:
        """Return ``value`` as JSON text of at most ``limit`` bytes.

        What comes back from ``decode`` is equal and of the same types, classes included; a value for which
        that does not hold is refused. Raises ``SerializationError`` as the function ``encode`` does.
        """
        text = encode_plain(value, limit)
        return text if text is not None else finish(self.tree(value, limit, what), limit, what)

    def decode(self, text: str) -> object:
        """Return the value. Raises ``SerializationError`` if the text cannot be read, or fits its class no more."""
        node = parse(text)
        return self.restore(node) if '"$' in text else node

    def tree(self, value: object, limit: int, what: str) -> object:
        """Return ``value`` as plain JSON with tags, proven to come back."""
        tagger = Tagger(limit, what, classes=bool(self._with_classes))
        tree = tagger.tag(value)
        if tagger.found_classes:
            try:
                back = self.restore(tree)
            except SerializationError as error:
                tagger.refuse(value, f"It would not come back as {describe(self.annotation)}: {error}")
            if not _same(value, back):
                shown = safe_repr(back, 80)
                tagger.refuse(value, f"Read by its annotation {describe(self.annotation)} it would be {shown}.")
        return tree

    def restore(self, node: object) -> object:
        """Return the value of parsed JSON with tags. A class is rebuilt only where the data carries its tag."""
        untagger = Untagger(classes=bool(self._with_classes))
        plain = untagger.untag(node)
        if not untagger.found_classes:
            return plain
        return self._convert(plain)

    def argument_tree(self, value: object, limit: int, what: str) -> object:
        """As ``tree``, but checked against the annotation first; a plain form of a class counts as that class.

        So ``"red"`` given for an enum, by the HTTP interface for instance, is stored as its member. Raises
        ``ValueError`` with the reason if the value does not fit.
        """
        if not self._with_classes or (self.settled is not None and type(value) in self.settled):
            self.check(value)
            return self.tree(value, limit, what)
        tagger = Tagger(limit, what, classes=True)
        tree = tagger.tag(value)
        if tagger.found_classes:
            return self.tree(value, limit, what)
        plain = Untagger().untag(tree)
        if any(_reason(member, plain) is None for member in self._members if not member.has_classes):
            return tree
        try:
            member = self._convert(plain)
        except SerializationError as error:
            if not self.checked:
                return tree
            raise ValueError(str(error)) from error
        return self.tree(member, limit, what)

    def check(self, value: object) -> None:
        """Raise ``ValueError`` with the reason if ``value`` does not fit; do nothing where there is no check."""
        if not self.checked or (self.settled is not None and type(value) in self.settled):
            return
        reasons = [_reason(member, value) for member in self._members]
        if None not in reasons:
            raise ValueError(reasons[0] if len(reasons) == 1 else "no alternative fits")

    def _convert(self, plain: object) -> object:
        reason = "its annotation names no class"
        for member in self._with_classes:
            try:
                return cast("object", msgspec.convert(plain, member.annotation, builtin_types=_NATIVE))
            except Exception as error:  # noqa: BLE001 -- __post_init__ and _missing_ are user code
                reason = f"{error}"
        message = f"The value does not fit {describe(self.annotation)} ({reason}): {safe_repr(plain, 80)}."
        raise SerializationError(message)


def describe(annotation: object) -> str:
    """Return an annotation as a reader would write it."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return "None" if annotation is type(None) else annotation.__qualname__
    return safe_repr(annotation, 200).replace("typing.", "")


def _members(annotation: object) -> tuple[list[_Member], bool]:
    """Return the alternatives that msgspec understands, and whether those are all there are."""
    if any(annotation is none for none in _UNANNOTATED):
        return [], False
    try:
        info = msgspec.inspect.type_info(annotation)
    except Exception:  # noqa: BLE001 -- an annotation may be anything; unknown to msgspec means unchecked
        if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
            return [], False
        # msgspec knows no `datetime | str` or `Point | dict`: two alternatives that look alike in JSON.
        parts = [_members(part) for part in typing.get_args(annotation)]
        return [member for members, _ in parts for member in members], all(checked for _, checked in parts)
    found = _find(info)
    exact = not any(isinstance(part, msgspec.inspect.CollectionType | msgspec.inspect.DictType) for part in found)
    exact = exact or "collections.abc" not in repr(annotation)
    return [_Member(annotation, any(map(_is_class, found)), exact)], True


def _is_class(part: object) -> bool:
    if isinstance(part, msgspec.inspect.CustomType):  # so msgspec describes an enum with a metaclass: TextChoices
        return isinstance(part.cls, type) and Enum in part.cls.__mro__
    return isinstance(part, msgspec.inspect.EnumType | msgspec.inspect.DataclassType | msgspec.inspect.NamedTupleType)


def _find(info: msgspec.inspect.Type) -> list[object]:
    """Return all parts of a description by msgspec; a recursive type is entered once."""
    seen: dict[int, object] = {}
    waiting: list[object] = [info]
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen[id(part)] = part
        for name in getattr(part, "__struct_fields__", ()):
            content = getattr(part, name)
            inner = content if isinstance(content, tuple) else (content,)
            waiting.extend(i for i in inner if isinstance(i, msgspec.inspect.Type | msgspec.inspect.Field))
    return list(seen.values())


def _settled(annotation: object) -> frozenset[type]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return frozenset().union(*(_settled(part) for part in typing.get_args(annotation)))
    return _SIMPLE.get(annotation, frozenset()) if isinstance(annotation, type) else frozenset()


def _reason(member: _Member, value: object) -> str | None:
    """Return why ``value`` does not fit, or ``None``."""
    try:
        converted = msgspec.convert(value, member.annotation, builtin_types=_NATIVE)
        if not member.exact or bool(converted == value):
            return None
    except msgspec.ValidationError as error:
        return str(error)
    except Exception:  # noqa: BLE001 -- isinstance() against a foreign class, a foreign __eq__: no check
        return None
    return f"converting it would give {safe_repr(converted, 80)}"


def _same(value: object, back: object) -> bool:
    """Tell whether ``back`` is what ``value`` may come back as: equal, and of the same types all the way down."""
    kind = type(back)
    widened = kind is float and type(value) is int  # where the annotation says float
    if kind is not type(value) and not widened and not _is_plain_base(kind, type(value)):
        return False
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
        return all(_same(getattr(value, name), getattr(back, name)) for name in names)
    if isinstance(back, list | tuple):
        base = list if isinstance(back, list) else tuple
        items: list[object] = list(base.__iter__(value))  # type: ignore[arg-type]  # value is of the same kind, see above
        return len(items) == len(back) and all(map(_same, items, back))
    if isinstance(back, dict):
        entries = dict(dict.items(cast("dict[object, object]", value)))
        return entries.keys() == back.keys() and all(_same(entries[key], back[key]) for key in back)
    if isinstance(back, set | frozenset):
        typed = [{(type(item), item) for item in items} for items in (cast("set[object]", value), back)]
        return typed[0] == typed[1]
    return bool(value == back)


def _is_plain_base(base: type, kind: type) -> bool:
    """Tell whether values of ``kind`` are stored as ``base``, its plain base."""
    return base in _SIMPLE and base in kind.__mro__ and Enum not in kind.__mro__ and not hasattr(kind, "_fields")
