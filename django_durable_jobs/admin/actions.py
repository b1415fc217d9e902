"""Orders from the lists: asked back first, carried out one row at a time, reported by outcome.

What an order does is an operation, named in the catalogue; here is only how it is asked for and what is said
afterwards.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.db import DatabaseError
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from ..errors import DurableJobsError
from ..models import Worker
from ..operations.catalogue import Verb, carry_out, verbs_of
from ..operations.orders import LONGEST_BY

logger = logging.getLogger("django_durable_jobs.admin")

AT_ONCE: Final = 10_000
"""How many rows one order takes; a request must end some time, and the rest can be ordered again."""
CHUNK: Final = 500
REASONS: Final = 5
"""How many refusals are shown in full."""
GIVEN: Final = "given_"
"""How the names of the fields begin that say more about an order."""


class Field(NamedTuple):
    """What a page that asks back offers to say."""

    name: str
    label: Any
    kind: str


FIELDS: Final = {
    "reason": Field("reason", _("Reason"), "text"),
    "comment": Field("comment", _("Comment"), "text"),
    "mode": Field("mode", _("What runs"), "mode"),
    "force": Field("force", _("Force: take running jobs from their workers; clear a queue first"), "flag"),
    "wait": Field("wait", _("Wait so many seconds for what runs"), "text"),
    "queue": Field("queue", _("Queue"), "text"),
    "priority": Field("priority", _("Priority (-100 to 100, or its name)"), "text"),
    "concurrency": Field("concurrency", _("At most so many at once"), "text"),
    "rate": Field("rate", _("At most so many begin in each window"), "text"),
    "per": Field("per", _("Window in seconds (1 unless given)"), "text"),
    "burst": Field("burst", _("At most so many at one moment"), "text"),
    "fair": Field("fair", _("Tenants take turns (yes or no)"), "text"),
    "resume_at": Field("resume_at", _("Resume at (ISO 8601, with offset)"), "text"),
}


@dataclass
class Report:
    """How an order went."""

    done: int = 0
    refused: list[str] = field(default_factory=list)
    broken: bool = False
    more: bool = False


def title_of(verb: Verb, things: Any) -> Any:
    """Name an order over selected rows."""
    return format_lazy(_("{verb} selected {things}"), verb=verb.title, things=things)


def actions_for(model: type[Model], target: Any) -> tuple[Callable[..., Any], ...]:
    """Make an admin action of every order to one kind of row."""
    return tuple(as_action(verb, model._meta.verbose_name_plural) for verb in verbs_of(target))


def as_action(verb: Verb, things: Any) -> Callable[..., Any]:
    """Make an admin action of an order."""

    @admin.action(description=title_of(verb, things))
    def act(model_admin: Any, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        if request.POST.get("confirmed") != "yes":
            return _ask(verb, model_admin, request, queryset)
        give(verb, model_admin, request, queryset)
        return None

    act.__name__ = verb.name
    return act


def may_give(request: HttpRequest, verb: Verb) -> bool:
    """Answer whether the user may give an order."""
    return request.user.has_perm(f"django_durable_jobs.{verb.permission}")


def give(verb: Verb, model_admin: Any, request: HttpRequest, queryset: QuerySet[Any]) -> None:
    """Give the order to each row, in commits of their own, and say how it went."""
    _tell(verb, model_admin, request, _carry_out_each(verb, request, queryset))


def _carry_out_each(verb: Verb, request: HttpRequest, queryset: QuerySet[Any]) -> Report:
    """A refusal or an error undoes no other order."""
    report = Report()
    by = request.user.get_username()[:LONGEST_BY]
    given = {name: request.POST.get(f"{GIVEN}{name}") for name in verb.takes}
    flag, note = (DELETION, "") if verb.name == "delete" else (CHANGE, f"{verb.name}: ordered")
    for chunk in _chunks(queryset, report):
        done = []
        for row in chunk:
            try:
                carry_out(verb, row.name if isinstance(row, Worker) else row.pk, given, by=by, surface="admin")
            except DurableJobsError as refusal:
                report.refused.append(str(refusal))
            except DatabaseError:
                logger.exception("%s of %s %s failed; the order ends here", verb.name, verb.target, row.pk)
                report.broken = True
                break
            else:
                done.append(row)
        report.done += len(done)
        if done:
            LogEntry.objects.log_actions(request.user.pk, done, flag, note)  # type: ignore[arg-type]  # who may give orders has one
        if report.broken:
            break
    return report


def _chunks(queryset: QuerySet[Any], report: Report) -> Iterator[list[Any]]:
    """Read what was selected by its key, since an order moves rows out of the filter that found them."""
    rows = queryset.select_related(None).order_by("pk")
    left, last = AT_ONCE, None
    while left:
        chunk = list((rows if last is None else rows.filter(pk__gt=last))[: min(CHUNK, left)])
        if not chunk:
            return
        yield chunk
        left, last = left - len(chunk), chunk[-1].pk
    report.more = rows.filter(pk__gt=last).exists()


def _ask(verb: Verb, model_admin: Any, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
    counted = queryset.order_by().values("pk")[: AT_ONCE + 1].count()
    context = {
        **model_admin.admin_site.each_context(request),
        "title": title_of(verb, model_admin.opts.verbose_name_plural),
        "opts": model_admin.opts,
        "media": model_admin.media,
        "verb": verb,
        "fields": [FIELDS[name] for name in verb.takes],
        "given": GIVEN,
        "things": things_of(model_admin, counted),
        "number": min(counted, AT_ONCE),
        "more": counted > AT_ONCE,
        "across": request.POST.get("select_across") == "1",
        "checkbox": ACTION_CHECKBOX_NAME,
        # Also with "all of them": Django looks whether anything was selected before it looks at that.
        "selected": request.POST.getlist(ACTION_CHECKBOX_NAME),
    }
    return TemplateResponse(request, "admin/django_durable_jobs/ask.html", context)


def things_of(model_admin: Any, number: int) -> Any:
    """Name what is ordered, one or many."""
    return model_admin.opts.verbose_name if number == 1 else model_admin.opts.verbose_name_plural


def _tell(verb: Verb, model_admin: Any, request: HttpRequest, report: Report) -> None:
    if report.done:
        text = _("%(verb)s: %(number)d %(things)s.")
        told = {"verb": title_of(verb, model_admin.opts.verbose_name_plural), "number": report.done}
        model_admin.message_user(request, text % {**told, "things": things_of(model_admin, report.done)})
    if report.refused:
        number = len(report.refused)
        reasons = " ".join(report.refused[:REASONS])
        refused = ngettext(
            "%(number)d %(things)s was refused: %(reasons)s", "%(number)d %(things)s were refused: %(reasons)s", number
        )
        more = " …" if number > REASONS else ""
        told = {"number": number, "things": things_of(model_admin, number), "reasons": reasons}
        model_admin.message_user(request, refused % told + more, messages.WARNING)
    if report.broken:
        sorry = _("The database failed; what comes after that was not touched. The log of the web server says why.")
        model_admin.message_user(request, sorry, messages.ERROR)
    if report.more:
        advice = _("One order takes %(limit)d %(things)s. More were selected: give the order again for the rest.")
        told = {"limit": AT_ONCE, "things": model_admin.opts.verbose_name_plural}
        model_admin.message_user(request, advice % told, messages.WARNING)
    if not (report.done or report.refused or report.broken):
        gone = _("None of the selected %(things)s is there any more.")
        told = {"things": model_admin.opts.verbose_name_plural}
        model_admin.message_user(request, gone % told, messages.WARNING)
