"""Who ordered what, in the admin."""

from __future__ import annotations

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from ..models import AuditEntry
from ..rendering import visible
from .base import ViewOnly
from .filters import OutcomeFilter, TargetFilter
from .showing import badge, in_list, instant_in_list


@admin.register(AuditEntry)
class AuditAdmin(ViewOnly):
    """One row per order, the newest first."""

    ordering = ("-id",)
    list_filter = (TargetFilter, OutcomeFilter)
    list_display = ("at", "who", "order", "shown_name", "shown_outcome", "through")
    fields = ("at", "who", "order", "shown_name", "through", "shown_given", "shown_outcome", "shown_answer")
    readonly_fields = fields

    @admin.display(description=_("ordered at"))
    def at(self, entry: AuditEntry) -> str:
        """When."""
        return instant_in_list(entry.ordered_at)

    @admin.display(description=_("by"))
    def who(self, entry: AuditEntry) -> str:
        """Who."""
        return in_list(entry.by) or "–"

    @admin.display(description=_("order"))
    def order(self, entry: AuditEntry) -> str:
        """What, to what kind of thing."""
        return f"{entry.verb} {entry.target}"

    @admin.display(description=_("name"))
    def shown_name(self, entry: AuditEntry) -> str:
        """Which of them."""
        return in_list(entry.name)

    @admin.display(description=_("through"))
    def through(self, entry: AuditEntry) -> str:
        """Where the order was given."""
        return entry.surface

    @admin.display(description=_("given"))
    def shown_given(self, entry: AuditEntry) -> str:
        """What the order said besides."""
        given = entry.given if isinstance(entry.given, dict) else {}
        return visible("; ".join(f"{name}: {value}" for name, value in given.items())) or "–"

    @admin.display(description=_("outcome"))
    def shown_outcome(self, entry: AuditEntry) -> str:
        """What came of it."""
        return badge(entry.outcome)

    @admin.display(description=_("answer"))
    def shown_answer(self, entry: AuditEntry) -> str:
        """Why it was refused."""
        return visible(entry.answer) or "–"
