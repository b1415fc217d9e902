"""Jobs in the admin: the list, the page of one job with its attempts and calls, and the orders a job can be given."""

from __future__ import annotations

import re
from typing import Any, Final
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.utils import flatten_fieldsets
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from .. import registry
from ..errors import TransitionRefused
from ..ids import parse_id
from ..models import Job
from ..operations.catalogue import Verb
from ..operations.delete import delete
from ..states import DUE_LATER, FINAL, Status
from .actions import actions_for
from .details import job_details, stored_text
from .filters import CreatedFilter, DefinitionFilter, QueueFilter, StatusFilter
from .ordering import TakesOrders
from .showing import PAGE_LIMIT, badge, cut, in_list, instant, instant_in_list

ID_PREFIX: Final = re.compile(r"[0-9a-f]{4,31}")
SEARCH_LENGTH: Final = 200


@admin.register(Job)
class JobAdmin(TakesOrders):
    """What operators ask of a job: where it is, what went wrong, what it did already; and to run it again."""

    ordering = ("-id",)
    list_filter = (StatusFilter, QueueFilter, DefinitionFilter, CreatedFilter)
    list_select_related = ("worker",)
    search_fields = ("id",)  # shows the field; what it finds is `get_search_results`
    search_help_text = _("An id or its beginning (4 characters or more), or a part of a definition's name.")
    target = "job"
    actions = actions_for(Job, "job")
    change_form_template = "admin/django_durable_jobs/job/change_form.html"
    fieldsets = (
        (
            None,
            {
                "fields": (
                    "shown_id",
                    "shown_definition",
                    ("shown_status", "attempts_made"),
                    ("shown_queue", "priority"),
                    "shown_progress",
                )
            },
        ),
        (_("Times"), {"fields": (("created", "due"), ("started", "finished"), ("held_by", "lease"))}),
    )

    # Permissions ----------------------------------------------------------------------------------------------

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whether the user may delete jobs; which of them can be is the operation's answer, with its reason."""
        return request.user.has_perm("django_durable_jobs.delete_job")

    def may_see_values(self, request: HttpRequest) -> bool:
        """Whether the user may see arguments, results and errors."""
        return request.user.has_perm("django_durable_jobs.view_arguments")

    # List -----------------------------------------------------------------------------------------------------

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        """Leave out what may be large."""
        return super().get_queryset(request).defer("payload", "result", "options")

    def get_list_display(self, request: HttpRequest) -> tuple[str, ...]:
        """The error is a value of the job's code: it has its permission."""
        error = ("error",) if self.may_see_values(request) else ()
        rest = ("shown_queue", "attempts_made", "created", "moment")
        return ("shown_id", "shown_definition", "shown_status", *error, *rest)

    def get_search_results(
        self,
        request: HttpRequest,
        queryset: QuerySet[Job],
        search_term: str,
    ) -> tuple[QuerySet[Job], bool]:
        """Find by id through the primary key, by definition through the registry: no text is searched."""
        term = search_term.strip()
        if not term:
            return queryset, False
        if len(term) > SEARCH_LENGTH:
            return queryset.none(), False
        if (job_id := parse_id(term)) is not None:
            return queryset.filter(id=job_id), False
        names = [name for name in registry.names() if term.lower() in name.lower()]
        found = Q(definition__in=[*names, term])
        digits = term.lower().replace("-", "")
        if ID_PREFIX.fullmatch(digits):
            within = Q(id__gte=UUID(digits.ljust(32, "0")), id__lte=UUID(digits.ljust(32, "f")))
            # Only where a name matches too: an OR would keep the database from using the primary key.
            found = within | found if names else within
        return queryset.filter(found), False

    def is_key(self, text: str) -> bool:
        """Answer whether a text can be the id of a job."""
        return parse_id(text) is not None

    # Page -----------------------------------------------------------------------------------------------------

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Job | None:
        """Read one job; of its values only the beginning, and only for those who may see them."""
        job_id = parse_id(object_id)
        if job_id is None:
            return None
        jobs = self.get_queryset(request).select_related("worker")
        if self.may_see_values(request):
            jobs = cut(jobs, PAGE_LIMIT, "payload", "result", "options", "last_error")
        found: Job | None = jobs.filter(id=job_id).first()
        return found

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """The same for everyone."""
        return self.fieldsets

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Everything: a page shows, orders change."""
        return flatten_fieldsets(self.fieldsets)

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> HttpResponse:
        """Add attempts, calls and values, and the orders this user may give."""
        job = kwargs.get("obj")
        if job is not None:
            context |= job_details(job, request.GET, values=self.may_see_values(request))
        return super().render_change_form(request, context, *args, **kwargs)

    # Orders ---------------------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        """Give stored texts an address below a job's page."""
        own = [
            path(
                "<uuid:job_id>/text/<slug:what>/<int:row>/",
                self.admin_site.admin_view(self.text_view),
                name="durable_job_text",
            ),
        ]
        return [*own, *super().get_urls()]

    def applies(self, verb: Verb, row: Job) -> bool:
        """Answer by the status; one that is about to be paused can be resumed, too."""
        pausing = row.status == Status.RUNNING and row.pause_requested_at is not None
        if verb.name in {"pause", "resume"} and pausing:
            return verb.name == "resume"
        return row.status in verb.statuses

    def text_view(self, request: HttpRequest, job_id: UUID, what: str, row: int) -> HttpResponse:
        """Give a stored text in full, as a file: a browser shows none of it."""
        if not (self.has_view_permission(request) and self.may_see_values(request)):
            raise PermissionDenied
        text = stored_text(job_id, what, row)
        if text is None:
            raise Http404
        return HttpResponse(
            text,
            content_type="text/plain; charset=utf-8",
            headers={
                "Content-Disposition": f'attachment; filename="{what}.txt"',
                "X-Content-Type-Options": "nosniff",
            },
        )

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Ask, then delete; a running job says why not."""
        try:
            return super().delete_view(request, object_id, extra_context)
        except TransitionRefused as refusal:
            self.message_user(request, str(refusal), messages.ERROR)
            page = reverse(f"{self.admin_site.name}:django_durable_jobs_job_change", args=[object_id])
            return HttpResponseRedirect(page)

    def response_delete(self, request: HttpRequest, obj_display: str, obj_id: int) -> HttpResponse:
        """Go back to the list; Django takes those who may change nothing to the front page."""
        self.message_user(request, _("%(job)s is deleted.") % {"job": obj_display}, messages.SUCCESS)
        return HttpResponseRedirect(reverse(f"{self.admin_site.name}:django_durable_jobs_job_changelist"))

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Name the job; Django would load each attempt and call, and show their texts to everyone."""
        for job in objs:
            if job.status == Status.RUNNING:
                raise TransitionRefused(f"Job {job.id} is running: it can be deleted when its worker is done with it.")
        jobs = [str(job) for job in objs]
        return jobs, {ngettext("job", "jobs", len(jobs)): len(jobs)}, set(), []

    def delete_model(self, request: HttpRequest, obj: Job) -> None:
        """Delete through the operation, which asks for the status once more, under its lock."""
        delete(obj)

    # Columns and fields ---------------------------------------------------------------------------------------

    @admin.display(description=_("id"))
    def shown_id(self, job: Job) -> str:
        """The id, in letters of one width."""
        return format_html('<span class="ddj-mono">{}</span>', job.id)

    @admin.display(description=_("definition"))
    def shown_definition(self, job: Job) -> str:
        """The name of the function."""
        return in_list(job.definition)

    @admin.display(description=_("queue"))
    def shown_queue(self, job: Job) -> str:
        """The queue."""
        return in_list(job.queue)

    @admin.display(description=_("status"))
    def shown_status(self, job: Job) -> str:
        """The status, coloured."""
        return badge(job.status)

    @admin.display(description=_("attempts"))
    def attempts_made(self, job: Job) -> str:
        """How many of how many, and how often a worker was lost."""
        text = f"{job.attempt} / {job.max_attempts}"
        return f"{text}, {job.rescues} × worker lost" if job.rescues else text

    @admin.display(description=_("progress"))
    def shown_progress(self, job: Job) -> str:
        """How far the job has said that it has come; the words with it stand among its values."""
        found = job.progress if isinstance(job.progress, dict) else {}
        numbers = [str(found[name]) for name in ("current", "total") if found.get(name) is not None]
        return in_list(" / ".join(numbers)) or "–"

    @admin.display(description=_("created"))
    def created(self, job: Job) -> str:
        """Time of the enqueue."""
        return instant_in_list(job.created_at)

    @admin.display(description=_("not before"))
    def due(self, job: Job) -> str:
        """When it may run."""
        return instant(job.run_at) or "–"

    @admin.display(description=_("started"))
    def started(self, job: Job) -> str:
        """Time of the last claim."""
        return instant(job.started_at) or "–"

    @admin.display(description=_("finished"))
    def finished(self, job: Job) -> str:
        """Time of its end."""
        return instant(job.finished_at) or "–"

    @admin.display(description=_("worker"))
    def held_by(self, job: Job) -> str:
        """Who runs it."""
        return in_list(job.worker.name) if job.worker is not None else "–"

    @admin.display(description=_("lease until"))
    def lease(self, job: Job) -> str:
        """When it is taken from a silent worker."""
        return instant(job.lease_expires_at) or "–"

    @admin.display(description=_("when"))
    def moment(self, job: Job) -> str:
        """The time that matters in this status."""
        status = Status(job.status)
        if status is Status.RUNNING:
            name = in_list(job.worker.name) if job.worker is not None else "?"
            return format_html("on {} since {}", name, instant_in_list(job.started_at))
        if status in FINAL:
            return format_html("ended {}", instant_in_list(job.finished_at))
        return format_html("due {}", instant_in_list(job.run_at)) if status in DUE_LATER else ""

    @admin.display(description=_("error"))
    def error(self, job: Job) -> str:
        """What the last unsuccessful attempt said."""
        return in_list(job.last_error)
