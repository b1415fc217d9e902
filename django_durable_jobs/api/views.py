"""The views: what they share, lists, details, and orders. What is shown stands in ``operations/describe.py``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, ClassVar, Final, Literal
from uuid import UUID

from django.db.models import QuerySet
from django.http import Http404
from rest_framework.permissions import BasePermission
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from ..errors import OptionError
from ..ids import parse_id
from ..models import Queue, Worker
from ..operations import describe
from ..operations.approvals import pending_approvals
from ..operations.batches import batches
from ..operations.catalogue import Target, carry_out, verb_of
from ..operations.database import alias, can_be_asked_for, jobs
from ..operations.explain import explain
from ..operations.orders import LONGEST_BY
from ..operations.submit import submit
from ..rendering import safe_repr
from ..states import Status
from .errors import handle
from .parsing import BoundedJSON

PAGE: Final = 100
LARGEST_PAGE: Final = 1000
PERMISSIONS: Final = "django_durable_jobs"
BODY: Final = frozenset({"definition", "args", "kwargs", "options"})
"""What an enqueue says."""


class HasPermission(BasePermission):
    """The user has the permission that the view names for this request; without a name nobody has it."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Ask."""
        needed = view.needed(request)
        return bool(needed and request.user.is_authenticated and request.user.has_perm(f"{PERMISSIONS}.{needed}"))


class ManagementView(APIView):
    """JSON in and out, one permission per view, errors in one form.

    Only who somebody is, is the project's choice (``DEFAULT_AUTHENTICATION_CLASSES``): what he may is asked here.
    """

    permission_classes = (HasPermission,)
    parser_classes = (BoundedJSON,)
    renderer_classes = (JSONRenderer,)
    permission = ""

    def needed(self, _request: Request) -> str:
        """Return the code name of the permission that this request needs."""
        return self.permission

    def get_exception_handler(self) -> Callable[[Exception, Any], Response | None]:
        """Use our form, whatever the project uses."""
        return handle

    def may_see_values(self) -> bool:
        """Whether the user may see arguments, results and errors."""
        return bool(self.request.user.has_perm(f"{PERMISSIONS}.view_arguments"))


# Lists --------------------------------------------------------------------------------------------------------------


def exact(name: str) -> Callable[[str], dict[str, Any]]:
    """Filter a column by equality."""

    def read(value: str) -> dict[str, Any]:
        if not can_be_asked_for(value):
            raise OptionError(f"{name} must be a text that a database can hold, not {safe_repr(value, 80)}.")
        return {name: value}

    return read


def _status(value: str) -> dict[str, Any]:
    names = value.split(",")
    known = [status.value for status in Status]
    if unknown := [name for name in names if name not in known]:
        raise OptionError(f"There is no status {safe_repr(unknown[0], 80)}. Known: {', '.join(known)}.")
    return {"status__in": names}


def _id(name: str, kind: str = "a job") -> Callable[[str], dict[str, Any]]:
    def read(value: str) -> dict[str, Any]:
        found = parse_id(value)
        if found is None:
            raise OptionError(f"{name} must be the id of {kind}, not {safe_repr(value, 80)}.")
        return {f"{name}_id": found}

    return read


class ListView(ManagementView):
    """One page of rows, the newest first; the filters are those of a table, and no others."""

    filters: ClassVar[Mapping[str, Callable[[str], dict[str, Any]]]] = {}

    def rows(self) -> QuerySet[Any]:
        """Return all rows."""
        raise NotImplementedError

    def cursor(self, text: str) -> Any:
        """Read the key after which a page begins; raise ``ValueError`` for what is none."""
        return int(text)

    def show(self, row: Any) -> dict[str, Any]:
        """Return what is shown of a row."""
        raise NotImplementedError

    def get(self, request: Request) -> Response:
        """Return a page, and the cursor of the next one."""
        given = request.query_params
        known = {*self.filters, "cursor", "limit"}
        if unknown := sorted(set(given) - known):
            raise OptionError(f"There is no filter {safe_repr(unknown[0], 80)}. Known: {', '.join(sorted(known))}.")
        limit = _limit(given.get("limit"))
        rows = self.rows()
        for name in self.filters.keys() & given.keys():
            rows = rows.filter(**self.filters[name](given[name]))
        if "cursor" in given:
            try:
                rows = rows.filter(pk__lt=self.cursor(given["cursor"]))
            except (ValueError, OverflowError):
                raise OptionError("cursor must be what a page gave as next.") from None
        found = list(rows.order_by("-pk")[: limit + 1])
        page = found[:limit]
        following = str(page[-1].pk) if len(found) > limit else None
        return Response({"results": [self.show(row) for row in page], "next": following})


def _limit(text: str | None) -> int:
    if text is None:
        return PAGE
    if text.isascii() and text.isdigit() and len(text) < len(str(LARGEST_PAGE)) + 1 and 0 < int(text) <= LARGEST_PAGE:
        return int(text)
    raise OptionError(f"limit must be a whole number from 1 to {LARGEST_PAGE}, not {safe_repr(text, 80)}.")


