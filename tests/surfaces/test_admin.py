"""The admin's lists and pages: what they show, to whom, and at which price."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from uuid import UUID

import pytest

from django_durable_jobs.dialects.now import DatabaseNow
from django_durable_jobs.models import Job, Queue
from django_durable_jobs.states import Status
from tests.factories import make_attempt, make_checkpoint, make_job, make_worker
from tests.surfaces.admin_pages import ADMIN, HIDDEN, JOBS, html, listed, page_of
from tests.surfaces.people import staff, superuser

pytestmark = pytest.mark.django_db


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


def test_the_page_of_a_job_shows_its_progress_and_the_message_to_those_who_may_see_values() -> None:
    job = make_job(Status.RUNNING, progress={"current": 3, "total": 12, "message": f"{HIDDEN} <b>"})
    text = html(superuser(), page_of(job))
    assert "3 / 12" in text
    assert f"{HIDDEN} &lt;b&gt;" in text
    others = html(staff("view_job"), page_of(job))
    assert "3 / 12" in others
    assert HIDDEN not in others


@pytest.mark.parametrize("progress", [None, [], "text", {}, {"current": None}, {"current": 1, "message": 3}])
def test_a_progress_of_any_shape_has_a_page(progress: object) -> None:
    assert html(superuser(), page_of(make_job(Status.RUNNING, progress=progress)))


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
