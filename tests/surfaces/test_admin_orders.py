"""Orders given in the admin: retry and delete, of one job and of many, by those who may."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from django.contrib.admin.models import LogEntry
from django.db import OperationalError
from django.test import Client

from django_durable_jobs.admin import actions
from django_durable_jobs.models import Attempt, Checkpoint, Job
from django_durable_jobs.operations.catalogue import verb_of
from django_durable_jobs.operations.retry import retry
from django_durable_jobs.states import TRANSITIONS, Status
from tests.factories import make_attempt, make_checkpoint, make_job
from tests.surfaces.admin_pages import JOBS, html, page_of
from tests.surfaces.people import staff

pytestmark = pytest.mark.django_db

MAY_RETRY = ("view_job", "retry_job")
MAY_DELETE = ("view_job", "delete_job")
RETRIED = TRANSITIONS["retry"].sources


def order(client: Client, name: str, *jobs: Job, query: str = "", **data: Any) -> Any:
    """Post an action of the list, as its form does."""
    form = {"action": name, "index": "0", "_selected_action": [str(job.id) for job in jobs], **data}
    return client.post(f"{JOBS}{query}", form, follow=True)


def confirmed(client: Client, name: str, *jobs: Job, query: str = "", **data: Any) -> Any:
    """Give an order and say yes, with what the page that asks back holds."""
    asked = order(client, name, *jobs, query=query, **data).content.decode()
    fields: dict[str, list[str]] = {}
    for field, value in re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', asked):
        fields.setdefault(field, []).append(value)
    assert fields["confirmed"] == ["yes"], "the page asks back"
    return client.post(f"{JOBS}{query}", fields, follow=True)


def messages(response: Any) -> list[str]:
    return [str(message) for message in response.context["messages"]]


def statuses(*jobs: Job) -> list[str]:
    found = dict(Job.objects.values_list("id", "status"))
    return [found[job.id] for job in jobs]


def copies(job: Job, number: int) -> list[Job]:
    """Store more jobs like this one."""
    row = Job.objects.filter(id=job.id).values().get()
    return Job.objects.bulk_create([Job(**{**row, "id": UUID(int=row["id"].int + 1 + n)}) for n in range(number)])


# Retry


@pytest.mark.parametrize("status", list(Status))
def test_the_button_is_there_and_works_where_the_status_allows_it(status: Status) -> None:
    job = make_job(status)
    make_checkpoint(job)
    client = staff(*MAY_RETRY)
    address = f"{JOBS}{job.id}/retry/"
    assert (f'action="{address}"' in html(client, page_of(job))) is (status in RETRIED)
    response = client.post(address, follow=True)
    assert response.redirect_chain == [(page_of(job), 302)]
    if status in RETRIED:
        assert statuses(job) == ["pending"]
        assert messages(response) == ["Retry selected jobs: 1 job."]
        assert [entry.object_id for entry in LogEntry.objects.all()] == [str(job.id)]
        assert "retry: ordered" in html(client, f"{JOBS}{job.id}/history/")
    else:
        assert statuses(job) == [status.value]
        (text,) = messages(response)
        assert f"1 job was refused: Job {job.id} is {status.value}: only a job that is" in text
        assert not LogEntry.objects.exists()
    assert Checkpoint.objects.filter(job=job).exists()


def test_many_jobs_are_asked_about_retried_one_by_one_and_reported_by_outcome() -> None:
    """N85: what was refused says why, in the operation's words, and keeps nobody else from being retried."""
    failed = [make_job(Status.FAILED) for _ in range(3)]
    running, completed, gone = make_job(Status.RUNNING), make_job(Status.COMPLETED), make_job(Status.FAILED)
    client = staff(*MAY_RETRY)
    asked = order(client, "retry", *failed, running, completed)
    assert "5 jobs are selected." in asked.content.decode()
    assert statuses(*failed) == ["failed"] * 3, "asking changes nothing"
    gone.delete()
    response = confirmed(client, "retry", *failed, running, completed)
    assert statuses(*failed, running, completed) == ["pending"] * 3 + ["running", "completed"]
    done, refused = messages(response)
    assert done == "Retry selected jobs: 3 jobs."
    assert refused.startswith("2 jobs were refused: ")
    assert f"Job {running.id} is running: only a job that is" in refused
    assert f"Job {completed.id} is completed: only a job that is" in refused
    assert {entry.object_id for entry in LogEntry.objects.all()} == {str(job.id) for job in failed}


