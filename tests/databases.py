"""Which database the tests run on, and how another process reaches the same one.

One URL in the environment (``DURABLE_JOBS_TEST_DATABASE``) says where the database is; ``tests/settings.py``
turns it into ``DATABASES``. Here are that translation and its way back (`child_environment`), so that a
`runjobs` process started by a test works on the very test database. Starting servers is `tests/servers.py`;
running the suite once per database is `tests/lanes.py`.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured
from django.db import connections

if TYPE_CHECKING:
    from collections.abc import Iterator

Lane = Literal["sqlite", "postgresql", "mariadb"]
"""A database that the whole suite runs on."""

LANES: Final[tuple[Lane, ...]] = get_args(Lane)

URL_VARIABLE: Final = "DURABLE_JOBS_TEST_DATABASE"
"""The environment variable with the URL of the database to use."""

RUN_VARIABLE: Final = "DURABLE_JOBS_TEST_RUN"
"""The environment variable that names a test run: the test databases of all its processes begin with this name."""

ROOT: Final = Path(__file__).resolve().parent.parent
"""The folder of the project, from which `tests` can be imported."""

_LANE_OF_SCHEME: Final[dict[str, Lane]] = {
    "sqlite": "sqlite",
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "mariadb": "mariadb",
    "mysql": "mariadb",
}

_ENGINES: Final[dict[Lane, str]] = {
    "sqlite": "django.db.backends.sqlite3",
    "postgresql": "django.db.backends.postgresql",
    "mariadb": "django.db.backends.mysql",
}

_OPTIONS: Final[dict[Lane, dict[str, Any]]] = {
    "sqlite": {
        # What the documentation tells projects to write. NORMAL survives the death of any process, which is what
        # tests do to it; FULL would also survive a power cut, at one fsync per commit.
        "init_command": "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;",
        "timeout": 5,
        "transaction_mode": "IMMEDIATE",
    },
    "postgresql": {},
    # Without TLS: PyMySQL reads all certificates of the machine for each connection, 25 ms of one core.
    "mariadb": {"charset": "utf8mb4", "isolation_level": "read committed", "ssl_disabled": True},
}


def current_url() -> str:
    """Return the URL that this process was told to use, else one of a SQLite file of its own.

    In a test process this names the server and an outer database (Django makes the test database beside it); in
    a child process it names the test database itself.
    """
    own_file = Path(tempfile.gettempdir()) / f"durable-jobs-{os.getpid()}.sqlite3"
    return os.environ.get(URL_VARIABLE) or f"sqlite:///{own_file}"


def lane_of(url: str) -> Lane:
    """Say which lane a database URL belongs to; `ImproperlyConfigured` names the schemes that are known."""
    scheme = urlsplit(url).scheme
    if scheme not in _LANE_OF_SCHEME:
        known = ", ".join(f"{name}://" for name in _LANE_OF_SCHEME)
        raise ImproperlyConfigured(
            f"{URL_VARIABLE} is {url!r}, which starts with none of {known}. "
            "`python -m tests.lanes postgresql -- <pytest arguments>` sets it for you."
        )
    return _LANE_OF_SCHEME[scheme]


def database_settings(url: str) -> dict[str, Any]:
    """Translate a URL into an entry of ``DATABASES``.

    A query parameter ``host`` is the folder of a Unix socket, as in libpq; ``pool`` asks for Django's pool with so
    many connections at least; the others become ``OPTIONS``. The key ``URL`` is ours (Django ignores it):
    `child_environment` needs to know how to reach the server.
    """
    lane = lane_of(url)
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    pool = {"pool": {"min_size": int(size), "max_size": 20}} if (size := query.pop("pool", "")) else {}
    return {
        "ENGINE": _ENGINES[lane],
        "NAME": unquote(parts.path[1:]),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": query.pop("host", parts.hostname or ""),
        "PORT": str(parts.port or ""),
        "OPTIONS": {**_OPTIONS[lane], **query, **pool},
        "TEST": {"NAME": _test_database(lane)},
        "URL": url,
    }


def database_prefix(run: str) -> str:
    """Return how the names of all test databases of a run begin."""
    return f"test_durable_jobs_{run}_"


def _test_database(lane: Lane) -> str:
    """Name the test database of this process, so that several can run side by side on one server."""
    name = f"{database_prefix(os.environ.get(RUN_VARIABLE, ''))}{os.getpid()}"
    # A file: tests use real processes and threads, and Django's default of a memory database has neither.
    return str(Path(tempfile.gettempdir()) / f"{name}.sqlite3") if lane == "sqlite" else name


def renamed(url: str, name: str) -> str:
    """Return the URL of another database on the same server."""
    parts = urlsplit(url)
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc}/{name}{query}"


def database_url(alias: str = "default") -> str:
    """Return the URL of the database that `alias` is connected to just now: within a test, the test database."""
    settings = connections[alias].settings_dict
    return renamed(settings["URL"], str(settings["NAME"]))


def child_environment(**extra: str) -> dict[str, str]:
    """Return the environment of a child process that is to work on this test's database.

    It is this process's own environment plus settings module, import path and URL, plus `extra`.
    """
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        URL_VARIABLE: database_url(),
        **extra,
    }


def django_command(*arguments: str) -> list[str]:
    """Return the command line of a management command, to be started with `child_environment`."""
    return [sys.executable, "-m", "django", *arguments]


@contextmanager
def using_database(url: str) -> Iterator[None]:
    """Point the default alias of this whole process at another database of the same kind.

    Threads that start inside connect there too: Django shares one settings dict per alias among all threads,
    which is why it is changed in place. Threads that already have a connection keep theirs.
    """
    shared = connections.settings["default"]
    before = dict(shared)
    wrapper = connections["default"]
    wrapper.close()
    shared.update(database_settings(url))
    # A new wrapper: what the old one has learnt of its server does not hold for another.
    connections["default"] = connections.create_connection("default")
    try:
        yield
    finally:
        connections["default"].close()
        connections["default"] = wrapper
        shared.clear()
        shared.update(before)
