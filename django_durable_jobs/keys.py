"""Keys that users give to jobs: a text, or a function of the job's arguments that returns one; and what they do."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

from .errors import OptionError
from .rendering import safe_repr, safe_str

KEY_LENGTH: Final = 200

Key = str | Callable[..., str]
"""What an option takes; a function is called with the arguments of the job."""


def key_rule(name: str) -> Callable[[object], Key | None]:
    """Return the check of an option that is a key."""

    def check(value: object) -> Key | None:
        if value is None:
            return None
        if isinstance(value, str):
            return _text(value, name)
        if not callable(value):
            raise OptionError(
                f"{name} must be a str, or a function of the job's arguments that returns one, not "
                f"{safe_repr(value, 80)}."
            )
        if inspect.iscoroutinefunction(value):
            raise OptionError(f"{name} must be a plain function: {_named(value)} is an async one.")
        return value

    return check


def choice_rule(name: str, *allowed: str) -> Callable[[object], str | None]:
    """Return the check of an option that is one of a few words."""

    def check(value: object) -> str | None:
        if value is None or (isinstance(value, str) and value in allowed):
            return value
        raise OptionError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {safe_repr(value, 80)}.")

    return check


def key_of(given: Key, name: str, definition: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Return the key of one job; ``OptionError`` names the function that did not give one."""
    if isinstance(given, str):
        return given
    who = f"{name} of {definition}: {_named(given)}"
    try:
        found = given(*args, **kwargs)
    except Exception as error:
        raise OptionError(f"{who} raised {type(error).__name__}: {safe_str(error, 200)}") from error
    if not isinstance(found, str):
        if inspect.iscoroutine(found):
            found.close()
        raise OptionError(f"{who} must return a str, not {type(found).__name__} ({safe_repr(found, 80)}).")
    return _text(found, who)


def _text(value: str, what: str) -> str:
    storable = value.isprintable() and value.encode("utf-8", "replace").decode() == value
    if 0 < len(value) <= KEY_LENGTH and storable and value == value.strip():
        return str(value)
    raise OptionError(
        f"{what}: {ascii(value)[:80]} is not a usable key: 1 to {KEY_LENGTH} printable characters, "
        "without space at the ends."
    )


def _named(function: Callable[..., Any]) -> str:
    module, name = getattr(function, "__module__", ""), getattr(function, "__qualname__", type(function).__qualname__)
    return f"the function {module}.{name}"
