"""Which database the jobs live in, for every operation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..conf import get_settings
from ..dialects import Dialect, dialect_of
from ..models import Job

if TYPE_CHECKING:
    from ..querysets.jobs import JobQuerySet


def alias() -> str:
    """Return the alias of the jobs' database (setting ``DATABASE``)."""
    return get_settings().database


def dialect() -> Dialect:
    """Return the dialect of the jobs' database."""
    return dialect_of(alias())


def jobs() -> JobQuerySet:
    """Return all jobs, on the jobs' database."""
    return Job.objects.using(alias())


def can_be_asked_for(text: object) -> bool:
    """Answer whether this is a text that every database can be asked for: some refuse the very question."""
    return isinstance(text, str) and "\x00" not in text and _is_unicode(text)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
