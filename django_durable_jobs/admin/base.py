"""What the lists and pages of all our models share: nothing is added or changed, and no list counts its table."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest

from ..operations.database import alias

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Any]
    _Paginator = Paginator[Any]
else:
    _ModelAdmin = admin.ModelAdmin
    _Paginator = Paginator

COUNTED: Final = 10_000
"""Up to this many rows a list counts and pages through; beyond it, filters are the way."""


class CappedPaginator(_Paginator):
    """Counts as far as ``COUNTED``: the count of a million rows would cost more than the page."""

    object_list: QuerySet[Any]

    @cached_property
    def counted(self) -> int:
        """The number of rows, or ``COUNTED + 1`` when there are more."""
        return self.object_list.order_by().values("pk")[: COUNTED + 1].count()

    @property
    def count(self) -> int:
        """The number of rows that can be paged through."""
        return min(self.counted, COUNTED)


class BoundedList(ChangeList):
    """A list in one order, filtered by its own filters only.

    Django allows every column as a lookup and as an order in the address. Ours may hold what the reader has no
    permission to see, and have no index.
    """

    model_admin: ViewOnly
    paginator: CappedPaginator
    more_than_counted = False

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[Any]:
        """Ignore what the address asks for."""
        return list(self.model_admin.get_ordering(request))

    def get_filters_params(self, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the filters in the address; an unknown one leads back to the list without filters."""
        found: dict[str, Any] = super().get_filters_params(params)
        known = {entry.parameter_name for entry in self.list_filter}  # type: ignore[union-attr]  # ours are classes
        if unknown := set(found) - known:
            raise IncorrectLookupParameters(f"No filter is called {min(unknown)[:80]!r}.")
        return found

    def get_results(self, request: HttpRequest) -> None:
        """Read the page, and let the admin add what it knows about all its rows with one query."""
        super().get_results(request)
        self.more_than_counted = self.paginator.counted > COUNTED
        found = self.result_list
        # What fits on one page comes without a limit, and with it the plan that would suit the whole table.
        rows = list(found[: self.list_per_page] if isinstance(found, QuerySet) and not found.query.is_sliced else found)
        self.model_admin.prepare(rows)
        self.result_list = rows


class ViewOnly(_ModelAdmin):
    """Lists and pages to look at."""

    paginator = CappedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 100
    list_max_show_all = 100
    sortable_by = ()
    actions: Sequence[Any] = ()

    class Media:
        css: ClassVar = {"all": ["django_durable_jobs/admin.css"]}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Ask the database that the setting ``DATABASE`` names, whatever routers say."""
        return super().get_queryset(request).using(alias())

    def prepare(self, rows: list[Any]) -> None:
        """Add to the rows of a page what takes a query; called once per page."""

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Model | None:
        """Read the row of a page."""
        found: Model | None = super().get_object(request, object_id, from_field)
        if found is not None:
            self.prepare([found])
        return found

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Use the bounded list."""
        return BoundedList

    def get_actions(self, request: HttpRequest, action_location: Any = None) -> dict[str, Any]:
        """Offer our own actions only: those of the site, deletion among them, load and change rows directly."""
        # Django before 6.1 knows one place of actions, the list, and asks without naming it.
        place = {} if action_location is None else {"action_location": action_location}
        own = {getattr(action, "__name__", action) for action in self.actions}
        return {name: action for name, action in super().get_actions(request, **place).items() if name in own}

    def has_add_permission(self, request: HttpRequest, *_args: Any) -> bool:
        """Rows are added by operations."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Rows are changed by operations."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Rows are deleted by operations."""
        return False
