"""PostgreSQL only: how the tables are stored and vacuumed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import migrations

from django_durable_jobs.dialects import dialect_of

if TYPE_CHECKING:
    from django.apps.registry import Apps
    from django.db.backends.base.schema import BaseDatabaseSchemaEditor


def _tune(_apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    dialect_of(schema_editor.connection.alias).tune_tables(schema_editor, back=False)


def _back(_apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    dialect_of(schema_editor.connection.alias).tune_tables(schema_editor, back=True)


class Migration(migrations.Migration):
    """Set the storage parameters; backwards: take them away."""

    dependencies = [("django_durable_jobs", "0001_initial")]

    operations = [migrations.RunPython(_tune, _back)]
