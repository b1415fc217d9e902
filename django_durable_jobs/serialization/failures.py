"""Exceptions of durable calls, stored so that a replay raises what the first run raised.

Here: ``encode_error`` and ``decode_error``. Not here: tracebacks for people (``rendering``).

The text names a class, and a text may be forged. So nothing is imported because a text names it: the class must be
an ``Exception`` that this process has already; and neither its ``__new__`` nor its ``__init__`` runs, the instance
is made by the C type it derives from (``Exception``, ``OSError``, …).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakValueDictionary

from django_durable_jobs.errors import CallError, SerializationError
from django_durable_jobs.rendering import safe_str

from .reading import Untagger, parse
from .values import Tagger, to_json

if TYPE_CHECKING:
    from collections.abc import Iterator

_TEXT_LIMIT = 2_000  # characters of an argument that is stored as its text
_MESSAGE_LIMIT = 10_000
_DEPTH = 4  # errors and lists inside each other: Django's ValidationError with fields needs 3
_MOST_ITEMS = 100  # of one list
_MOST_PARTS = 500  # of one stored error, all told
_LEAST_LIMIT = 8 * 1024
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: the class was made by a class statement

_known: WeakValueDictionary[tuple[str, str], type[Exception]] = WeakValueDictionary()


def encode_error(exc: BaseException, *, limit: int = 256 * 1024) -> str:
    """Return ``exc`` as JSON text of at most ``limit`` bytes (8 KiB if that is more).

    Kept are the class's name, the message, ``args`` and those instance attributes that can be stored; an argument
    that cannot is replaced by its text, cut. Errors inside (an exception group, a ``ValidationError``) are kept
    four levels deep at most. Never kept: traceback, causes, local variables. Raises nothing because of ``exc``.
    """
    budget = max(limit, _LEAST_LIMIT)
    with suppress(Exception):  # attributes of a foreign class may be properties, and raise
        raw = to_json(_Writer(budget // 4).error(exc, ()))
        if len(raw) <= budget:
            return raw.decode()
    text = safe_str(exc, 300)
    return to_json({**_names(type(exc)), "message": text, "args": [{"text": text}], "state": {}}).decode()


def decode_error(text: str) -> Exception:
    """Return the exception stored by ``encode_error``, of the same class if this process has it.

    A class that is not known here, is no ``Exception``, or cannot be rebuilt gives a ``CallError`` with the
    recorded name and message. No code of the class runs. Raises ``SerializationError`` if the text is malformed.
    """
    form = parse(text)
    try:
        return _Reader().error(form, ())
    except SerializationError:
        raise
    except Exception as error:
        message = f"A stored error cannot be read: {safe_str(error, 80)}."
        raise SerializationError(message) from error


class _Writer:
    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._left = _MOST_PARTS

    def error(self, exc: BaseException, outer: tuple[BaseException, ...], depth: int = 0) -> dict[str, object]:
        args = BaseException.args.__get__(exc)  # type: ignore[attr-defined]  # a class may override .args
        if isinstance(exc, OSError) and len(args) == 2 and exc.filename is not None:  # noqa: PLR2004 -- errno, text
            args = (*args, exc.filename) if exc.filename2 is None else (*args, exc.filename, None, exc.filename2)
        inner = (*outer, exc)
        state = {}
        for key, value in list(getattr(exc, "__dict__", {}).items())[:_MOST_ITEMS]:
            item = self.item(value, inner, depth)
            if type(key) is str and key.isidentifier() and (item.keys() != {"text"} or _is_lazy(value)):
                state[key] = item
        return {
            **_names(type(exc)),
            "message": safe_str(exc, _MESSAGE_LIMIT),
            "args": [self.item(arg, inner, depth) for arg in args[:_MOST_ITEMS]],
            "state": state,
        }

    def item(self, value: object, outer: tuple[BaseException, ...], depth: int) -> dict[str, object]:
        self._left -= 1
        if self._left < 0:
            return {"text": safe_str(value, 100)}
        with suppress(Exception):  # broken values are what errors are made of; the text is always there
            return {"value": Tagger(self._limit, "value").tag(value)}
        for index, exc in enumerate(outer):
            if exc is value:
                return {"self": index}
        inside = self._inside(value, outer, depth + 1) if depth < _DEPTH else None
        return inside or {"text": safe_str(value, _TEXT_LIMIT)}

    def _inside(self, value: object, outer: tuple[BaseException, ...], depth: int) -> dict[str, object] | None:
        if BaseException in type(value).__mro__:
            return {"error": self.error(cast("BaseException", value), outer, depth)}
        if type(value) is list and len(value) <= _MOST_ITEMS:
            return {"list": [self.item(item, outer, depth) for item in value]}
        if type(value) is dict and len(value) <= _MOST_ITEMS and all(type(key) is str for key in value):
            return {"dict": {safe_str(key, 200): self.item(item, outer, depth) for key, item in value.items()}}
        return None


class _Reader:
    def error(self, form: object, outer: tuple[Exception, ...]) -> Exception:
        if type(form) is not dict:
            message = "A stored error is not an object."
            raise SerializationError(message)
        module, qualname, message, args, state = (
            form[key] for key in ("module", "qualname", "message", "args", "state")
        )
        if [type(part) for part in (module, qualname, message, args, state)] != [str, str, str, list, dict]:
            reason = "A stored error has parts of a wrong type."
            raise SerializationError(reason)
        kind = find_class(module, qualname)
        values = tuple(self.item(arg, outer) for arg in args)
        exc = _build(kind, values) if kind is not None else None
        if exc is None:
            return CallError(f"{module}.{qualname}" if module != "builtins" else qualname, message)
        inner = (*outer, exc)
        attributes = {key: self.item(item, inner) for key, item in state.items()}
        if attributes:
            exc.__dict__.update(attributes)
        return exc

    def item(self, form: object, outer: tuple[Exception, ...]) -> object:
        if type(form) is not dict:
            message = "A part of a stored error is not an object."
            raise SerializationError(message)
        ((kind, content),) = form.items()
        if kind == "value":
            return Untagger().untag(content)
        if kind == "text" and type(content) is str:
            return content
        if kind == "self" and type(content) is int and content >= 0:
            return outer[content] if content < len(outer) else None  # in args: the error is not made yet
        if kind == "error":
            return self.error(content, outer)
        if kind == "list" and type(content) is list:
            return [self.item(item, outer) for item in content]
        if kind == "dict" and type(content) is dict:
            return {key: self.item(item, outer) for key, item in content.items()}
        message = "A part of a stored error is not known."
        raise SerializationError(message)


def find_class(module: str, qualname: str) -> type[Exception] | None:
    """Return the ``Exception`` class of this name that exists in this process already, or ``None``."""
    # A class made inside a function is made anew by each call of it: the last one is meant.
    if (module, qualname) not in _known or "<locals>" in qualname:
        for kind in _existing(Exception):
            _known[_names(kind)["module"], _names(kind)["qualname"]] = kind
    return _known.get((module, qualname))


def _existing(kind: type[Exception]) -> Iterator[type[Exception]]:
    seen: set[type] = set()
    waiting = [kind]
    while waiting:
        kind = waiting.pop(0)
        if kind not in seen:
            seen.add(kind)
            waiting += type.__subclasses__(kind)
            yield kind


def _names(kind: type) -> dict[str, str]:
    module = vars(kind).get("__module__")
    return {
        "module": safe_str(module if type(module) is str else "builtins", 200),
        "qualname": safe_str(type.__dict__["__qualname__"].__get__(kind), 200),
    }


def _build(kind: type[Exception], args: tuple[object, ...]) -> Exception | None:
    """Make an instance with the C constructor of the built-in it derives from; no code of ``kind`` runs."""
    native: Any = next(base for base in kind.__mro__ if not base.__flags__ & _HEAP_TYPE)
    try:
        exc = cast("Exception", native.__new__(kind, *args))
    except Exception:  # noqa: BLE001 -- the arguments do not fit (they may be forged); CallError tells it
        return None
    try:
        native.__init__(exc, *args)
    except Exception:  # noqa: BLE001 -- a UnicodeError wants five arguments; without them it has no details
        BaseException.args.__set__(exc, args)  # type: ignore[attr-defined]  # a slot of C
    return exc


def _is_lazy(value: object) -> bool:
    """Tell whether this is a translation: as an attribute of an error its text is as good as itself."""
    return any(base.__module__ == "django.utils.functional" for base in type(value).__mro__)
