"""The fixed table of scalar types that JSON lacks: how each is written and read.

Here: one writer and one reader per type. A writer raises ``ValueError`` with the reason for a value it cannot
keep exactly; a reader may raise any of ``UNREADABLE``. Not here: containers, paths and messages (``values``).
"""

from __future__ import annotations

import base64
import re
import zoneinfo
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Callable

#: What reading a malformed text may raise, whichever library notices first.
UNREADABLE = (ValueError, TypeError, ArithmeticError, LookupError, RecursionError)

INT_LOWEST, INT_HIGHEST = -(2**63), 2**64 - 1

# RFC 9557: a timestamp with the zone in brackets. Keys that start with "_" are free for experiments there.
_TIMESTAMP = re.compile(r"([0-9T:.+-]+)(?:\[([A-Za-z0-9_+\-/]+)\])?(\[_fold=1\])?")
_FOLD = "[_fold=1]"
_HEX = re.compile(r"-?0x[0-9a-f]+")


@cache
def zone_names() -> frozenset[str]:
    """Return the known time zones: a name is looked up here and never becomes a path."""
    return frozenset(zoneinfo.available_timezones())


def _zone(name: str) -> zoneinfo.ZoneInfo:
    if name not in zone_names():
        message = f"{name!r} is not a known time zone"
        raise ValueError(message)
    return zoneinfo.ZoneInfo(name)


def _zone_suffix(zone: tzinfo | None) -> str:
    if zone is None or type(zone) is timezone:
        return ""
    key = zone.key if isinstance(zone, zoneinfo.ZoneInfo) else None
    if key not in zone_names():
        message = "its time zone must be a zoneinfo.ZoneInfo with a known name, or a fixed offset"
        raise ValueError(message)
    return f"[{key}]"


def _write_datetime(value: datetime) -> str:
    suffix = _zone_suffix(value.tzinfo)
    text = datetime.isoformat(value) + suffix
    # In the hour that occurs twice (or not at all) the offset tells the two folds apart; elsewhere it cannot.
    if value.fold and not (suffix and value.utcoffset() != datetime.replace(value, fold=0).utcoffset()):
        text += _FOLD
    return text


def _read_datetime(text: object) -> datetime:
    core, name, fold = _split(text)
    stored = datetime.fromisoformat(core)
    if name is not None:
        offset = stored.utcoffset()
        if offset is None:
            message = "a time zone needs an offset"
            raise ValueError(message)
        zone = _zone(name)
        candidates = (stored.replace(tzinfo=zone, fold=0), stored.replace(tzinfo=zone, fold=1))
        # The rules of a zone may have changed since: then the instant is kept and the wall clock moves.
        stored = next((c for c in candidates if c.utcoffset() == offset), None) or stored.astimezone(zone)
    return stored.replace(fold=1) if fold else stored


def _write_time(value: time) -> str:
    return time.isoformat(value) + _zone_suffix(value.tzinfo) + (_FOLD if value.fold else "")


def _read_time(text: object) -> time:
    core, name, fold = _split(text)
    stored = time.fromisoformat(core)
    if name is not None:
        stored = stored.replace(tzinfo=_zone(name))
    return stored.replace(fold=1) if fold else stored


def _split(text: object) -> tuple[str, str | None, bool]:
    match = _TIMESTAMP.fullmatch(_string(text))
    if match is None:
        message = "not a timestamp"
        raise ValueError(message)
    return match[1], match[2], match[3] is not None


def _write_timedelta(value: timedelta) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


def _read_timedelta(parts: object) -> timedelta:
    if type(parts) is not list or [type(part) for part in parts] != [int, int, int]:
        message = "not [days, seconds, microseconds]"
        raise ValueError(message)
    return timedelta(days=parts[0], seconds=parts[1], microseconds=parts[2])


def _write_decimal(value: Decimal) -> str:
    if not Decimal.is_finite(value):
        message = "NaN and infinities are not stored"
        raise ValueError(message)
    return Decimal.__str__(value)


def _read_decimal(text: object) -> Decimal:
    value = Decimal(_string(text))
    if not value.is_finite():
        message = "not a finite number"
        raise ValueError(message)
    return value


def _write_bytes(value: bytes) -> str:
    return base64.b64encode(bytes.__getitem__(value, slice(None))).decode("ascii")


def _read_bytes(text: object) -> bytes:
    return base64.b64decode(_string(text), validate=True)


def _read_int(text: object) -> int:
    # Hexadecimal: Python limits the decimal digits it converts (4300 by default, less by setting).
    if not _HEX.fullmatch(_string(text)):
        message = "not a hexadecimal number"
        raise ValueError(message)
    return int(_string(text), 16)


def _string(value: object) -> str:
    if type(value) is not str:
        message = "not a string"
        raise ValueError(message)
    return value


#: Type → (tag, writer), by exact type; ``values`` looks subclasses up along their MRO.
WRITERS: dict[type, tuple[str, Callable[[object], object]]] = {
    bytes: ("$bytes", _write_bytes),  # type: ignore[dict-item]  # the key is the type each writer takes
    datetime: ("$datetime", _write_datetime),  # type: ignore[dict-item]  # each writer takes its own type
    date: ("$date", date.isoformat),  # type: ignore[dict-item]  # each writer takes its own type
    time: ("$time", _write_time),  # type: ignore[dict-item]  # each writer takes its own type
    timedelta: ("$timedelta", _write_timedelta),  # type: ignore[dict-item]  # each writer takes its own type
    Decimal: ("$decimal", _write_decimal),  # type: ignore[dict-item]  # each writer takes its own type
    UUID: ("$uuid", UUID.__str__),
}

READERS: dict[str, Callable[[object], object]] = {
    "$bytes": _read_bytes,
    "$datetime": _read_datetime,
    "$date": lambda text: date.fromisoformat(_string(text)),
    "$time": _read_time,
    "$timedelta": _read_timedelta,
    "$decimal": _read_decimal,
    "$uuid": lambda text: UUID(_string(text)),
    "$int": _read_int,
}
