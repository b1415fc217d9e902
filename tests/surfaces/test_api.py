"""The management API: who may, what is shown, filters and pages, errors in one form (D13, S2, S3, S5, S15, S23)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from django_durable_jobs import Batch
from django_durable_jobs.ids import new_job_id
from django_durable_jobs.models import Approval, AuditEntry, Queue
from django_durable_jobs.operations.catalogue import VERBS
from tests.factories import make_attempt, make_job, make_worker, present
from tests.jobs import noop
from tests.surfaces.people import client_of, staff

pytestmark = pytest.mark.django_db

API = "/jobs/v1/"
UNKNOWN = "01a21959-0000-7000-8000-000000000000"
LISTS = {"jobs": "view_job", "queues": "view_queue", "workers": "view_worker", "approvals": "view_approval"}
PLURAL = {"job": "jobs", "queue": "queues", "worker": "workers", "approval": "approvals"}
HIDDEN_VALUE = "swordfish"


def get(client: Client, address: str, **query: Any) -> tuple[int, Any]:
    response = client.get(f"{API}{address}", query)
    return response.status_code, response.json()


def post(client: Client, address: str, body: Any = None) -> tuple[int, Any]:
    text = "" if body is None else body if isinstance(body, str) else json.dumps(body)
    response = client.post(f"{API}{address}", text, content_type="application/json")
    return response.status_code, response.json()


def one_of_each() -> dict[str, str]:
    """Store one of each kind of thing, and return the keys by which they are named."""
    job = make_job("failed", last_error=HIDDEN_VALUE, payload=f'{{"*":["{HIDDEN_VALUE}"]}}', queue="mail")
    make_attempt(job, error=HIDDEN_VALUE, traceback=HIDDEN_VALUE)
    Queue.objects.create(name="mail")
    waiting = make_job("waiting", waiting_for="approval 1 Ship")
    approval = Approval.objects.create(job=waiting, key="1", title="Ship", details=f'"{HIDDEN_VALUE}"')
    return {"job": str(job.id), "queue": "mail", "worker": make_worker().name, "approval": str(approval.pk)}


# Who may ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["anonymous", "a user", "staff without permissions"])
def test_s2_nothing_is_open_to_those_without_permissions(who: str, settings: Any) -> None:
    """Also where the project's own REST settings let everybody in."""
    settings.REST_FRAMEWORK = {"DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.AllowAny"]}
    keys = one_of_each()
    client = {
        "anonymous": Client,
        "a user": lambda: client_of(User.objects.create_user("user")),
        "staff without permissions": staff,
    }[who]()
    addresses = [*LISTS, *(f"{PLURAL[target]}/{key}" for target, key in keys.items())]
    answers = [get(client, address) for address in addresses]
    answers += [post(client, f"{PLURAL[verb.target]}/{keys[verb.target]}/{verb.name}") for verb in VERBS]
    answers += [post(client, f"jobs/{keys['job']}/no-such-order"), get(client, f"jobs/{new_job_id()}")]
    assert {status for status, _body in answers} <= {401, 403}
    assert {body["code"] for _status, body in answers} <= {"NOT_AUTHENTICATED", "PERMISSION_DENIED"}
    assert HIDDEN_VALUE not in str(answers)
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: f"{verb.name} {verb.target}")
def test_s3_an_order_needs_its_own_permission_and_no_other_gives_it(verb: Any) -> None:
    keys = one_of_each()
    address = f"{PLURAL[verb.target]}/{keys[verb.target]}/{verb.name}"
    others = {other.permission for other in VERBS} - {verb.permission}
    assert post(staff(*others, *LISTS.values()), address)[0] == 403
    assert post(staff(verb.permission), address)[0] in {200, 400, 409}  # whatever comes of it


@pytest.mark.parametrize("plural", LISTS)
def test_s3_each_list_needs_its_own_permission(plural: str) -> None:
    one_of_each()
    others = set(LISTS.values()) - {LISTS[plural]}
    assert get(staff(*others), plural)[0] == 403
    status, body = get(staff(LISTS[plural]), plural)
    assert status == 200
    assert len(body["results"]) >= 1


