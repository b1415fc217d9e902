"""PostgreSQL only: how the tables are stored and vacuumed."""

from django.db import migrations


def _tune(apps, schema_editor):
    from django_durable_jobs.dialects import dialect_of

    dialect_of(schema_editor.connection.alias).tune_tables(schema_editor, back=False)


def _back(apps, schema_editor):
    from django_durable_jobs.dialects import dialect_of

    dialect_of(schema_editor.connection.alias).tune_tables(schema_editor, back=True)


class Migration(migrations.Migration):
    dependencies = [("django_durable_jobs", "0001_initial")]

    operations = [migrations.RunPython(_tune, _back)]