def test_all_that_a_filter_finds_is_retried_beyond_the_page_and_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """N85: an order that moves jobs out of the filter that found them still reaches each of them once."""
    monkeypatch.setattr(actions, "CHUNK", 50)
    failed = make_job(Status.FAILED, queue="mail")
    copies(failed, 219)
    other = make_job(Status.FAILED)
    response = confirmed(staff(*MAY_RETRY), "retry", failed, query="?queue=mail&status=failed", select_across="1")
    assert messages(response) == ["Retry selected jobs: 220 jobs."]
    assert Job.objects.filter(queue="mail", status="pending").count() == 220
    assert statuses(other) == ["failed"]
    assert LogEntry.objects.count() == 220


def test_one_order_takes_a_limited_number_and_says_that_there_are_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """N85: a request must end; the next order takes the rest."""
    monkeypatch.setattr(actions, "CHUNK", 7)
    monkeypatch.setattr(actions, "AT_ONCE", 20)
    failed = make_job(Status.FAILED)
    copies(failed, 29)
    client = staff(*MAY_RETRY)
    asked = order(client, "retry", failed, query="?status=failed", select_across="1").content.decode()
    assert "20 jobs are selected." in asked
    assert "More match" in asked
    done, more = messages(confirmed(client, "retry", failed, query="?status=failed", select_across="1"))
    assert done == "Retry selected jobs: 20 jobs."
    assert more.startswith("One order takes 20 jobs.")
    (rest,) = messages(confirmed(client, "retry", failed, query="?status=failed", select_across="1"))
    assert rest == "Retry selected jobs: 10 jobs."


def test_many_refusals_are_counted_and_the_first_are_shown() -> None:
    completed = make_job(Status.COMPLETED)
    copies(completed, 29)
    (text,) = messages(confirmed(staff(*MAY_RETRY), "retry", completed, query="?q=noop", select_across="1"))
    assert text.startswith("30 jobs were refused: ")
    assert text.count("is completed: only a job that is") == actions.REASONS
    assert text.endswith(" …")


