"""Any storable value to self-describing JSON text and back.

Here: ``encode`` and ``decode``, and the two walks behind them (``Tagger`` puts one-key tag objects around
what JSON lacks, ``Untagger`` takes them off). Not here: scalar formats (``tags``), annotations (``codec``).

A plain value is proven plain by one cheap pass and handed to msgspec; only others are walked in full. msgspec
alone would write NaN as null, 1 and "1" as one key, and a tuple or datetime as what does not come back.
"""

from __future__ import annotations

import dataclasses
from enum import Enum
from math import isfinite
from typing import TYPE_CHECKING, Any, NoReturn, cast

import msgspec

from django_durable_jobs.errors import SerializationError
from django_durable_jobs.rendering import safe_repr

from .tags import INT_HIGHEST, INT_LOWEST, READERS, UNREADABLE, WRITERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MAX_DEPTH = 100

ALLOWED = (
    "Allowed are None, bool, int, float, str, list, dict with str keys, tuple, set, frozenset, bytes, datetime, "
    "date, time, timedelta, Decimal and UUID; and dataclasses, enum members and named tuples where an annotation "
    "names their class."
)

to_json = msgspec.json.Encoder().encode
from_json = msgspec.json.Decoder().decode

_UNCHECKED = frozenset({str, bool, type(None)})
_CONTAINERS = frozenset({dict, list})
_STRINGS = frozenset({str})
_SHOWN_STEPS = 20  # of the path in a message

# Known by name, so that nothing of Django has to be imported to refuse it.
_ADVICE = {
    "django.db.models.base.Model": "It is a model instance: pass its primary key and fetch it in the job.",
    "django.db.models.query.QuerySet": "It is a QuerySet: pass a list of primary keys.",
    "django.db.models.manager.BaseManager": "It is a model manager: pass a list of primary keys.",
    "django.utils.functional.Promise": "It is a lazy string: pass str(value), or translate in the job.",
    "django.utils.functional.LazyObject": "It is a lazy object: pass what it stands for, for a user the primary key.",
    "django.core.files.utils.FileProxyMixin": "It is a file: save it to a storage and pass its name.",
    "io.IOBase": "It is a file: save it and pass its name.",
    "_io._IOBase": "It is a file: save it and pass its name.",
}


def encode(value: object, *, limit: int, what: str = "value") -> str:
    """Return ``value`` as JSON text from which ``decode`` rebuilds it, equal and of the same types.

    Guarantees: floats come back bit for bit (``-0.0``, ``1e22``), no data can be taken for a tag, and the text
    holds no class name. A subclass of a built-in type is stored as the plain base value, read with the methods
    of the base. Raises ``SerializationError`` naming the place (from ``what`` on), the value and what is allowed,
    for NaN, infinities, NUL, lone surrogates, keys that are not strings, nesting over 100 levels, any type
    outside the table, and a text over ``limit`` bytes (UTF-8).
    """
    text = encode_plain(value, limit)
    return text if text is not None else finish(Tagger(limit, what).tag(value), limit, what)


def encode_plain(value: object, limit: int) -> str | None:
    """Return the text of a value that is plain JSON and needs no tag; ``None`` asks for the full walk."""
    if not _is_plain(value, limit):
        return None
    try:
        raw = to_json(value)
    except ValueError:  # a lone surrogate; the walk says where
        return None
    if len(raw) > limit or b'"$' in raw or b"\\u0000" in raw:
        return None
    return raw.decode()


def _is_plain(value: object, limit: int) -> bool:
    """Tell whether ``value`` consists of exact JSON types; strings are judged by their text afterwards.

    Level by level, without recursion, so that depth and cycles end by counting; ``limit`` bounds the number of
    containers, as one list in a thousand places would be walked a thousand times.
    """
    level: list[Any] = [value]
    if type(value) not in _CONTAINERS:
        return _scan(level, level)
    for _ in range(MAX_DEPTH):
        deeper: list[Any] = []
        for container in level:
            if type(container) is dict:
                if not (_STRINGS.issuperset(map(type, container)) and _scan(container.values(), deeper)):
                    return False
            elif not _scan(container, deeper):
                return False
        if not deeper:
            return True
        limit -= len(deeper)
        if limit < 0:
            return False
        level = deeper
    return False