class Jobs(ListView):
    """``GET /v1/jobs``, and ``POST``: enqueue a job of a definition that says ``api=True``."""

    permission = "view_job"
    filters: ClassVar = {
        "status": _status,
        "queue": exact("queue"),
        "definition": exact("definition"),
        "parent": _id("parent"),
        "batch": _id("batch", "a batch"),
    }

    def rows(self) -> QuerySet[Any]:
        """All jobs, without what may be large."""
        return jobs().light().select_related("worker")

    def needed(self, request: Request) -> str:
        """Enqueueing has a permission of its own."""
        return "enqueue_job" if request.method == "POST" else self.permission

    def post(self, request: Request) -> Response:
        """Enqueue; 201, or 200 with the job that was there already."""
        given = request.data
        if not isinstance(given, dict):
            raise OptionError("The body must be a JSON object.")
        if unknown := sorted(given.keys() - BODY):
            raise OptionError(f"There is no {safe_repr(unknown[0], 80)} in a body. Known: {', '.join(sorted(BODY))}.")
        options = given.get("options", {})
        if not isinstance(options, dict):
            raise OptionError(f"options must be a JSON object, not {safe_repr(options, 80)}.")
        by = request.user.get_username()[:LONGEST_BY]
        args, kwargs = given.get("args", []), given.get("kwargs", {})
        job_id, existing = submit(given.get("definition"), args, kwargs, options, by=by, surface="api")
        now = describe.find("job", str(job_id), values=False)
        return Response({"id": str(job_id), "existing": existing, "now": now}, status=200 if existing else 201)

    def cursor(self, text: str) -> Any:
        """A job's id."""
        return UUID(text)

    def show(self, row: Any) -> dict[str, Any]:
        """The line of a list."""
        return describe.job(row, values=self.may_see_values())


class Workers(ListView):
    """``GET /v1/workers``."""

    permission = "view_worker"

    def rows(self) -> QuerySet[Any]:
        """All that are known, with their state."""
        return Worker.objects.using(alias()).with_state()

    def show(self, row: Any) -> dict[str, Any]:
        """All of it."""
        return describe.worker(row)


class Batches(ListView):
    """``GET /v1/batches``."""

    permission = "view_jobbatch"

    def rows(self) -> QuerySet[Any]:
        """All that retention keeps."""
        return batches()

    def cursor(self, text: str) -> Any:
        """A batch's id."""
        return UUID(text)

    def show(self, row: Any) -> dict[str, Any]:
        """All of it."""
        return describe.batch(row)


class Approvals(ListView):
    """``GET /v1/approvals``: what can be decided now."""

    permission = "view_approval"

    def rows(self) -> QuerySet[Any]:
        """Those that are open."""
        return pending_approvals()

    def show(self, row: Any) -> dict[str, Any]:
        """All of it."""
        return describe.approval(row, values=self.may_see_values())


class Queues(ManagementView):
    """``GET /v1/queues``: all of them, with the numbers of their live jobs."""

    permission = "view_queue"

    def get(self, _request: Request) -> Response:
        """Return all queues; there are few."""
        return Response({"results": describe.queues(Queue.objects.using(alias()).order_by("name")), "next": None})


# Details and orders -------------------------------------------------------------------------------------------------


class Detail(ManagementView):
    """``GET /v1/{things}/{key}``."""

    target: Target | Literal["jobbatch"] = "job"
    """Given by the address."""

    def needed(self, _request: Request) -> str:
        """Looking has one permission for each kind of thing."""
        return f"view_{self.target}"

    def get(self, _request: Request, key: str) -> Response:
        """Return the row."""
        found = describe.find(self.target, key, values=self.may_see_values())
        if found is None:
            raise Http404
        return Response(found)


class Explain(ManagementView):
    """``GET /v1/jobs/{id}/explain``: why it is not running."""

    permission = "view_job"

    def get(self, _request: Request, key: str) -> Response:
        """Return the one reason."""
        return Response(asdict(explain(key)))


class Order(ManagementView):
    """``POST /v1/{things}/{key}/{verb}``: carry out an order of the catalogue.

    The body may be empty, or an object with what the order says besides. When this answers with success, it has
    happened; with an error, it has not.
    """

    target: Target = "job"
    """Given by the address."""

    def needed(self, _request: Request) -> str:
        """The permission that the catalogue names; none for an order that there is not, which nobody may then."""
        try:
            return verb_of(self.target, self.kwargs["verb"]).permission
        except OptionError:
            return f"view_{self.target}"

    def post(self, request: Request, key: str, verb: str) -> Response:
        """Give the order."""
        try:
            order = verb_of(self.target, verb)
        except OptionError:
            raise Http404 from None
        given = request.data
        if not isinstance(given, dict):
            raise OptionError("The body must be a JSON object.")
        by = request.user.get_username()[:LONGEST_BY]
        carry_out(order, key, given, by=by, surface="api")
        return Response({"done": f"{order.name} {order.target}", "now": describe.find(self.target, key, values=False)})
