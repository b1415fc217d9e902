"""What the pages of jobs, queues, workers and approvals share: orders to many rows, and buttons for one."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from ..operations.catalogue import Target, Verb, verb_of, verbs_of
from .actions import give, may_give
from .base import ViewOnly

BY_BUTTON: frozenset[str] = frozenset({"pause", "resume", "retry"})
"""Orders that a click gives, since another one takes them back; the others ask first."""


class TakesOrders(ViewOnly):
    """Lists and pages whose rows can be given orders; who may is asked for each order."""

    target: ClassVar[Target]
    change_form_template = "admin/django_durable_jobs/ordered_form.html"

    @property
    def verbs(self) -> list[Verb]:
        """The orders to this kind of row."""
        return verbs_of(self.target)

    def get_actions(self, request: HttpRequest, action_location: Any = None) -> dict[str, Any]:
        """Offer the orders that the user may give."""
        allowed = {verb.name for verb in self.verbs if may_give(request, verb)}
        found = super().get_actions(request, action_location)
        return {name: action for name, action in found.items() if name in allowed}

    def is_key(self, text: str) -> bool:
        """Answer whether a text can be the key of a row."""
        return bool(text) and text.isprintable()

    def action_checkbox(self, obj: Any) -> SafeString:
        """Offer none for a row that only hostile SQL can have made: its key would stand in the page as it is."""
        return super().action_checkbox(obj) if self.is_key(str(obj.pk)) else SafeString()

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Refuse an order that the user has no permission for, and a selection that no list of ours has made."""
        if request.method == "POST":
            orders = {verb.name: verb for verb in self.verbs}
            given = [orders[name] for name in request.POST.getlist("action") if name in orders]
            if not all(may_give(request, verb) for verb in given):
                raise PermissionDenied
            if not all(map(self.is_key, request.POST.getlist(ACTION_CHECKBOX_NAME))):
                self.message_user(request, _("The selection was not understood; nothing was done."), messages.ERROR)
                return HttpResponseRedirect(request.get_full_path())
        return super().changelist_view(request, extra_context)

    # One row --------------------------------------------------------------------------------------------------

    def applies(self, verb: Verb, row: Any) -> bool:
        """Answer whether an order makes sense for a row as it is now."""
        paused = row.paused_at is not None
        return paused == (verb.name == "resume")

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> HttpResponse:
        """Add the orders this user may give to this row."""
        row = kwargs.get("obj")
        if row is not None:
            verbs = [verb for verb in self.verbs if may_give(request, verb) and self.applies(verb, row)]
            context |= {
                "buttons": [verb for verb in verbs if verb.name in BY_BUTTON],
                # The page of a job has the admin's own button to delete it.
                "asked": [verb for verb in verbs if verb.name not in BY_BUTTON and verb.permission != "delete_job"],
                "key": str(row.pk),
                "page": self._page(row.pk).removesuffix("change/"),
                "list": reverse(f"{self._names}_changelist"),
                "checkbox": ACTION_CHECKBOX_NAME,
            }
        return super().render_change_form(request, context, *args, **kwargs)

    def get_urls(self) -> list[URLPattern]:
        """An address below the page of a row for each order that a button gives."""
        view = self.admin_site.admin_view(self.order_view)
        own = [
            path(f"<path:object_id>/{verb.name}/", partial(view, name=verb.name))
            for verb in self.verbs
            if verb.name in BY_BUTTON
        ]
        return [*own, *super().get_urls()]

    def order_view(self, request: HttpRequest, object_id: str, name: str) -> HttpResponse:
        """Give one row an order and go back to its page."""
        key = unquote(object_id)
        verb = verb_of(self.target, name)
        if not (self.has_view_permission(request) and may_give(request, verb)):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        rows = self.get_queryset(request)
        give(verb, self, request, rows.filter(pk=key) if self.is_key(key) else rows.none())
        return HttpResponseRedirect(self._page(key))

    def _page(self, key: Any) -> str:
        return reverse(f"{self._names}_change", args=[quote(key)])

    @property
    def _names(self) -> str:
        return f"{self.admin_site.name}:{self.opts.app_label}_{self.opts.model_name}"
