"""The admin's lists and pages: what they show, to whom, and at which price."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from django_durable_jobs.admin import base
from django_durable_jobs.dialects.now import DatabaseNow
from django_durable_jobs.models import Job, Queue
from django_durable_jobs.states import Status
from tests.factories import make_attempt, make_checkpoint, make_job, make_worker
from tests.surfaces.people import staff, superuser

pytestmark = pytest.mark.django_db

ADMIN = "/admin/django_durable_jobs/"
JOBS = f"{ADMIN}job/"
HIDDEN = "swordfish"


def page_of(job: Job) -> str:
    return f"{JOBS}{job.id}/change/"


def html(client: Client, address: str, **data: Any) -> str:
    response = client.get(address, data)
    assert response.status_code == 200, f"{address} answers {response.status_code}"
    return response.content.decode()


def ids_in(text: str) -> set[UUID]:
    return {UUID(found) for found in re.findall(r'ddj-mono">([0-9a-f-]{36})<', text)}


def listed(client: Client, **data: Any) -> set[UUID]:
    return ids_in(html(client, JOBS, **data))


# What is shown


@pytest.mark.parametrize("status", list(Status))
def test_a_job_of_any_status_has_a_row_and_a_page(status: Status) -> None:
    job = make_job(status)
    client = superuser()
    for text in (html(client, JOBS), html(client, page_of(job))):
        assert str(job.id) in text
        assert f"ddj-badge ddj-{status.value}" in text


def test_the_page_of_a_job_shows_attempts_and_calls() -> None:
    job = make_job(Status.FAILED, payload='{"amount": 12, "to": "Ada"}')
    make_attempt(job, 1, error="ValueError: first", traceback="Traceback 1", worker_name="worker-x")
    make_attempt(job, 2, end="lost", error="The worker was lost")
    make_checkpoint(job, "1", name="shop.fetch", result='{"total": 99}')
    make_checkpoint(job, "1.1", name="shop.inner", result=None, error='{"type": "KeyError"}')
    text = html(superuser(), page_of(job))
    for expected in (
        "&quot;amount&quot;: 12,",
        "ValueError: first",
        "Traceback 1",
        "<details>",
        "worker-x",
        "worker lost",
        "shop.fetch",
        "&quot;total&quot;: 99",
        "1.1",
        "KeyError",
    ):
        assert expected in text


def test_the_list_shows_who_runs_a_job() -> None:
    make_job(Status.RUNNING, worker=make_worker(name="host-a-17"))
    assert "on host-a-17 since" in html(superuser(), JOBS)


def test_a_running_job_whose_workers_row_is_gone_is_shown() -> None:
    job = make_job(Status.RUNNING, worker_id=987_654_321)
    assert listed(superuser()) == {job.id}
    assert str(job.id) in html(superuser(), page_of(job))


def test_the_list_of_workers_says_who_is_alive_lost_or_stopped_and_holds_jobs() -> None:
    alive = make_worker(name="w-alive", queues={"mail": 3, "default": 10})
    make_worker(name="w-lost", lease=-timedelta(seconds=5))
    make_worker(name="w-stopped", stopped_at=DatabaseNow())
    held = [make_job(Status.RUNNING, worker=alive) for _ in range(3)]
    text = html(superuser(), f"{ADMIN}worker/")
    rows = {name: row for row in re.findall(r"<tr>.*?</tr>", text, re.DOTALL) for name in re.findall(r"w-\w+", row)}
    assert "default=10, mail=3" in rows["w-alive"]
    assert 'class="field-held">3<' in rows["w-alive"]
    assert {name: re.findall(r"ddj-badge ddj-(\w+)", row) for name, row in rows.items()} == {
        "w-alive": ["alive"],
        "w-lost": ["lost"],
        "w-stopped": ["stopped"],
    }
    page = html(superuser(), f"{ADMIN}worker/{alive.pk}/change/")
    assert all(str(job.id) in page for job in held)
    for state in ("alive", "lost", "stopped"):
        found = html(superuser(), f"{ADMIN}worker/", state=state)
        assert set(re.findall(r"w-(?:alive|lost|stopped)", found)) == {f"w-{state}"}


def test_the_list_of_queues_counts_what_is_pending_and_running() -> None:
    Queue.objects.bulk_create([Queue(name="mail"), Queue(name="idle")])
    for status in (Status.PENDING, Status.PENDING, Status.RUNNING, Status.COMPLETED):
        make_job(status, queue="mail")
    text = html(superuser(), f"{ADMIN}queue/")
    numbers = re.findall(r"queue=(\w+)&amp;status=(\w+)\">(\d+)<", text)
    assert ("mail", "pending", "2") in numbers
    assert ("mail", "running", "1") in numbers
    assert ("idle", "pending", "0") in numbers
    assert "queue=mail&amp;status=pending" in html(superuser(), f"{ADMIN}queue/mail/change/")


# Finding


def test_filters_find_by_status_queue_definition_and_time_of_creation() -> None:
    wanted = make_job(Status.FAILED, queue="mail", definition="tests.jobs.add")
    make_job(Status.PENDING)
    old = make_job(Status.FAILED, created_at=DatabaseNow() - timedelta(hours=2), id=UUID(int=wanted.id.int - (1 << 80)))
    client = superuser()
    assert listed(client, status="failed") == {wanted.id, old.id}
    assert listed(client, queue="mail") == {wanted.id}
    assert listed(client, definition="tests.jobs.add") == {wanted.id}
    assert old.id not in listed(client, created="hour")
    assert wanted.id in listed(client, created="hour")
    assert old.id in listed(client, created="day")
    assert listed(client, status="nonsense") == set()
    assert listed(client, created="nonsense") == {job.id for job in Job.objects.all()}


def test_the_search_finds_an_id_its_beginning_and_a_definition() -> None:
    job = make_job(definition="tests.jobs.add")
    other = make_job(id=UUID("f" * 32), definition="gone.old_name")
    client = superuser()
    assert listed(client, q=str(job.id)) == {job.id}
    assert listed(client, q=job.id.hex.upper()) == {job.id}
    assert listed(client, q=str(job.id)[:13]) == {job.id}
    assert listed(client, q="ffffff") == {other.id}
    assert listed(client, q="JOBS.ad") == {job.id}
    assert listed(client, q="gone.old_name") == {other.id}
    for nothing in ("no.such.definition", "0" * 36, "x" * 5000, "%", "_", "'"):
        assert listed(client, q=nothing) == set()


def test_the_newest_job_stands_first_whatever_order_the_address_asks_for() -> None:
    """N84."""
    jobs = [make_job() for _ in range(3)]
    client = superuser()
    for order in ("", "1", "-1", "2.-1", "99", "x"):
        text = html(client, JOBS, o=order)
        places = [text.index(str(job.id)) for job in reversed(jobs)]
        assert places == sorted(places)


@pytest.mark.parametrize(
    "query",
    [
        "args__x=1",
        "payload__contains=a",
        "result__startswith=a",
        "last_error__icontains=a",
        "worker__name__startswith=a",
        "attempts__traceback__contains=a",
        "_connector=OR",
        "token=1",
        "p=-1",
        "p=999999",
        "p=x",
        "status=%00",
        "queue=%00",
        "q=%00",
        "q=%ff%fe",
        "_facets=1",
        "all=",
    ],
)
def test_what_the_address_asks_for_is_no_oracle_and_no_error_page(query: str) -> None:
    """N84, S15, S23: columns are no lookups; the answer is a list, with a word about what was not understood."""
    make_job(payload=json.dumps({"a": HIDDEN}))
    response = staff("view_job", "view_arguments").get(f"{JOBS}?{query}", follow=True)
    assert response.status_code == 200
    assert "changelist" in response.content.decode()
    if "__" in query or query.startswith(("token", "_connector")):
        assert response.redirect_chain == [(f"{JOBS}?e=1", 302)]


# Who sees what


def test_staff_alone_sees_nothing() -> None:
    """S3."""
    job, worker = make_job(), make_worker()
    client = staff()
    assert "django_durable_jobs" not in html(client, "/admin/")
    text_of = f"{JOBS}{job.id}/text/arguments/0/"
    pages = [JOBS, page_of(job), f"{ADMIN}queue/", f"{ADMIN}worker/", f"{ADMIN}worker/{worker.pk}/change/", text_of]
    for address in [*pages, f"{JOBS}{job.id}/delete/", f"{JOBS}{job.id}/retry/"]:
        assert client.get(address).status_code == 403, address


@pytest.mark.parametrize("permission", ["view_arguments", "retry_job", "delete_job"])
def test_another_permission_does_not_open_the_list(permission: str) -> None:
    job = make_job(Status.FAILED)
    client = staff(permission)
    assert client.get(JOBS).status_code == 403
    assert client.get(page_of(job)).status_code == 403
    assert client.get(f"{JOBS}{job.id}/text/arguments/0/").status_code == 403
    assert client.post(f"{JOBS}{job.id}/retry/").status_code == 403


def test_nobody_gets_in_without_logging_in() -> None:
    job = make_job()
    for address in (JOBS, page_of(job), f"{JOBS}{job.id}/text/arguments/0/", f"{JOBS}{job.id}/retry/"):
        response = Client().get(address)
        assert (response.status_code, response["Location"].partition("?")[0]) == (302, "/admin/login/")


def secretive_job() -> Job:
    """Store a job that holds the secret in every place that has its permission."""
    text = json.dumps(HIDDEN)
    job = make_job(Status.FAILED, payload=f'{{"x": {text}}}', result=text, last_error=f"ValueError: {HIDDEN}")
    make_attempt(job, error=f"ValueError: {HIDDEN}", traceback=f"Traceback: {HIDDEN}")
    make_checkpoint(job, "1", result=text)
    make_checkpoint(job, "2", result=None, error=text)
    return job


def test_arguments_results_and_errors_need_their_permission() -> None:
    """S15."""
    job = secretive_job()
    attempt, call = job.attempts.get(), job.checkpoints.order_by("id")[0]
    texts = [
        f"{JOBS}{job.id}/text/{what}/{row}/"
        for what, row in (
            ("arguments", 0),
            ("result", 0),
            ("error", 0),
            ("traceback", attempt.pk),
            ("call-result", call.pk),
        )
    ]
    blind = staff("view_job", "retry_job", "delete_job")
    with CaptureQueriesContext(connection) as queries:
        for address in (JOBS, page_of(job), f"{JOBS}{job.id}/delete/", f"{JOBS}{job.id}/history/"):
            assert HIDDEN not in html(blind, address)
    assert not any("traceback" in query["sql"] for query in queries), "what is not shown is not read"
    assert all(blind.get(address).status_code == 403 for address in texts)

    seeing = staff("view_job", "view_arguments")
    assert HIDDEN in html(seeing, JOBS)
    assert html(seeing, page_of(job)).count(HIDDEN) == 7
    assert all(HIDDEN in html(seeing, address) for address in texts)


@pytest.mark.parametrize("term", [HIDDEN, f'"{HIDDEN}"', "ValueError"])
def test_the_search_does_not_look_into_values(term: str) -> None:
    """S15."""
    secretive_job()
    assert listed(staff("view_job", "view_arguments"), q=term) == set()


@pytest.mark.parametrize("address", [f"{JOBS}add/", f"{ADMIN}queue/add/", f"{ADMIN}worker/add/"])
def test_nothing_can_be_added(address: str) -> None:
    """N82."""
    assert superuser().get(address).status_code == 403
    assert superuser().post(address, {"name": "x"}).status_code == 403


def test_nothing_can_be_changed_by_the_form() -> None:
    """N82: a superuser's form with forged fields is refused, and no field is one to fill in."""
    job = make_job(Status.RUNNING)
    queue, worker = Queue.objects.create(name="mail"), make_worker()
    before = Job.objects.filter(id=job.id).values().get()
    client = superuser()
    forged = {"status": "pending", "token": "99", "attempt": "0", "payload": "{}", "name": "x", "_save": "Save"}
    for address in (page_of(job), f"{ADMIN}queue/{queue.pk}/change/", f"{ADMIN}worker/{worker.pk}/change/"):
        assert client.post(address, forged).status_code == 403
        text = html(client, address).partition('<div id="content-main">')[2]
        assert not re.search(r'<(select|textarea)|<input type="(?!hidden)', text)
    assert Job.objects.filter(id=job.id).values().get() == before


