"""What a command does before it works: refuse in one line what cannot work, warn of what will not work well."""

from __future__ import annotations

import logging
from typing import Any

from django.conf import settings as django_settings
from django.core.checks import ERROR, run_checks
from django.core.management.base import CommandError
from django.db import connections
from django.utils.module_loading import import_string

from ..conf import CHECKS, get_settings
from ..operations.capacity import connection_shortage
from ..operations.database import dialect

logger = logging.getLogger("django_durable_jobs")


def refuse_unusable_settings() -> None:
    """Raise ``CommandError`` with exit code 2 and one line if our checks find an error in the settings."""
    _refuse(None)


def refuse_missing_tables() -> None:
    """Do the same for the jobs' database itself; one that does not answer now may do so later, and is let pass."""
    try:
        _refuse([get_settings().database])
    except CommandError:
        raise
    except Exception as error:
        if not dialect().is_disconnect(error):
            raise
    finally:
        connections[get_settings().database].close()


def warn_of_shortages(threads: int, processes: int = 1) -> None:
    """Log what the worker may run out of: connections for its threads, memory under ``DEBUG``."""
    if django_settings.DEBUG:
        logger.warning("DEBUG is True: Django keeps the statements of every thread in memory. Set it to False.")
    try:
        shortage = connection_shortage(threads, processes)
    except Exception as error:
        if not dialect().is_disconnect(error):
            raise
        return  # the worker itself waits for the database, and says so
    finally:
        connections[get_settings().database].close()
    if shortage is not None:
        logger.warning("%s", shortage)


def log_to_stderr_unless_configured(verbosity: int, worker: str) -> None:
    """Give a project without ``LOGGING`` for us lines to read; every line names the job it is about, and the worker."""
    if logger.handlers or logging.getLogger().handlers:
        return
    handler = logging.StreamHandler()
    # By path, as a project writes it in LOGGING: surfaces do not import each other.
    home = "django_durable_jobs.contrib.logging"
    handler.addFilter(import_string(f"{home}.JobFilter")(worker=worker))
    handler.setFormatter(import_string(f"{home}.JobFormatter")())
    logger.addHandler(handler)
    logger.setLevel({0: logging.ERROR, 1: logging.INFO}.get(verbosity, logging.DEBUG))


def _refuse(databases: list[str] | None) -> None:
    found: list[Any] = [
        message
        for message in run_checks(tags=[CHECKS], databases=databases)
        if message.is_serious(ERROR) and not message.is_silenced()
    ]
    if found:
        first = found[0]
        more = f" ({len(found) - 1} more: manage.py check says which)" if len(found) > 1 else ""
        raise CommandError(f"{first.msg} {first.hint or ''}".rstrip() + more, returncode=2)
