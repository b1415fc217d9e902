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
