"""Orders over many jobs from the list: asked back first, carried out one job at a time, reported by outcome.

What an order does is an operation; here is only how it is asked for and what is said afterwards.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.db import DatabaseError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from ..durable.frames import fields_of
from ..errors import DurableJobsError
from ..models import Job
from ..operations.delete import delete
from ..operations.retry import retry

logger = logging.getLogger("django_durable_jobs.admin")

AT_ONCE: Final = 10_000
"""How many jobs one order takes; a request must end some time, and the rest can be ordered again."""
CHUNK: Final = 500
REASONS: Final = 5
"""How many refusals are shown in full."""


@dataclass(frozen=True)
class Order:
    """One verb: which permission it needs, which operation does it, and how it is logged."""

    name: str
    permission: str
    title: Any
    question: Any
    operation: Callable[[UUID], None]
    flag: int
    note: str


RETRY: Final = Order(
    name="retry",
    permission="retry",
    title=_("Retry selected jobs"),
    question=_("Put these jobs back into their queues? Their code runs again; calls that have a result do not."),
    operation=retry,
    flag=CHANGE,
    note="Retried",
)
DELETE: Final = Order(
    name="delete",
    permission="delete",
    title=_("Delete selected jobs"),
    question=_("Delete these jobs with their attempts and calls? Nothing brings them back."),
    operation=delete,
    flag=DELETION,
    note="",
)


@dataclass
class Report:
    """How an order went."""

    done: int = 0
    refused: list[str] = field(default_factory=list)
    broken: bool = False
    more: bool = False


def as_action(order: Order) -> Callable[..., Any]:
    """Make an admin action of an order."""

    @admin.action(description=order.title, permissions=[order.permission])
    def act(model_admin: Any, request: HttpRequest, queryset: QuerySet[Job]) -> HttpResponse | None:
        if request.POST.get("confirmed") != "yes":
            return _ask(order, model_admin, request, queryset)
        _tell(order, model_admin, request, carry_out(order, request, queryset))
        return None

    act.__name__ = order.name
    return act


def carry_out(order: Order, request: HttpRequest, queryset: QuerySet[Job]) -> Report:
    """Give the order to each job, in commits of their own: a refusal or an error undoes no other one."""
    report = Report()
    for chunk in _chunks(queryset, report):
        done = []
        for job in chunk:
            try:
                order.operation(job.id)
            except DurableJobsError as refusal:
                report.refused.append(str(refusal))
            except DatabaseError:
                fields = fields_of(job, "")  # no worker: this is a web process
                logger.exception("%s of job %s failed; the order ends here", order.name, job.id, extra=fields)
                report.broken = True
                break
            else:
                done.append(job)
        report.done += len(done)
        if done:
            LogEntry.objects.log_actions(request.user.pk, done, order.flag, order.note)  # type: ignore[arg-type]  # who may give orders has one
        if report.broken:
            break
    return report


def _chunks(queryset: QuerySet[Job], report: Report) -> Iterator[list[Job]]:
    """Read what was selected by id, since an order moves jobs out of the filter that found them."""
    rows = queryset.select_related(None).order_by("pk").only("id", "definition", "attempt", "queue")
    left, last = AT_ONCE, None
    while left:
        chunk = list((rows if last is None else rows.filter(pk__gt=last))[: min(CHUNK, left)])
        if not chunk:
            return
        yield chunk
        left, last = left - len(chunk), chunk[-1].pk
    report.more = rows.filter(pk__gt=last).exists()


def _ask(order: Order, model_admin: Any, request: HttpRequest, queryset: QuerySet[Job]) -> HttpResponse:
    counted = queryset.order_by().values("pk")[: AT_ONCE + 1].count()
    context = {
        **model_admin.admin_site.each_context(request),
        "title": order.title,
        "opts": model_admin.opts,
        "media": model_admin.media,
        "order": order,
        "number": min(counted, AT_ONCE),
        "more": counted > AT_ONCE,
        "across": request.POST.get("select_across") == "1",
        "checkbox": ACTION_CHECKBOX_NAME,
        # Also with "all of them": Django looks whether anything was selected before it looks at that.
        "selected": request.POST.getlist(ACTION_CHECKBOX_NAME),
    }
    return TemplateResponse(request, "admin/django_durable_jobs/job/ask.html", context)


def _tell(order: Order, model_admin: Any, request: HttpRequest, report: Report) -> None:
    if report.done:
        text = ngettext("%(verb)s: %(number)d job.", "%(verb)s: %(number)d jobs.", report.done)
        model_admin.message_user(request, text % {"verb": order.title, "number": report.done}, messages.SUCCESS)
    if report.refused:
        number = len(report.refused)
        reasons = " ".join(report.refused[:REASONS])
        text = ngettext("%(number)d job was refused: %(reasons)s", "%(number)d jobs were refused: %(reasons)s", number)
        more = " …" if number > REASONS else ""
        model_admin.message_user(request, text % {"number": number, "reasons": reasons} + more, messages.WARNING)
    if report.broken:
        sorry = _("The database failed; the jobs after that were not touched. The log of the web server says why.")
        model_admin.message_user(request, sorry, messages.ERROR)
    if report.more:
        advice = _("One order takes %(limit)d jobs. More were selected: give the order again for the rest.")
        model_admin.message_user(request, advice % {"limit": AT_ONCE}, messages.WARNING)
    if not (report.done or report.refused or report.broken):
        model_admin.message_user(request, _("None of the selected jobs is there any more."), messages.WARNING)