def test_reading_changes_nothing() -> None:
    """GET never changes anything: neither rows nor by way of an action in the address."""
    job = secretive_job()
    before = list(Job.objects.values())
    client = superuser()
    for address in (JOBS, page_of(job), f"{JOBS}{job.id}/delete/", f"{JOBS}{job.id}/text/arguments/0/"):
        html(client, address)
    client.get(JOBS, {"action": "retry", "_selected_action": str(job.id), "confirmed": "yes", "index": "0"})
    assert client.get(f"{JOBS}{job.id}/retry/").status_code == 405
    assert list(Job.objects.values()) == before


def test_an_unknown_job_leads_back_with_a_word() -> None:
    for name in ("0" * 32, "nonsense", "1", "%00"):
        response = superuser().get(f"{JOBS}{name}/change/")
        assert response.status_code == 302
    assert superuser().get(f"{JOBS}{UUID(int=1)}/text/arguments/0/").status_code == 404
    assert superuser().get(f"{JOBS}{make_job().id}/text/payload/0/").status_code == 404


# Price


def queries_of(client: Client, address: str) -> int:
    with CaptureQueriesContext(connection) as queries:
        html(client, address)
    return len(queries)


def test_lists_and_pages_take_as_many_queries_for_many_rows_as_for_few() -> None:
    """P13's shape: a fixed number of queries, ten at most."""
    job = make_job(Status.FAILED)
    worker = make_worker()
    client = staff("view_job", "view_arguments", "view_queue", "view_worker")
    addresses = [JOBS, f"{JOBS}?status=running", page_of(job), f"{ADMIN}queue/", f"{ADMIN}worker/"]

    def add_rows(number: int) -> None:
        for index in range(number):
            make_attempt(job, 1)
            make_checkpoint(job, str(job.checkpoints.count() + 1))
            Queue.objects.get_or_create(name=f"queue-{number}-{index}")
            make_job(Status.RUNNING, worker=worker if index % 2 else make_worker())

    add_rows(10)
    few = {address: queries_of(client, address) for address in addresses}
    row = Job.objects.filter(status="running").values().first()
    assert row is not None
    Job.objects.bulk_create([Job(**{**row, "id": UUID(int=row["id"].int + 1 + n)}) for n in range(1000)])
    add_rows(60)
    many = {address: queries_of(client, address) for address in addresses}
    assert many == few
    assert max(many.values()) <= 10


