"""The database's own time as an expression for the ORM; the SQL of it stands in each dialect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.models import DateTimeField, Func

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models.sql.compiler import SQLCompiler


class DatabaseNow(Func):
    """The present instant by the clock of the jobs' database, the same for the whole statement."""

    output_field = DateTimeField()

    def as_sql(
        self,
        compiler: SQLCompiler,
        connection: BaseDatabaseWrapper,
        function: str | None = None,
        template: str | None = None,
        arg_joiner: str | None = None,
        **_extra_context: Any,
    ) -> tuple[str, tuple[str | int, ...]]:
        """Ask the dialect of the connection that compiles the query."""
        from . import dialect_of  # noqa: PLC0415 -- the package imports this module

        return dialect_of(connection.alias).now_sql(), ()
