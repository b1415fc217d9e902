"""How stored text becomes text on a page: cut, readable, and with everything unprintable made visible.

Escaping for HTML is the templates' work (autoescape) and ``format_html``'s; nothing here marks anything as safe.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from django.db.models import QuerySet
from django.db.models.functions import Left, Length
from django.utils import timezone
from django.utils.html import format_html, format_html_join

from ..rendering import visible

PAGE_LIMIT: Final = 20_000
"""Characters of one value on a job's page; the rest is a download."""
ROW_LIMIT: Final = 1_000
"""The same for one row of a table."""
LIST_LIMIT: Final = 80
"""The same in a list."""
ONE_LINE: Final = 60
"""JSON of so many characters is read at a glance; laid out, a table of calls would be all brackets."""


@dataclass(frozen=True)
class Shown:
    """One stored text as a page shows it."""

    text: str
    length: int
    cut: bool


def cut(queryset: QuerySet[Any], limit: int, *columns: str) -> QuerySet[Any]:
    """Read only the beginning of these columns: ``shown`` then makes it visible."""
    extra: dict[str, Any] = {f"{column}_start": Left(column, limit) for column in columns}
    extra |= {f"{column}_length": Length(column) for column in columns}
    beginning: QuerySet[Any] = queryset.defer(*columns).annotate(**extra)
    return beginning


def shown(row: Any, column: str) -> Shown | None:
    """Return what ``cut`` read of a column; ``None`` when the column is empty."""
    start, length = getattr(row, f"{column}_start"), getattr(row, f"{column}_length")
    if not start:
        return None
    whole = len(start) >= length
    return Shown(visible(_indented(start) if whole else start, keep="\n\t"), length, cut=not whole)


def _indented(text: str) -> str:
    """Lay out JSON for reading; what is none stays as it is."""
    if text[:1] not in "{[" or len(text) <= ONE_LINE:
        return text
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


def in_list(text: str | None) -> str:
    """Return the first line of a text, short enough for a list."""
    first = (text or "").lstrip().partition("\n")[0]
    return visible(first if len(first) <= LIST_LIMIT else f"{first[: LIST_LIMIT - 1]}…")


def instant(value: datetime | None) -> str:
    """Return a time to the second, in the reader's time zone; operators compare them with logs."""
    return "" if value is None else f"{timezone.localtime(value):%Y-%m-%d %H:%M:%S}"


def instant_in_list(value: datetime | None) -> str:
    """Return the same in two words that do not break, so that a narrow column has two lines."""
    words = ((word,) for word in instant(value).split())
    return format_html_join(" ", '<span class="ddj-whole">{}</span>', words)


def badge(word: str, label: str = "") -> str:
    """Return a status as a coloured word; the colour is never the only sign."""
    return format_html('<span class="ddj-badge ddj-{}">{}</span>', word, label or word)
