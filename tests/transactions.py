"""Transactions that tests need: one that is undone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from django.db import transaction


class _Undo(Exception):
    """Leaves the block."""


@contextmanager
def rolled_back() -> Iterator[None]:
    """Run the block in a transaction (or savepoint) that an exception ends."""
    with suppress(_Undo), transaction.atomic():
        yield
        raise _Undo
