"""Who sees and does what in the admin."""

from __future__ import annotations

import json
import re
from uuid import UUID

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from django_durable_jobs.models import Job, Queue
from django_durable_jobs.states import Status
from tests.factories import make_attempt, make_checkpoint, make_job, make_worker
from tests.surfaces.admin_pages import ADMIN, HIDDEN, JOBS, html, listed, page_of
from tests.surfaces.people import staff, superuser

pytestmark = pytest.mark.django_db


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
