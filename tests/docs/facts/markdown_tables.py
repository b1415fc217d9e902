"""Markdown from plain values."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; a bar inside a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in lines)


def code(text: object) -> str:
    """Return text in the fixed-width type."""
    return f"`{text}`"


def listed(values: Iterable[object]) -> str:
    """Return values in the fixed-width type, separated by commas."""
    return ", ".join(code(value) for value in values)


def prose(thing: object) -> str:
    """Return a docstring as Markdown: double backticks become single ones."""
    return re.sub(r"``([^`]+)``", r"`\1`", inspect.getdoc(thing) or "")


def first_line(thing: object) -> str:
    """Return the first line of a docstring as Markdown."""
    return prose(thing).partition("\n")[0]
