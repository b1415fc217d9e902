"""Write the page of the settings from the code: ``python -m tests.reference``.

The page is made from `conf.Settings` as a whole: the order, defaults, meanings and ranges are the code's.
`tests/words/test_conf.py` sees that it is up to date.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field, fields
from datetime import timedelta
from typing import Any, Final

from django_durable_jobs.backoff import Backoff
from django_durable_jobs.conf import SETTING, Settings
from django_durable_jobs.determinism import Determinism
from django_durable_jobs.retention import Retention
from tests.databases import ROOT

FOLDER: Final = ROOT / "docs" / "reference"
KIND: Final[dict[type, str]] = {
    bool: "`True` or `False`",
    str: "text",
    int: "whole number",
    timedelta: "seconds, or a `timedelta`",
    Backoff: "`Backoff`",
    Retention: 'a dictionary: queue, or `"*"` for all others; status that ends a job; seconds, or a `timedelta`',
    Determinism: ", ".join(f"`{mode.value!r}`" for mode in Determinism) + ", or the member of `Determinism`",
}
HEAD: Final = f"""\
# Settings

All settings stand in one dictionary in the project's settings, and all have a default:

```python
# settings.py
from datetime import timedelta

{SETTING} = {{
    "LEASE": 30,  # seconds
    "RETENTION_FAILED": timedelta(days=90),
}}
```

A key that does not exist, or a value that cannot be used, is an error of `manage.py check`, and `runjobs` does not
start with it. Elsewhere the default holds in its place. `LEASE` must be at least three times `HEARTBEAT`.

This page is made from the code by `python -m tests.reference`.
"""


def settings_page() -> str:
    """Return the text of the page."""
    return "\n".join([HEAD, *map(_section, fields(Settings))])


def _section(entry: Field[Any]) -> str:
    allowed = KIND[timedelta if entry.default is None else type(entry.default)] + (
        ", or `None`" if entry.default is None else ""
    )
    if "range" in entry.metadata:
        low, high = entry.metadata["range"]
        allowed += f", {low:,} to {high:,}"
    if "pattern" in entry.metadata:
        allowed += f" that matches `{entry.metadata['pattern']}`"
    lines = [
        f"## `{entry.name.upper()}`",
        "",
        entry.metadata["help"],
        "",
        f"- Default: {'`{}`' if isinstance(entry.default, Retention) else written(entry.default)}",
        f"- Allowed: {allowed}",
        "",
    ]
    return "\n".join(lines)


def written(value: object) -> str:
    """Return a default as one would write it into the settings."""
    match value:
        case Determinism():
            return f"`{value.value!r}`"
        case None | bool() | str():
            return f"`{value!r}`"
        case int() if value >= 1024 and value % 1024 == 0:
            return f"`{value}` ({_binary(value)})"
        case int():
            return f"`{value}`"
        case timedelta():
            return _length(value)
        case Backoff():
            return f"`{_backoff(value)}`"
    raise TypeError(f"No rule says how {value!r} is written")


def _binary(number: int) -> str:
    return f"{number // 1024**2} MiB" if number % 1024**2 == 0 else f"{number // 1024} KiB"


def _length(value: timedelta) -> str:
    if value >= timedelta(days=1) and value % timedelta(days=1) == timedelta(0):
        return f"`timedelta(days={value.days})`"
    return f"`{value.total_seconds():g}` (seconds)"


def _backoff(value: Backoff) -> str:
    base, cap = (f"timedelta(seconds={length.total_seconds():g})" for length in (value.base, value.cap))
    jitter = "" if value.jitter else ", jitter=False"
    return f"Backoff.{value.kind}(base={base}, cap={cap}{jitter})"


PAGES: Final[dict[str, Callable[[], str]]] = {"settings.md": settings_page}

if __name__ == "__main__":
    for name, make in PAGES.items():
        (FOLDER / name).write_text(make())
