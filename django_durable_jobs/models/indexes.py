"""Indexes over some rows only, on databases with and without partial indexes."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Any

from django.db import models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

NOTHING = "DO 0"
"""What MariaDB and MySQL execute where there is nothing to be done; Django executes something in any case."""


class StatusIndex(models.Index):
    """Index ``fields`` of the rows whose status is one of ``statuses``.

    PostgreSQL and SQLite keep it as a partial index, so finished jobs cost it nothing. MariaDB and MySQL have
    none: there the same index leads with ``status`` and finds the same rows by its first column.
    """

    def __init__(self, *, fields: list[str], name: str, statuses: list[str]) -> None:
        """Take the columns in index order; ``statuses`` are stored values."""
        super().__init__(fields=fields, name=name)
        self.statuses = sorted(statuses)

    def deconstruct(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        """Give migrations what they need to make this index again."""
        path, args, kwargs = super().deconstruct()
        return path, tuple(args), {**kwargs, "statuses": self.statuses}

    def create_sql(
        self, model: type[models.Model], schema_editor: BaseDatabaseSchemaEditor, using: str = "", **kwargs: Any
    ) -> Any:
        """Write the index in the form that the database has."""
        if schema_editor.connection.features.supports_partial_indexes:
            # Written as JobQuerySet.in_status() writes it: SQLite uses a partial index only for the same expression.
            any_of = reduce(or_, (models.Q(status=status) for status in self.statuses))
            plain = models.Index(fields=self.fields, name=self.name, condition=any_of)
        else:
            plain = models.Index(fields=["status", *self.fields], name=self.name)
        return plain.create_sql(model, schema_editor, using=using, **kwargs)


class PresentIndex(models.Index):
    """Index ``fields`` of the rows in which the first of them is set; of all rows where indexes cannot be partial."""

    def create_sql(
        self, model: type[models.Model], schema_editor: BaseDatabaseSchemaEditor, using: str = "", **kwargs: Any
    ) -> Any:
        """Write the index in the form that the database has."""
        partial = schema_editor.connection.features.supports_partial_indexes
        condition = models.Q(**{f"{self.fields[0]}__isnull": False}) if partial else None
        plain = models.Index(fields=self.fields, name=self.name, condition=condition)
        return plain.create_sql(model, schema_editor, using=using, **kwargs)


class ExpiryIndex(StatusIndex):
    """The same, of rows in which the first field is set: few jobs have it, and the others pay nothing for it."""

    def create_sql(
        self, model: type[models.Model], schema_editor: BaseDatabaseSchemaEditor, using: str = "", **kwargs: Any
    ) -> Any:
        """Write the index in the form that the database has; without a condition it is of all rows."""
        some = None
        if schema_editor.connection.features.supports_partial_indexes:
            any_of = reduce(or_, (models.Q(status=status) for status in self.statuses))
            some = any_of & models.Q(**{f"{self.fields[0]}__isnull": False})
        plain = models.Index(fields=self.fields, name=self.name, condition=some)
        return plain.create_sql(model, schema_editor, using=using, **kwargs)


class TenantIndex(models.Index):
    """Index ``fields`` of the pending rows that have a tenant; not at all where indexes cannot be partial.

    There it would be written for every job, and it is only asked for by queues that give tenants fair turns.
    """

    def create_sql(
        self, model: type[models.Model], schema_editor: BaseDatabaseSchemaEditor, using: str = "", **kwargs: Any
    ) -> Any:
        """Write the index where the database can."""
        if not schema_editor.connection.features.supports_partial_indexes:
            return NOTHING
        some = models.Q(status="pending", tenant__isnull=False)
        return models.Index(fields=self.fields, name=self.name, condition=some).create_sql(
            model, schema_editor, using=using, **kwargs
        )

    def remove_sql(self, model: type[models.Model], schema_editor: BaseDatabaseSchemaEditor, **kwargs: Any) -> Any:
        """Drop it where there is one."""
        partial = schema_editor.connection.features.supports_partial_indexes
        return super().remove_sql(model, schema_editor, **kwargs) if partial else NOTHING


class UnannouncedIndex(models.Index):
    """Index the events that jobs may not have been told of: rows without ``job`` and ``consumed_at``, very few.

    Where indexes cannot be partial, it leads with both and finds the same rows.
    """

    def create_sql(
        self, model: type[models.Model], schema_editor: BaseDatabaseSchemaEditor, using: str = "", **kwargs: Any
    ) -> Any:
        """Write the index in the form that the database has."""
        if schema_editor.connection.features.supports_partial_indexes:
            condition = models.Q(job__isnull=True, consumed_at__isnull=True)
            plain = models.Index(fields=self.fields, name=self.name, condition=condition)
        else:
            plain = models.Index(fields=["job", "consumed_at", *self.fields], name=self.name)
        return plain.create_sql(model, schema_editor, using=using, **kwargs)
