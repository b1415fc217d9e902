"""What an order may say besides its target, and how that is read: as a text on one surface, as a value on another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

from ..errors import OptionError
from ..options import check_priority
from ..rendering import safe_repr
from .approvals import LONGEST_COMMENT
from .orders import LONGEST_REASON, check_flag, check_mode, check_text

LONGEST_NAME: Final = 200
LONGEST_PRIORITY: Final = 4
LONGEST_NUMBER: Final = 20
YES_OR_NO: Final = {"yes": True, "true": True, "no": False, "false": False}
LARGEST_NUMBER: Final = 2**53


def _checked_text(longest: int) -> Callable[[str, Any], Any]:
    return lambda name, value: check_text(name, value, longest)


def _instant(name: str, value: Any) -> datetime:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            value = None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise OptionError(f"{name} must be an instant with its offset from UTC, e.g. 2030-01-31T09:00:00+00:00.")
    return value


def _priority(_name: str, value: Any) -> int:
    if isinstance(value, str) and len(value) <= LONGEST_PRIORITY and value.isascii():
        value = int(value) if value.removeprefix("-").isdecimal() else value
    return check_priority(value)


def _number(name: str, value: Any) -> int | float:
    """Read a number, or a text of one; its range is the operation's."""
    if isinstance(value, str) and len(value) <= LONGEST_NUMBER:
        with suppress(ValueError):
            value = float(value) if "." in value else int(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST_NUMBER:
        return value
    raise OptionError(f"{name} must be a number, not {safe_repr(value, 80)}.")


CHECKS: Final[dict[str, Callable[[str, Any], Any]]] = {
    "reason": _checked_text(LONGEST_REASON),
    "comment": _checked_text(LONGEST_COMMENT),
    "mode": lambda _name, value: check_mode(value),
    "force": check_flag,
    "resume_at": _instant,
    "queue": _checked_text(LONGEST_NAME),
    "priority": _priority,
    "wait": _number,
    "concurrency": _number,
    "rate": _number,
    "per": _number,
    "burst": _number,
    "fair": lambda _name, value: YES_OR_NO.get(value, value) if isinstance(value, str) else value,
}
"""What an order may say, and how that is read."""


def needed(given: Mapping[str, Any], name: str) -> Any:
    """Return what an order must say, or raise ``OptionError``."""
    if name not in given:
        raise OptionError(f"This order needs a {name}.")
    return given[name]


def why(what: str, by: str, given: Mapping[str, Any]) -> str:
    """Say in one line who ordered something, and why."""
    whom = f" by {by}" if by else " by an order"
    reason = f": {given['reason']}" if given.get("reason") else ""
    return f"{what}{whom}{reason}"
