"""How many connections a database lets us have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper

_QUESTIONS: Final = {
    "postgresql": (
        "SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int"
    ),
    "mysql": "SELECT @@max_connections",
}
POOL_SIZE: Final = 4
"""What psycopg's pool takes when it is told no size."""


def server_limit(connection: BaseDatabaseWrapper) -> int | None:
    """Return how many clients the server takes in all; ``None`` where there is no such number."""
    question = _QUESTIONS.get(connection.vendor)
    if question is None:
        return None
    with connection.cursor() as cursor:
        cursor.execute(question)
        return int(cursor.fetchone()[0])


def pool_limit(connection: BaseDatabaseWrapper) -> int | None:
    """Return the size of this process's connection pool; ``None`` without one."""
    pool = connection.settings_dict.get("OPTIONS", {}).get("pool")
    if not pool:
        return None
    options = pool if isinstance(pool, dict) else {}
    return int(options.get("max_size") or options.get("min_size") or POOL_SIZE)
