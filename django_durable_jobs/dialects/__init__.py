"""What each database does its own way, behind one interface. The only place for raw SQL and vendor checks.

``dialect_of(alias)`` gives the dialect of a connection alias. ``base.py`` does everything portably through the
ORM (MariaDB and MySQL use it nearly as it is); PostgreSQL and SQLite replace the hot statements.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

from django.db import connections

from .base import Dialect

__all__ = ["Dialect", "dialect_of"]

_ROOMS = {"postgresql": "PostgreSQL", "sqlite": "SQLite", "mysql": "MySQL"}


@cache
def dialect_of(alias: str) -> Dialect:
    """Return the dialect of the database behind ``alias``; an unknown vendor gets the portable one."""
    vendor = connections[alias].vendor
    if vendor not in _ROOMS:
        return Dialect(alias)
    kind: type[Dialect] = getattr(import_module(f"{__name__}.{vendor}"), _ROOMS[vendor])
    return kind(alias)