def test_a_database_that_fails_in_between_leaves_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was done is done and said; the reader sees no SQL."""
    jobs = [make_job(Status.FAILED) for _ in range(3)]
    given: list[UUID] = []

    def fails_at_the_second(job_id: UUID) -> None:
        given.append(job_id)
        if len(given) == 2:
            raise OperationalError("server closed the connection: SELECT secret")
        retry(job_id)

    broken = replace(verb_of("job", "retry"), run=lambda job, _by, _given: fails_at_the_second(job))
    monkeypatch.setattr("django_durable_jobs.admin.jobs.JobAdmin.actions", (actions.as_action(broken, "jobs"),))
    response = confirmed(staff(*MAY_RETRY), "retry", *jobs)
    done, failed = messages(response)
    assert done == "Retry selected jobs: 1 job."
    assert "The database failed" in failed
    assert "SELECT secret" not in response.content.decode()
    assert sorted(statuses(*jobs)) == ["failed", "failed", "pending"]
    assert len(given) == 2


def test_jobs_that_are_gone_when_the_answer_comes_are_no_error() -> None:
    job = make_job(Status.FAILED)
    client = staff(*MAY_RETRY)
    ids = [str(job.id)]
    job.delete()
    form = {"action": "retry", "index": "0", "_selected_action": ids, "confirmed": "yes"}
    assert messages(client.post(JOBS, form, follow=True)) == ["None of the selected jobs is there any more."]
    gone = messages(client.post(f"{JOBS}{ids[0]}/retry/", follow=True))[0]
    assert gone == "None of the selected jobs is there any more."


@pytest.mark.parametrize("selected", ["nonsense", "1", "", "' OR 1=1 --", "%00"])
def test_a_selection_that_no_list_has_made_does_nothing(selected: str) -> None:
    job = make_job(Status.FAILED)
    form = {"action": "retry", "index": "0", "_selected_action": [str(job.id), selected], "confirmed": "yes"}
    response = staff(*MAY_RETRY).post(JOBS, form, follow=True)
    assert response.status_code == 200
    assert statuses(job) == ["failed"]


# Who may


@pytest.mark.parametrize("name", ["retry", "delete"])
@pytest.mark.parametrize("permissions", [("view_job",), ("view_job", "view_arguments")])
def test_an_order_without_its_permission_is_forbidden(name: str, permissions: tuple[str, ...]) -> None:
    """N86: also by hand, also confirmed; and it is not offered."""
    job = make_job(Status.FAILED)
    client = staff(*permissions)
    for extra in ({}, {"confirmed": "yes"}):
        assert order(client, name, job, **extra).status_code == 403
    assert client.post(f"{JOBS}{job.id}/{name}/", {"post": "yes"}).status_code == 403
    assert statuses(job) == ["failed"]
    for page in (html(client, JOBS), html(client, page_of(job))):
        assert f'value="{name}"' not in page
        assert f"/{name}/" not in page


def test_one_permission_does_not_give_the_other_order() -> None:
    """S3."""
    job = make_job(Status.FAILED)
    assert order(staff(*MAY_RETRY), "delete", job, confirmed="yes").status_code == 403
    assert order(staff(*MAY_DELETE), "retry", job, confirmed="yes").status_code == 403
    assert statuses(job) == ["failed"]


def test_the_sites_own_deletion_is_not_offered() -> None:
    """It would load every row and go past the operation."""
    job = make_job(Status.RUNNING)
    client = staff(*MAY_DELETE)
    assert "delete_selected" not in html(client, JOBS)
    order(client, "delete_selected", job, post="yes")
    assert statuses(job) == ["running"]


def test_an_order_without_a_csrf_token_is_forbidden() -> None:
    """S5."""
    job = make_job(Status.FAILED)
    inner = staff(*MAY_RETRY, "delete_job")
    client = Client(enforce_csrf_checks=True)
    client.cookies = inner.cookies
    assert client.post(f"{JOBS}{job.id}/retry/").status_code == 403
    assert client.post(f"{JOBS}{job.id}/delete/", {"post": "yes"}).status_code == 403
    assert order(client, "retry", job, confirmed="yes").status_code == 403
    assert statuses(job) == ["failed"]


# Delete


def test_a_job_is_deleted_with_its_attempts_and_calls() -> None:
    job, other = make_job(Status.FAILED), make_job(Status.FAILED)
    for each in (job, other):
        make_attempt(each)
        make_checkpoint(each)
    client = staff(*MAY_DELETE)
    asked = html(client, f"{JOBS}{job.id}/delete/")
    assert str(job.id) in asked
    response = client.post(f"{JOBS}{job.id}/delete/", {"post": "yes"}, follow=True)
    assert response.redirect_chain == [(JOBS, 302)]
    assert list(Job.objects.values_list("id", flat=True)) == [other.id]
    assert list(Attempt.objects.values_list("job_id", flat=True)) == [other.id]
    assert list(Checkpoint.objects.values_list("job_id", flat=True)) == [other.id]


def test_a_running_job_is_not_deleted_and_says_why() -> None:
    """N88: when asked, when confirmed, and among others."""
    running, failed = make_job(Status.RUNNING), make_job(Status.FAILED)
    client = staff(*MAY_DELETE)
    reason = f"Job {running.id} is running: it can be deleted when its worker is done with it."
    address = f"{JOBS}{running.id}/delete/"
    for response in (client.get(address, follow=True), client.post(address, {"post": "yes"}, follow=True)):
        assert response.redirect_chain == [(page_of(running), 302)]
        assert messages(response) == [reason]
    done, refused = messages(confirmed(client, "delete", running, failed))
    assert done == "Delete selected jobs: 1 job."
    assert refused == f"1 job was refused: {reason}"
    assert list(Job.objects.values_list("id", flat=True)) == [running.id]
    assert [entry.object_id for entry in LogEntry.objects.all()] == [str(failed.id)]
