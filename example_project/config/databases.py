"""From a database URL to an entry of ``DATABASES``, with the options that durable jobs want on each database."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

ENGINES: Final = {
    "sqlite": "sqlite3",
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "mariadb": "mysql",
    "mysql": "mysql",
}

OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "sqlite3": {
        # WAL: readers do not wait for writers. FULL: what was committed survives a power cut too.
        "init_command": "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;",
        "transaction_mode": "IMMEDIATE",
        "timeout": 30,
    },
    "postgresql": {"connect_timeout": 3},
    "mysql": {"connect_timeout": 3, "charset": "utf8mb4", "isolation_level": "read committed"},
}


class UnusableDatabase(Exception):
    """This database cannot be used; the message is one line and says why."""


def database_of(url: str) -> dict[str, Any]:
    """Translate ``scheme://user:password@host:port/name?option=value``.

    For SQLite the path of the file stands after ``sqlite:///``. A parameter ``host`` is the folder of a Unix socket,
    as in libpq; other parameters become ``OPTIONS``.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UnusableDatabase(f"The database URL cannot be read: {error}.") from None
    if parts.scheme not in ENGINES:
        known = ", ".join(f"{scheme}://" for scheme in ENGINES)
        raise UnusableDatabase(f"A database URL begins with one of {known}, not with {url.partition(':')[0]!r}.")
    engine = ENGINES[parts.scheme]
    name = unquote(parts.path.removeprefix("/"))
    if engine == "sqlite3":
        name = _sqlite_file(parts.netloc, name)
    if not name:
        raise UnusableDatabase(f"The database URL names no database: {parts.scheme}://user:password@host:port/NAME.")
    query = dict(parse_qsl(parts.query))
    _load_driver(engine)
    return {
        "ENGINE": f"django.db.backends.{engine}",
        "NAME": name,
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": query.pop("host", parts.hostname or ""),
        "PORT": str(port or ""),
        "OPTIONS": {**OPTIONS[engine], **query},
    }


def _sqlite_file(netloc: str, name: str) -> str:
    if netloc:
        raise UnusableDatabase(f"A SQLite URL has three slashes before the file: sqlite:///{netloc}/{name}.")
    if not name:
        raise UnusableDatabase("The database URL names no file: sqlite:///path/to/file.")
    if ":memory:" in name:
        raise UnusableDatabase("SQLite in memory cannot be used: the worker is another process and would not see it.")
    return str(Path(name).resolve())


def _load_driver(engine: str) -> None:
    if engine == "postgresql" and find_spec("psycopg") is None:
        raise UnusableDatabase('PostgreSQL needs a driver: python -m pip install "psycopg[binary]".')
    if engine == "mysql" and find_spec("MySQLdb") is None:
        if find_spec("pymysql") is None:
            raise UnusableDatabase("MariaDB and MySQL need a driver: python -m pip install PyMySQL (or mysqlclient).")
        import pymysql  # noqa: PLC0415 - in nobody's requirements: it is here if the user wants it

        pymysql.install_as_MySQLdb()
