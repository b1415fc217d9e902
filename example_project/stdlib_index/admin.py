"""The index in the admin: for looking, nothing can be changed."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from stdlib_index.models import LedgerRow, Module, Package, Report, UnparsableFile


class ReadOnly(admin.ModelAdmin):  # type: ignore[type-arg]  # Django has no argument there at run time
    """A list and a page per row, without forms."""

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002 - Django's interface
        """Jobs add rows, people do not."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 - as above
        """As above."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 - as above
        """As above."""
        return False


@admin.register(Package)
class PackageAdmin(ReadOnly):
    """Packages, the largest first."""

    list_display = ("name", "files", "indexed_at")
    ordering = ("-files", "name")
    search_fields = ("name",)


@admin.register(Module)
class ModuleAdmin(ReadOnly):
    """Modules, the largest first."""

    list_display = ("path", "lines", "classes", "functions", "imports")
    ordering = ("-lines", "path")
    search_fields = ("path",)


@admin.register(UnparsableFile)
class UnparsableFileAdmin(ReadOnly):
    """Files that do not parse, with the reason."""

    list_display = ("path", "reason")
    ordering = ("path",)


@admin.register(LedgerRow)
class LedgerRowAdmin(ReadOnly):
    """Every run of a call's body."""

    list_display = ("path", "number", "job", "worker", "attempt", "written_at")
    list_filter = ("worker",)
    search_fields = ("path",)
    ordering = ("id",)


@admin.register(Report)
class ReportAdmin(ReadOnly):
    """The totals."""

    list_display = ("run", "packages", "modules", "unparsable", "lines", "written_at")
