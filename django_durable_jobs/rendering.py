"""Text about values and exceptions that may be hostile: what goes into messages, logs and text columns.

Here: cutting, escaping and tolerant ``str``/``repr``/traceback. Not here: storing a value so that it can be
read back, which is ``serialization``. Nothing in this module raises because of the value it was given, and
nothing it returns holds a NUL or a lone surrogate, which some databases refuse.
"""

from __future__ import annotations

import reprlib
import traceback

_CONTAINERS = frozenset({list, tuple, dict, set, frozenset})


def safe_str(value: object, limit: int) -> str:
    """Return ``str(value)`` as text that any database takes, at most ``limit`` characters long.

    NUL and lone surrogates are escaped. A longer text ends in ``… (cut, N characters)`` where N is the length
    of the original. A ``__str__`` that raises gives a placeholder with the name of the class. Raises nothing.
    """
    try:
        # str.__str__: a __str__ may return a subclass of str whose methods are not to be trusted either.
        text = str.__str__(str(value))
    except BaseException:  # noqa: BLE001 -- whatever a foreign __str__ raises, the error must still be stored
        text = f"<{type(value).__name__}: its text cannot be shown>"
    return _fit(text, limit)


def safe_repr(value: object, limit: int) -> str:
    """Return ``repr(value)`` on one line, at most ``limit`` characters long.

    Everything unprintable (control characters, direction marks, NUL, lone surrogates) is escaped. Large
    containers are shown in part. A ``__repr__`` that raises gives a placeholder. Raises nothing.
    """
    short = _Short()
    short.maxother = short.maxlong = short.maxstring = limit + 40
    short.maxlist = short.maxtuple = short.maxset = short.maxfrozenset = short.maxdict = 20
    try:
        # A plain str is cut first: repr() of 50 MB would be built in full. Built-in containers go through
        # reprlib, as repr() of a list 5,000 levels deep is a RecursionError.
        if type(value) is str:
            text = repr(value[: limit + 40])
        else:
            text = str.__str__(short.repr(value) if type(value) in _CONTAINERS else _repr(value))
    except BaseException:  # noqa: BLE001 -- whatever a foreign __repr__ raises, the message must still be written
        text = f"<{type(value).__name__}: its repr cannot be shown>"
    text = text[: limit + 40]
    text = visible(text)
    if len(text) <= limit:
        return text
    return text[: limit - 1] + "…" if limit > 0 else ""


def visible(text: str, *, keep: str = "") -> str:
    """Return ``text`` with everything unprintable escaped, except the characters in ``keep``.

    Control characters (line breaks, terminal escapes), direction marks, NUL and lone surrogates are unprintable:
    what is left cannot add a line to a log, move a cursor or turn the text around it. Raises nothing.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode("ascii") for c in text)


def format_traceback(exc: BaseException, limit_bytes: int) -> str:
    """Return the traceback of ``exc`` with its causes, at most ``limit_bytes`` bytes in UTF-8.

    Never holds the values of local variables. A longer text loses its middle: the first frames and the last
    lines, with the message, stay. Cycles of causes end. Raises nothing.
    """
    try:
        lines = traceback.TracebackException.from_exception(exc, capture_locals=False, compact=True).format()
        text = "".join(lines)
    except BaseException:  # noqa: BLE001 -- broken attributes of the exception must not cost us the attempt
        text = f"{type(exc).__name__}: {safe_str(exc, 1000)}\n(the traceback could not be formatted)\n"
    total = len(text)
    if total > limit_bytes:
        # Cut before escaping: a 50 MB message is not worth encoding twice.
        text = text[:limit_bytes] + text[-limit_bytes:]
    raw = _storable(text).encode()
    if total <= limit_bytes and len(raw) <= limit_bytes:
        return raw.decode()
    marker = f"\n… (cut, {total} characters) …\n".encode()
    room = limit_bytes - len(marker)
    if room < 0:
        return raw[: max(limit_bytes, 0)].decode(errors="ignore")
    tail = room // 2
    return (
        raw[: room - tail].decode(errors="ignore")
        + marker.decode()
        + (raw[-tail:].decode(errors="ignore") if tail else "")
    )


class _Short(reprlib.Repr):
    """Shows containers in part, and what is in them as ``safe_repr`` does."""

    def repr_instance(self, x: object, level: int) -> str:  # noqa: ARG002 -- the interface of reprlib
        """Show a value of no built-in type."""
        return _repr(x)


def _repr(value: object) -> str:
    # repr() of a QuerySet asks the database. Named, not imported: clients without Django come here too.
    if any(base.__module__ == "django.db.models.query" for base in type(value).__mro__):
        return f"<{type(value).__name__}>"
    return repr(value)


def _fit(text: str, limit: int) -> str:
    total = len(text)
    shown = _storable(text[:limit])
    if total <= limit and len(shown) <= limit:
        return shown
    marker = f"… (cut, {total} characters)"
    room = limit - len(marker)
    return shown[:room] + marker if room >= 0 else shown[: max(limit, 0)]


def _storable(text: str) -> str:
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()