def test_s5_a_session_needs_a_csrf_token() -> None:
    job = make_job("failed")
    inner = staff("retry_job")
    client = Client(enforce_csrf_checks=True)
    client.cookies = inner.cookies
    status, body = post(client, f"jobs/{job.id}/retry")
    assert (status, body["code"]) == (403, "PERMISSION_DENIED")
    assert present(job).status == "failed"


def test_orders_are_never_a_get() -> None:
    job = make_job("failed")
    status, body = get(staff("retry_job", "view_job"), f"jobs/{job.id}/retry")
    assert (status, body["code"]) == (405, "METHOD_NOT_ALLOWED")


def test_s15_values_of_the_code_need_their_own_permission() -> None:
    keys = one_of_each()
    plain = staff(*LISTS.values())
    pages = [*LISTS, *(f"{PLURAL[target]}/{key}" for target, key in keys.items())]
    assert HIDDEN_VALUE not in str([get(plain, page) for page in pages])
    seeing = staff(*LISTS.values(), "view_arguments")
    detail = get(seeing, f"jobs/{keys['job']}")[1]
    assert HIDDEN_VALUE in detail["arguments"]
    assert HIDDEN_VALUE in detail["last_error"]
    assert [one["error"] for one in detail["attempts"]] == [HIDDEN_VALUE]
    assert HIDDEN_VALUE in get(seeing, f"approvals/{keys['approval']}")[1]["details"]


# Lists --------------------------------------------------------------------------------------------------------------


def test_jobs_are_paged_from_the_newest_on_and_each_is_seen_once() -> None:
    made = [str(make_job().id) for _ in range(7)]
    client, seen, cursor = staff("view_job"), [], None
    while True:
        _status, body = get(client, "jobs", limit=3, **({"cursor": cursor} if cursor else {}))
        seen += [job["id"] for job in body["results"]]
        if cursor is None:
            make_job()  # what comes meanwhile stands before the first page
        cursor = body["next"]
        if cursor is None:
            break
    assert seen == made[::-1]


def test_jobs_are_filtered_by_a_table_of_filters() -> None:
    wanted = make_job("failed", queue="mail")
    make_job("failed")
    make_job("completed", queue="mail")
    client = staff("view_job")
    found = get(client, "jobs", queue="mail", status="failed,cancelled")[1]["results"]
    assert [job["id"] for job in found] == [str(wanted.id)]
    assert get(client, "jobs", definition="nothing")[1]["results"] == []
    assert get(client, "jobs", parent=new_job_id())[1]["results"] == []


@pytest.mark.parametrize(
    "query",
    [
        {"payload__contains": "x"},
        {"_connector": "OR"},
        {"status": "nonsense"},
        {"status": ""},
        {"parent": "x"},
        {"limit": "0"},
        {"limit": "1001"},
        {"limit": "-1"},
        {"limit": "nan"},
        {"cursor": "x"},
        {"ordering": "payload"},
    ],
)
def test_s23_an_unknown_filter_or_value_is_a_400(query: dict[str, str]) -> None:
    make_job()
    status, body = get(staff("view_job"), "jobs", **query)
    assert status == 400, query
    assert set(body) == {"error", "code"}
    assert body["code"] == "VALIDATION_ERROR"


def test_queues_say_what_waits_and_runs_and_whether_they_are_paused() -> None:
    Queue.objects.create(name="mail")
    make_job(queue="mail")
    make_job("completed", queue="mail")
    client = staff("view_queue", "pause_queue")
    assert post(client, "queues/mail/pause", {"reason": "down", "mode": "graceful"})[0] == 200
    (queue,) = get(client, "queues")[1]["results"]
    assert (queue["pending"], queue["running"], queue["paused"], queue["pause_reason"]) == (1, 0, True, "down")
    assert queue["paused_by"].startswith("staff-")


# Orders -------------------------------------------------------------------------------------------------------------


def test_i34_an_order_that_succeeded_has_happened_and_says_how_it_is_now() -> None:
    job = make_job("failed")
    status, body = post(staff("retry_job"), f"jobs/{job.id}/retry", {"reason": "fixed"})
    assert (status, body["done"], body["now"]["status"]) == (200, "retry job", "pending")
    assert present(job).status == "pending"
    (entry,) = AuditEntry.objects.all()
    assert (entry.surface, entry.verb, entry.target, entry.name) == ("api", "retry", "job", str(job.id))
    assert (entry.given, entry.outcome, entry.answer) == ({"reason": "fixed"}, "done", "")