def _scan(items: Iterable[Any], deeper: list[Any]) -> bool:
    """Tell whether ``items`` are plain scalars or containers; gather the containers in ``deeper``."""
    for item in items:
        kind = type(item)
        if kind in _UNCHECKED:
            continue
        if kind is int:
            if INT_LOWEST <= item <= INT_HIGHEST:
                continue
        elif kind is float:
            if isfinite(item):
                continue
        elif kind in _CONTAINERS:
            deeper.append(item)
            continue
        return False
    return True


def finish(tree: object, limit: int, what: str) -> str:
    """Return the text of a tree made by a ``Tagger``; refuse it if it is over ``limit`` bytes."""
    raw = to_json(tree)
    if len(raw) > limit:
        advice = "Store it elsewhere (a file, a row) and pass where it is."
        raise SerializationError(f"{what} takes {len(raw)} bytes as JSON, the limit is {limit}. {advice}")
    return raw.decode()


class Tagger:
    """One walk over one value, to a tree of plain JSON with tags.

    ``classes`` lets enum members, dataclasses and named tuples pass; ``found_classes`` tells whether there were
    any, in which case the caller has to prove that they come back.
    """

    def __init__(self, limit: int, what: str, *, classes: bool = False) -> None:
        """Take the limit in bytes, which also bounds the walk, and how the value is called in messages."""
        self._limit = self._left = limit
        self._what = what
        self._classes = classes
        self._path: list[str] = []
        self.found_classes = False

    def tag(self, value: object) -> object:
        """Return the tree, or raise ``SerializationError``."""
        kind = type(value)
        self._left -= 1  # every node takes at least one byte
        if self._left < 0:
            raise SerializationError(f"{self._what} takes more than {self._limit} bytes as JSON, which is the limit.")
        handler = _HANDLERS.get(kind)
        if handler is not None:
            return handler(self, value)
        return self._subclass(kind, value)

    def _subclass(self, kind: type, value: object) -> object:
        # The MRO, not isinstance(): a lazy object claims the class of what it wraps.
        if Enum in kind.__mro__:
            otherwise = " (its values must be all str or all int), or pass its .value"
            self._need_annotation(value, "an enum member", otherwise)
            return {"$enum": self.tag(cast("Enum", value).value)}
        if dataclasses.is_dataclass(kind):
            self._need_annotation(value, "a dataclass instance", ", or pass a dict")
            fields = [(field.name, getattr(value, field.name)) for field in dataclasses.fields(kind)]
            return {"$dataclass": self._items(fields, value)}
        if tuple in kind.__mro__ and hasattr(kind, "_fields"):
            self._need_annotation(value, "a named tuple", ", or pass tuple(value)")
            return {"$namedtuple": self._list(tuple.__iter__(cast("tuple[object, ...]", value)), value)}
        for base in kind.__mro__:
            handler = _HANDLERS.get(base)
            if handler is not None:
                tree = handler(self, value)
                if base in WRITERS and not _same_scalar(tree, value):
                    self.refuse(value, f"This {kind.__name__} holds more than its base {base.__name__} can keep.")
                return tree
            advice = _ADVICE.get(f"{base.__module__}.{base.__qualname__}")
            if advice is not None:
                self.refuse(value, advice)
        return self.refuse(value, f"The type {kind.__name__} is not one that is stored.")

    def string(self, value: object) -> str:
        """Return a plain str that every database takes."""
        text = str.__str__(cast("str", value))
        if "\0" in text:
            self.refuse(value, "It contains a NUL character, which PostgreSQL cannot store.")
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                self.refuse(value, "It contains a lone surrogate, which is not valid Unicode text.")
        return text

    def integer(self, value: object) -> object:
        """Return a plain int, or a tag where other JSON readers would round it."""
        number = int.__int__(cast("int", value))
        return number if INT_LOWEST <= number <= INT_HIGHEST else {"$int": hex(number)}

    def number(self, value: object) -> float:
        """Return a plain finite float."""
        number = float.__float__(cast("float", value))
        if not isfinite(number):
            self.refuse(value, "NaN and infinities are not stored: JSON has no words for them.")
        return number

    def mapping(self, value: object) -> dict[str, object]:
        """Return a plain dict, inside a tag if one of its keys could be taken for one."""
        tree = self._items(dict.items(cast("dict[object, object]", value)), value)
        return {"$dict": tree} if any(key[0:1] == "$" for key in tree) else tree

    def sequence(self, value: object) -> list[object]:
        """Return a plain list."""
        return self._list(list.__iter__(cast("list[object]", value)), value)

    def fixed(self, value: object) -> dict[str, object]:
        """Return a tagged list."""
        return {"$tuple": self._list(tuple.__iter__(cast("tuple[object, ...]", value)), value)}

    def unordered(self, value: object) -> dict[str, object]:
        """Return a tagged list in the order of its JSON, so that equal sets give equal texts."""
        base = set if set in type(value).__mro__ else frozenset
        elements = self._list(base.__iter__(value), value)  # type: ignore[arg-type]  # mypy: set.__iter__ only
        return {f"${base.__name__}": sorted(elements, key=to_json)}

    def refuse(self, value: object, reason: str) -> NoReturn:
        """Raise the error for a value at the current place."""
        place = self._what + "".join(self._path[:_SHOWN_STEPS]) + ("…" if len(self._path) > _SHOWN_STEPS else "")
        raise SerializationError(f"{place} cannot be stored. {reason} Given: {safe_repr(value, 80)}. {ALLOWED}")

    def _need_annotation(self, value: object, kind: str, otherwise: str) -> None:
        self.found_classes = True
        if not self._classes:
            self.refuse(value, f"It is {kind} of {type(value).__name__}: annotate it with this class{otherwise}.")

    def _list(self, items: Iterable[object], value: object) -> list[object]:
        self._check_depth(value)
        tree = []
        for index, item in enumerate(items):
            self._path.append(f"[{index}]")
            tree.append(self.tag(item))
            self._path.pop()
        return tree

    def _items(self, items: Iterable[tuple[object, object]], value: object) -> dict[str, object]:
        self._check_depth(value)
        tree: dict[str, object] = {}
        for key, item in items:
            if str not in type(key).__mro__ or Enum in type(key).__mro__:
                self.refuse(key, "Keys of a dict must be strings.")
            name = self.string(key)
            if name in tree:
                self.refuse(key, "Two keys of the dict are the same string.")
            self._path.append(f".{name}" if name.isidentifier() else f"[{safe_repr(name, 40)}]")
            tree[name] = self.tag(item)
            self._path.pop()
        return tree

    def _check_depth(self, value: object) -> None:
        if len(self._path) >= MAX_DEPTH:
            self.refuse(value, f"It is nested more than {MAX_DEPTH} levels deep, or contains itself.")


def _same_scalar(tree: object, value: object) -> bool:
    ((tag, payload),) = cast("dict[str, object]", tree).items()
    try:
        return bool(READERS[tag](payload) == value)
    except Exception:  # noqa: BLE001 -- a foreign __eq__ may raise anything; then nothing is proven
        return False


def _scalar(tag: str, write: Callable[[object], object]) -> Callable[[Tagger, object], object]:
    def handler(tagger: Tagger, value: object) -> object:
        try:
            return {tag: write(value)}
        except UNREADABLE as error:
            tagger.refuse(value, f"{str(error)[:1].upper()}{str(error)[1:]}.")

    return handler


_HANDLERS: dict[type, Callable[[Tagger, object], object]] = {
    type(None): lambda _, value: value,
    bool: lambda _, value: value,
    str: Tagger.string,
    int: Tagger.integer,
    float: Tagger.number,
    list: Tagger.sequence,
    dict: Tagger.mapping,
    tuple: Tagger.fixed,
    set: Tagger.unordered,
    frozenset: Tagger.unordered,
} | {kind: _scalar(tag, write) for kind, (tag, write) in WRITERS.items()}
