"""The options of ``runjobs`` and the ids of the system checks."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Final

import django_durable_jobs
from django_durable_jobs.management.commands.runjobs import Command
from tests.docs.facts.markdown_tables import code, markdown_table

CHECKS: Final[dict[str, tuple[str, str]]] = {
    "E001": ("`DURABLE_JOBS` is not a dictionary", "write `DURABLE_JOBS = {…}`"),
    "E002": ("a key of `DURABLE_JOBS` is not known", "the message names the nearest one"),
    "E003": ("a value of `DURABLE_JOBS` is of the wrong kind or out of its range", "the message says what is allowed"),
    "E004": ("`LEASE` is shorter than three `HEARTBEAT`s", "one late heartbeat would lose every job: raise `LEASE`"),
    "E005": ("`DURABLE_JOBS['DATABASE']` is not in `DATABASES`", "name one that is"),
    "E006": ("the database, or its driver, is too old", "the message names the version that is needed"),
    "E007": ("`USE_TZ` is off", "jobs store instants, which local times without a zone are not: switch it on"),
    "E008": ("`DATABASE_ROUTERS` keep our tables off that database", "allow the app `django_durable_jobs` there"),
    "E009": ("the tables are not there (`check --database`)", "migrate that database"),
    "E010": ("the database is none that we know", "use PostgreSQL, MariaDB, MySQL or SQLite"),
    "E011": (
        "`LEASE` is not longer than what the database driver may wait (`connect_timeout` and the like)",
        "a worker that waits so long would lose its jobs: raise `LEASE`, or lower the other",
    ),
    "E012": ("migrations of ours are missing there (`check --database`)", "migrate that database"),
    "E013": (
        "`AUTOCOMMIT` of the jobs' database is `False`",
        "every job would fail, as one that leaves a transaction open: remove it",
    ),
    "E014": (
        "the management API is included, and `DEFAULT_AUTHENTICATION_CLASSES` of REST framework is empty",
        "nobody could be let in for what he is: name the classes that say who asks",
    ),
    "W001": (
        "`ATOMIC_REQUESTS` is on for the jobs' database",
        "jobs enqueued in a view begin when the response is done: silence it if this is meant",
    ),
    "W002": (
        "`CONN_MAX_AGE` is `None`",
        "every thread of the web server keeps its connection, beside those of the workers: give it a number of seconds",
    ),
    "W003": ("`DEBUG` is on (`check --deploy`)", "Django then keeps up to 9,000 statements per thread in memory"),
    "W006": ("the jobs' database is SQLite in memory", "no worker could see it: use a file"),
    "W007": (
        "SQLite transactions begin without the write lock",
        'reading first and writing later fails with "database is locked": `"transaction_mode": "IMMEDIATE"`',
    ),
    "W008": ("SQLite is not in WAL mode", "readers and the writer would stop each other"),
    "W009": (
        "the SQLite file lies on a network file system",
        "its locks do not hold there: use a local disk, or PostgreSQL",
    ),
}
"""What each check means, and what to do; the messages themselves say it with the project's own values."""


def actions() -> list[argparse.Action]:
    """Return the options that ``runjobs`` adds to Django's own, without the hidden ones."""
    parser = argparse.ArgumentParser(add_help=False)
    Command().add_arguments(parser)  # type: ignore[arg-type]  # Django's parser is one of these
    return [action for action in parser._actions if action.help != argparse.SUPPRESS]


def options() -> str:
    """Return the table of options."""
    rows = []
    for action in actions():
        value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
        rows.append([code(f"{', '.join(action.option_strings)}{value}"), str(action.help)])
    return markdown_table(["option", "meaning"], rows)


def ids_in_code() -> set[str]:
    """Return the ids of checks that the package's source names."""
    package = Path(django_durable_jobs.__file__).parent
    return {found for file in package.rglob("*.py") for found in re.findall(r'"([EW]\d{3})"', file.read_text())}


def checks() -> str:
    """Return the table of system checks."""
    if wrong := ids_in_code() ^ CHECKS.keys():
        raise SystemExit(f"Describe the checks {', '.join(sorted(wrong))}, or drop them: tests/docs/facts/command.py")
    rows = [[code(number), *texts] for number, texts in CHECKS.items()]
    return markdown_table(["id", "what is found", "what to do"], rows)