def test_i34_an_order_that_was_refused_has_changed_nothing_and_is_written_down() -> None:
    job = make_job("completed")
    status, body = post(staff("retry_job"), f"jobs/{job.id}/retry")
    assert (status, body["code"]) == (409, "CONFLICT")
    assert body["error"].startswith(f"Job {job.id} is completed: only a job that is")
    (entry,) = AuditEntry.objects.all()
    assert (entry.outcome, entry.answer) == ("refused", body["error"])


@pytest.mark.parametrize(
    ("address", "status", "code"),
    [
        (f"jobs/{UNKNOWN}/pause", 404, "NOT_FOUND"),
        ("jobs/nonsense/pause", 404, "NOT_FOUND"),
        ("queues/nothing/pause", 404, "NOT_FOUND"),
        ("workers/nobody/pause", 404, "NOT_FOUND"),
        ("approvals/1/approve", 404, "NOT_FOUND"),
        ("approvals/x/approve", 404, "NOT_FOUND"),
        ("jobs/nonsense/explode", 403, "PERMISSION_DENIED"),
    ],
)
def test_orders_to_what_is_not_there(address: str, status: int, code: str) -> None:
    answer = post(staff("pause_job", "pause_queue", "pause_worker", "decide_approval"), address)
    assert (answer[0], answer[1]["code"]) == (status, code)


@pytest.mark.parametrize(
    "body",
    [
        {"mode": "gentle"},
        {"reason": 3},
        {"surprise": 1},
        {"by": "somebody else"},
        {"resume_at": "tomorrow"},
        {"resume_at": "2030-01-01T00:00:00"},
        {"resume_at": "2001-01-01T00:00:00+00:00"},
        [],
        "not json",
        '"text"',
    ],
)
def test_a_bad_body_is_a_400_and_changes_nothing(body: Any) -> None:
    Queue.objects.create(name="mail")
    status, answer = post(staff("pause_queue"), "queues/mail/pause", body)
    assert (status, answer["code"]) == (400, "VALIDATION_ERROR")
    assert not Queue.objects.filter(paused_at__isnull=False).exists()
    assert not AuditEntry.objects.exclude(outcome="refused").exists()


def test_unknown_keys_of_details_are_404() -> None:
    client = staff(*LISTS.values())
    for address in (f"jobs/{new_job_id()}", "jobs/x", "queues/x", "workers/x", "approvals/x", f"approvals/{10**30}"):
        status, body = get(client, address)
        assert (status, body["code"]) == (404, "NOT_FOUND"), address


def test_f10_a_job_says_why_it_does_not_run() -> None:
    job = make_job(queue="mail")
    client = staff("view_job")
    assert get(client, f"jobs/{job.id}/explain") == (
        200,
        {
            "code": "NO_WORKER",
            "text": "No live worker serves its queue 'mail': start one, with --queue mail or for all queues.",
            "subject": "queue",
            "key": "mail",
        },
    )
    assert get(client, f"jobs/{UNKNOWN}/explain")[0] == 404
    assert get(staff("retry_job"), f"jobs/{job.id}/explain")[0] == 403


def test_batches_are_shown_with_their_members_by_status() -> None:
    with Batch.open("newsletter") as ours:
        member = ours.enqueue(noop, 1)
    other = Batch.open("another")
    noop.enqueue(2)
    assert get(staff("view_job"), "batches")[0] == get(staff("view_job"), f"batches/{ours.id}")[0] == 403
    client = staff("view_jobbatch", "view_job")
    status, page = get(client, "batches", limit=1)
    assert (status, [row["id"] for row in page["results"]]) == (200, [str(other.id)])
    (row,) = get(client, "batches", cursor=page["next"])[1]["results"]
    assert (row["id"], row["state"], row["counts"]) == (str(ours.id), "closed", {"pending": 1})
    assert get(client, f"batches/{ours.id}") == (200, row)
    assert [job["id"] for job in get(client, "jobs", batch=str(ours.id))[1]["results"]] == [str(member.id)]
    assert [get(client, f"batches/{key}")[0] for key in (UNKNOWN, "x")] == [404, 404]
    assert get(client, "batches", cursor="x")[0] == get(client, "jobs", batch="x")[0] == 400
    assert post(client, "batches", {"definition": noop.name})[0] in {403, 405}