def test_a_list_counts_and_pages_only_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "COUNTED", 250)
    row = Job.objects.filter(id=make_job().id).values().get()
    Job.objects.bulk_create([Job(**{**row, "id": UUID(int=row["id"].int + 1 + n)}) for n in range(249)])
    client = superuser()
    assert "There are more" not in html(client, JOBS)
    make_job()
    text = html(client, JOBS)
    assert "250 jobs" in text
    assert "There are more" in text
    assert len(listed(client, p=3)) == 50
    with CaptureQueriesContext(connection) as queries:
        html(client, JOBS)
    counts = [query["sql"] for query in queries if "COUNT" in query["sql"].upper()]
    assert counts
    assert all("LIMIT 251" in sql for sql in counts)


def test_the_list_does_not_read_what_may_be_large() -> None:
    make_job(payload=json.dumps("x" * 100_000), result=json.dumps("y" * 100_000))
    client = superuser()
    with CaptureQueriesContext(connection) as queries:
        html(client, JOBS)
    assert not any("payload" in query["sql"] or "result" in query["sql"].lower() for query in queries)


def test_attempts_and_calls_have_pages() -> None:
    job = make_job()
    for number in range(1, 151):
        make_checkpoint(job, str(number), name=f"call-{number}-")
    for number in range(1, 26):
        make_attempt(job, number, error=f"error-{number}-")
    client = superuser()
    first = html(client, page_of(job))
    second = html(client, page_of(job), calls="2", attempts="2")
    assert ("call-100-" in first, "call-101-" in first) == (True, False)
    assert ("call-100-" in second, "call-150-" in second) == (False, True)
    assert ("error-25-" in first, "error-5-" in first) == (True, False), "the newest attempts stand first"
    assert ("error-25-" in second, "error-5-" in second) == (False, True)
    for odd in ("0", "-1", "x", "9" * 30, "²"):
        assert "call-1-" in html(client, page_of(job), calls=odd)
