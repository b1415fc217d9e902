"""Pausing, cancelling and deciding in the admin: buttons, lists, what is asked back, and the audit."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client

from django_durable_jobs.models import Approval, AuditEntry, Queue, Worker
from django_durable_jobs.operations.catalogue import VERBS
from django_durable_jobs.states import Status
from tests.factories import make_job, make_worker, present
from tests.surfaces.admin_pages import ADMIN, JOBS, html, page_of
from tests.surfaces.people import staff

pytestmark = pytest.mark.django_db

LIST = {target: f"{ADMIN}{target}/" for target in ("job", "queue", "worker", "approval")}


def confirmed(client: Client, target: str, verb: str, key: object, **said: str) -> list[str]:
    """Give an order from the list, say yes to what is asked back, and return what is told afterwards."""
    form = {"action": verb, "index": "0", "_selected_action": [str(key)]}
    asked = client.post(LIST[target], form, follow=True).content.decode()
    fields: dict[str, list[str]] = {}
    for field, value in re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', asked):
        fields.setdefault(field, []).append(value)
    assert fields["confirmed"] == ["yes"], "the page asks back"
    for name in said:
        assert f'name="given_{name}"' in asked, "what can be said is asked for"
    answer: Any = client.post(
        LIST[target], {**fields, **{f"given_{name}": value for name, value in said.items()}}, follow=True
    )
    return [str(message) for message in answer.context["messages"]]


def make(target: str) -> Any:
    match target:
        case "job":
            return make_job("failed")
        case "queue":
            return Queue.objects.create(name="mail")
        case "worker":
            return make_worker()
    return Approval.objects.create(job=make_job("waiting", waiting_for="approval 1 Ship"), key="1", title="Ship")


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: f"{verb.name} {verb.target}")
def test_every_order_of_the_catalogue_is_an_action_for_those_who_may(verb: Any) -> None:
    row = make(verb.target)
    offered = f'<option value="{verb.name}">'
    assert offered in html(staff(f"view_{verb.target}", verb.permission), LIST[verb.target])
    others = {other.permission for other in VERBS} - {verb.permission}
    client = staff(f"view_{verb.target}", *others)
    assert offered not in html(client, LIST[verb.target])
    form = {"action": verb.name, "index": "0", "_selected_action": [str(row.pk)], "confirmed": "yes"}
    assert client.post(LIST[verb.target], form).status_code == 403
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize("status", list(Status))
def test_the_buttons_of_a_job_are_those_that_its_status_allows(status: Status) -> None:
    job = make_job(status)
    page = html(staff("view_job", "pause_job", "retry_job", "cancel_job"), page_of(job))
    for verb in ("pause", "resume", "retry"):
        (found,) = (one for one in VERBS if (one.target, one.name) == ("job", verb))
        assert (f'action="{JOBS}{job.id}/{verb}/"' in page) is (status in found.statuses), verb
    (cancel,) = (one for one in VERBS if (one.target, one.name) == ("job", "cancel"))
    assert ('name="action" value="cancel"' in page) is (status in cancel.statuses)


def test_a_job_is_paused_and_resumed_by_its_buttons() -> None:
    job = make_job("pending")
    client = staff("view_job", "pause_job")
    client.post(f"{JOBS}{job.id}/pause/")
    assert present(job).status == "paused"
    assert "paused" in html(client, page_of(job))
    client.post(f"{JOBS}{job.id}/resume/")
    assert present(job).status == "pending"
    assert list(AuditEntry.objects.order_by("id").values_list("verb", "surface", "outcome")) == [
        ("pause", "admin", "done"),
        ("resume", "admin", "done"),
    ]


def test_a_job_is_cancelled_with_a_reason_that_is_kept() -> None:
    job = make_job("pending")
    told = confirmed(staff("view_job", "cancel_job"), "job", "cancel", job.id, reason="no longer wanted")
    assert told == ["Cancel selected jobs: 1 job."]
    now = present(job)
    assert now.status == "cancelled"
    assert re.fullmatch(r"cancelled by staff-\d+: no longer wanted", now.last_error or "")


def test_a_queue_is_paused_with_reason_and_mode_and_its_page_says_so() -> None:
    queue = make("queue")
    client = staff("view_queue", "pause_queue")
    told = confirmed(client, "queue", "pause", "mail", reason="provider is down", mode="aggressive")
    assert told == ["Pause selected queues: 1 queue."]
    queue.refresh_from_db()
    assert (queue.pause_mode, queue.pause_reason) == ("aggressive", "provider is down")
    page = html(client, f"{LIST['queue']}mail/change/")
    for shown in ("provider is down", "aggressive", queue.paused_by, f'action="{LIST["queue"]}mail/resume/"'):
        assert shown in page
    client.post(f"{LIST['queue']}mail/resume/")
    assert not Queue.objects.filter(paused_at__isnull=False).exists()


def test_a_bad_word_is_refused_and_told() -> None:
    make("queue")
    (told,) = confirmed(staff("view_queue", "pause_queue"), "queue", "pause", "mail", resume_at="tomorrow")
    assert told.startswith("1 queue was refused: resume_at must be an instant")
    assert not Queue.objects.filter(paused_at__isnull=False).exists()


def test_a_worker_is_paused_by_its_button_and_a_lost_one_has_none() -> None:
    worker = make("worker")
    client = staff("view_worker", "pause_worker")
    page = f"{LIST['worker']}{worker.pk}/"
    assert f'action="{page}pause/"' in html(client, f"{page}change/")
    client.post(f"{page}pause/")
    assert Worker.objects.get(pk=worker.pk).paused_at is not None
    assert ">paused<" in html(client, LIST["worker"])
    assert f'action="{page}resume/"' in html(client, f"{page}change/")
    Worker.objects.filter(pk=worker.pk).update(lease_expires_at=worker.started_at)
    assert "/resume/" not in html(client, f"{page}change/")


def test_an_approval_is_decided_with_a_comment() -> None:
    approval = make("approval")
    client = staff("view_approval", "decide_approval")
    told = confirmed(client, "approval", "approve", approval.pk, comment="go ahead")
    assert told == ["Approve selected approvals: 1 approval."]
    approval.refresh_from_db()
    assert (approval.decision, approval.comment) == ("approved", "go ahead")
    assert present(approval.job).status == "pending"
    (told_again,) = confirmed(client, "approval", "reject", approval.pk)
    assert "was approved by" in told_again


def test_the_audit_shows_who_ordered_what_to_those_who_may_see_it() -> None:
    make("queue")
    confirmed(staff("view_queue", "pause_queue"), "queue", "pause", "mail", reason="<script>alert(1)</script>")
    page = html(staff("view_auditentry"), f"{ADMIN}auditentry/")
    assert "pause queue" in page
    entry = AuditEntry.objects.get()
    detail = html(staff("view_auditentry"), f"{ADMIN}auditentry/{entry.pk}/change/")
    assert "&lt;script&gt;" in detail
    assert "<script>alert" not in detail
    assert staff("view_queue").get(f"{ADMIN}auditentry/").status_code == 403


def test_f10_the_page_of_a_job_says_why_it_does_not_run() -> None:
    client = staff("view_job")
    assert "No live worker serves its queue" in html(client, page_of(make_job(queue="mail")))
    for status in ("running", "completed"):
        assert "Why is it not running?" not in html(client, page_of(make_job(status)))


def test_the_list_of_queues_shows_limits_and_their_page_offers_to_take_them_back() -> None:
    for name in ("mail", "video"):
        Queue.objects.create(name=name)
    client = staff("view_queue", "limit_queue")
    (told,) = confirmed(
        client, "queue", "limit", "mail", concurrency="3", rate="10", per="60", fair="yes", reason="<b>"
    )
    assert told == "Limit selected queues: 1 queue."
    shown = html(client, LIST["queue"])
    assert "3 at once; 10 in 60 s; tenants take turns" in shown
    assert "<b>" not in shown
    pages = [html(client, f"{ADMIN}queue/{name}/change/") for name in ("mail", "video")]
    assert ["unlimit" in page for page in pages] == [True, False]
    (told,) = confirmed(client, "queue", "limit", "video", rate="many")
    assert "rate must be a number, not 'many'" in told


def test_the_page_of_a_job_shows_its_concurrency_key_to_who_may_see_values() -> None:
    job = make_job("waiting", waiting_for="sequence", sequence_key=" customer 7", concurrency_key="customer 7")
    assert "customer 7" in html(staff("view_job", "view_arguments"), page_of(job))
    assert "customer 7" not in html(staff("view_job"), page_of(job))
