"""Storing endings one by one, after the database has refused them together."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from ..operations.database import dialect
from ..operations.finish import Ending, finish
from ..outcomes import Failed, Failure
from ..rendering import safe_str


def is_passing(error: Exception) -> bool:
    """Answer whether the same may be taken later: the database is away, or another transaction was in the way."""
    return dialect().is_disconnect(error) or dialect().is_conflict(error)


def store_one(ending: Ending) -> set[UUID]:
    """Store an ending; one that the database refuses becomes a failure. Raises errors that are passing."""
    try:
        stored, _none = finish([ending])
    except Exception as error:
        if is_passing(error):
            raise
        text = f"The database refused the result: {type(error).__name__}: {safe_str(error, 500)}"
        stored, _none = finish([replace(ending, outcome=Failed(Failure(text, "")))])
    return stored
