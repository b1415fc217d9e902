"""Fields whose column differs from one database to another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models

from ..dialects import dialect_of

if TYPE_CHECKING:
    # Field types are generic in the stubs, and in Django not subscriptable: to type checkers this is its base.
    NameField = models.CharField
else:

    class NameField(models.CharField):
        """A name or key: equal only to itself, as everywhere in Python.

        MariaDB and MySQL compare texts without regard to case unless told otherwise; a worker of the queue "mail"
        would be given the jobs of "Mail".
        """

        def db_parameters(self, connection: Any) -> dict[str, Any]:
            """Add the collation that compares exactly, where that is not the default."""
            collation = dialect_of(connection.alias).exact_collation
            return {**super().db_parameters(connection), **({"collation": collation} if collation else {})}
