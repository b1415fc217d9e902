"""System checks: what a project must change before its jobs can be relied on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004 -- Django's name
from django.db import connections, router

from .conf import SETTING, get_settings, problems
from .dialects import dialect_of
from .models import Job


def _id(number: str) -> str:
    return f"django_durable_jobs.{number}"


@register(Tags.compatibility)
def check_settings(app_configs: Sequence[AppConfig] | None, **_kwargs: Any) -> list[CheckMessage]:  # noqa: ARG001 -- Django's interface
    """Report unusable settings, each with the value that is wrong and what to write."""
    found: list[CheckMessage] = [Error(text, hint=hint, id=_id(number)) for number, text, hint in problems()]
    database = get_settings().database
    if database not in connections:
        known = ", ".join(connections)
        found.append(
            Error(
                f"{SETTING}['DATABASE'] is {database!r}, which is not in DATABASES.",
                hint=f"Use one of: {known}.",
                id=_id("E005"),
            )
        )
        return found
    if not django_settings.USE_TZ:
        found.append(
            Error("USE_TZ is False.", hint="Durable jobs store instants: set USE_TZ = True.", id=_id("E007"))
        )
    if not router.allow_migrate_model(database, Job):
        found.append(
            Error(
                f"DATABASE_ROUTERS keep the jobs' tables off the database {database!r} that {SETTING}['DATABASE'] names.",
                hint="Let the router allow django_durable_jobs there, or name the database it allows.",
                id=_id("E008"),
            )
        )
    if connections[database].settings_dict.get("ATOMIC_REQUESTS"):
        found.append(
            Warning(
                "ATOMIC_REQUESTS is on: jobs enqueued in a view exist only when the response is done.",
                hint="This is safe; silence it if it is meant.",
                id=_id("W001"),
            )
        )
    found += [Warning(text, hint=hint, id=_id(number)) for number, text, hint in dialect_of(database).database_warnings()]
    return found


@register(Tags.database)
def check_database(
    app_configs: Sequence[AppConfig] | None,  # noqa: ARG001 -- Django's interface
    databases: Sequence[str] | None = None,
    **_kwargs: Any,
) -> list[CheckMessage]:
    """Ask the jobs' database itself: its version, and whether its tables are there."""
    database = get_settings().database
    if database not in (databases or []) or database not in connections:
        return []
    dialect = dialect_of(database)
    found: list[CheckMessage] = [Error(text, hint=hint, id=_id(number)) for number, text, hint in dialect.database_problems()]
    with connections[database].cursor() as cursor:
        tables = connections[database].introspection.table_names(cursor)
    if Job._meta.db_table not in tables:
        found.append(
            Error(
                f"The tables of durable jobs are not in the database {database!r} ({SETTING}['DATABASE']).",
                hint=f"Run: manage.py migrate --database {database}",
                id=_id("E009"),
            )
        )
    return found
