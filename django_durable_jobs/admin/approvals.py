"""Approvals in the admin: what jobs ask people, and the answers."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from ..models import Approval
from ..operations.catalogue import Verb
from ..rendering import visible
from .actions import actions_for
from .filters import DecisionFilter
from .ordering import TakesOrders
from .showing import badge, in_list, instant, instant_in_list

SHOWN: int = 10_000
"""Characters of the details that a page shows."""


@admin.register(Approval)
class ApprovalAdmin(TakesOrders):
    """One row per question; what is not decided can be."""

    ordering = ("-id",)
    list_filter = (DecisionFilter,)
    list_display = ("shown_title", "state", "job_link", "requested", "until", "by")
    fields = ("shown_title", "state", "job_link", "shown_details", "requested", "until", "by", "at", "shown_comment")
    readonly_fields = fields
    target = "approval"
    actions = actions_for(Approval, "approval")

    def may_see_values(self, request: HttpRequest) -> bool:
        """Whether the user may see what the job's code has said."""
        return request.user.has_perm("django_durable_jobs.view_arguments")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """The details are values of the job's code: they have their permission."""
        hidden = set() if self.may_see_values(request) else {"shown_details"}
        return tuple(name for name in self.fields if name not in hidden)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Approval]:
        """Leave out what a list does not show."""
        return super().get_queryset(request).select_related(None)

    def is_key(self, text: str) -> bool:
        """Answer whether a text can be the number of an approval."""
        return text.isascii() and text.isdigit() and len(text) < len(str(2**63))

    def applies(self, _verb: Verb, row: Approval) -> bool:
        """What is decided stays so."""
        return row.decision is None

    @admin.display(description=_("title"))
    def shown_title(self, approval: Approval) -> str:
        """The question."""
        return in_list(approval.title)

    @admin.display(description=_("decision"))
    def state(self, approval: Approval) -> str:
        """What was decided, or that it is open."""
        return badge(approval.decision or "open")

    @admin.display(description=_("job"))
    def job_link(self, approval: Approval) -> str:
        """The job that asks."""
        address = reverse(f"{self.admin_site.name}:django_durable_jobs_job_change", args=[approval.job_id])
        return format_html('<a class="ddj-mono" href="{}">{}</a>', address, approval.job_id)

    @admin.display(description=_("details"))
    def shown_details(self, approval: Approval) -> str:
        """What the job says besides, as JSON."""
        return visible(approval.details[:SHOWN]) or "–"

    @admin.display(description=_("asked"))
    def requested(self, approval: Approval) -> str:
        """When the job asked."""
        return instant_in_list(approval.requested_at)

    @admin.display(description=_("until"))
    def until(self, approval: Approval) -> str:
        """Until when it can be decided."""
        return instant(approval.expires_at) or "–"

    @admin.display(description=_("decided by"))
    def by(self, approval: Approval) -> str:
        """Who decided."""
        return in_list(approval.decided_by) or "–"

    @admin.display(description=_("decided at"))
    def at(self, approval: Approval) -> str:
        """When it was decided."""
        return instant(approval.decided_at) or "–"

    @admin.display(description=_("comment"))
    def shown_comment(self, approval: Approval) -> str:
        """What the person said."""
        return visible(approval.comment) or "–"
