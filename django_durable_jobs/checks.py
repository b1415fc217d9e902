"""System checks: what a project must change before its jobs can be relied on.

Every check has an id, a message with the setting and the values that are wrong, and a hint that says what to write;
``docs/reference/runjobs.md`` lists them. What is wrong inside ``DURABLE_JOBS`` is found by ``conf.problems()``, what a
database lacks by its dialect. The tag ``durable_jobs`` asks for ours alone: ``manage.py check --tag durable_jobs``.
"""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

from django.apps import AppConfig
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004 -- Django's name
from django.db import connections, router
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from .api.included import knows_nobody
from .conf import CHECKS, SETTING, get_settings, problems
from .dialects import Dialect, dialect_of
from .models import Job

APP = "django_durable_jobs"


def _id(number: str) -> str:
    return f"{APP}.{number}"


@register(CHECKS, Tags.compatibility)
def check_settings(app_configs: Sequence[AppConfig] | None, **_kwargs: Any) -> list[CheckMessage]:  # noqa: ARG001 -- Django's interface
    """Report unusable settings, each with the value that is wrong and what to write."""
    found: list[CheckMessage] = [Error(text, hint=hint, id=_id(number)) for number, text, hint in problems()]
    if not django_settings.USE_TZ:
        found.append(Error("USE_TZ is False.", hint="Durable jobs store instants: set USE_TZ = True.", id=_id("E007")))
    database = get_settings().database
    if database not in connections:
        known = ", ".join(connections)
        text = f"{SETTING}['DATABASE'] is {database!r}, which is not in DATABASES."
        return [*found, Error(text, hint=f"Use one of: {known}.", id=_id("E005"))]
    if type(dialect_of(database)) is Dialect:
        engine = connections[database].settings_dict["ENGINE"]
        text = f"The database {database!r} that {SETTING}['DATABASE'] names has the engine {engine!r}."
        return [*found, Error(text, hint="Use PostgreSQL, MariaDB, MySQL or SQLite.", id=_id("E010"))]
    found += _check_database_settings(database)
    found += [
        Warning(text, hint=hint, id=_id(number)) for number, text, hint in dialect_of(database).database_warnings()
    ]
    return found


@register(CHECKS, Tags.security)
def check_api(app_configs: Sequence[AppConfig] | None, **_kwargs: Any) -> list[CheckMessage]:  # noqa: ARG001 -- Django's interface
    """Report an API that is open to requests of which nobody can say whose they are."""
    if not knows_nobody():
        return []
    text = "The addresses of the management API are included, and DEFAULT_AUTHENTICATION_CLASSES is empty."
    return [Error(text, hint="Name the classes by which REST framework knows who asks.", id=_id("E014"))]


def _check_database_settings(database: str) -> Iterator[CheckMessage]:
    given = connections[database].settings_dict
    lease = get_settings().lease.total_seconds()
    for option, seconds in _waits(given.get("OPTIONS", {})):
        if seconds >= lease:
            yield Error(
                f"{SETTING}: LEASE ({lease:g} s) is not longer than the {option!r} ({seconds:g} s) in the OPTIONS of "
                f"database {database!r}.",
                hint="A worker that waits so long for the database loses its jobs: raise LEASE or lower the other.",
                id=_id("E011"),
            )
    if not router.allow_migrate_model(database, Job):
        yield Error(
            f"DATABASE_ROUTERS keep the jobs' tables off the database {database!r} that {SETTING}['DATABASE'] names.",
            hint=f"Let the router allow {APP} there, or name the database it allows.",
            id=_id("E008"),
        )
    if not given.get("AUTOCOMMIT", True):
        yield Error(
            f"AUTOCOMMIT of database {database!r} is False: every job would fail as one that left a transaction open.",
            hint="Remove it, and use transaction.atomic() where a transaction is meant.",
            id=_id("E013"),
        )
    if given.get("ATOMIC_REQUESTS"):
        yield Warning(
            f"ATOMIC_REQUESTS of database {database!r} is on: jobs enqueued in a view exist only when the response is "
            "done.",
            hint="This is safe; silence it if it is meant.",
            id=_id("W001"),
        )
    if given.get("CONN_MAX_AGE", 0) is None:
        yield Warning(
            f"CONN_MAX_AGE of database {database!r} is None: every thread of the web server keeps its connection for "
            "ever, beside those of the workers' threads.",
            hint="Give it a number of seconds, or see that the database takes the sum of all threads.",
            id=_id("W002"),
        )


def _waits(options: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the options of a database driver that say how long it may wait, in seconds.

    Not SQLite's ``timeout``: a worker's connections have their own.
    """
    for name in ("connect_timeout", "read_timeout", "write_timeout"):
        try:
            yield name, float(options[name])
        except (KeyError, TypeError, ValueError):
            continue


@register(CHECKS, deploy=True)
def check_deployment(app_configs: Sequence[AppConfig] | None, **_kwargs: Any) -> list[CheckMessage]:  # noqa: ARG001 -- as above
    """Report what only a deployment should change: ``manage.py check --deploy``."""
    if not django_settings.DEBUG:
        return []
    return [
        Warning(
            "DEBUG is True: a worker keeps up to 9,000 statements per thread in memory.",
            hint="Set DEBUG = False where workers run.",
            id=_id("W003"),
        )
    ]


@register(CHECKS, Tags.database)
def check_database(
    app_configs: Sequence[AppConfig] | None,  # noqa: ARG001 -- as above
    databases: Sequence[str] | None = None,
    **_kwargs: Any,
) -> list[CheckMessage]:
    """Ask the jobs' database itself: its version, and whether its tables are there and up to date."""
    database = get_settings().database
    if database not in (databases or []) or database not in connections or type(dialect_of(database)) is Dialect:
        return []
    dialect = dialect_of(database)
    found: list[CheckMessage] = [
        Error(text, hint=hint, id=_id(number)) for number, text, hint in dialect.database_problems()
    ]
    if _migrating():
        return found
    with connections[database].cursor() as cursor:
        tables = connections[database].introspection.table_names(cursor)
    hint = f"Run: manage.py migrate --database {database}"
    if Job._meta.db_table not in tables:
        text = f"The tables of durable jobs are not in the database {database!r} ({SETTING}['DATABASE'])."
        found.append(Error(text, hint=hint, id=_id("E009")))
    elif missing := _missing_migrations(database):
        text = f"The database {database!r} ({SETTING}['DATABASE']) lacks migrations of {APP}: {', '.join(missing)}."
        found.append(Error(text, hint=hint, id=_id("E012")))
    return found


def _missing_migrations(database: str) -> list[str]:
    home, _explicit = MigrationLoader.migrations_module(APP)
    if home is None:
        return []  # MIGRATION_MODULES turns them off, as test settings do
    # Only our own: a loader would import the migrations of every app, at each start of a worker.
    ours = {module.name for module in pkgutil.iter_modules(import_module(home).__path__) if module.name[0] not in "_~"}
    applied = {name for app, name in MigrationRecorder(connections[database]).applied_migrations() if app == APP}
    return sorted(ours - applied)


def _migrating() -> bool:
    """Answer whether this process is ``manage.py migrate``, which runs these checks before it makes the tables."""
    return sys.argv[1:2] == ["migrate"]
