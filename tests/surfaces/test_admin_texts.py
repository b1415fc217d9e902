"""Hostile and enormous texts in the admin: shown as text, and in part."""

from __future__ import annotations

import json
import re
from html import escape

import pytest

from django_durable_jobs.admin.showing import PAGE_LIMIT
from django_durable_jobs.models import Queue
from django_durable_jobs.rendering import visible
from django_durable_jobs.states import Status
from tests.factories import make_attempt, make_checkpoint, make_job, make_worker
from tests.surfaces.admin_pages import ADMIN, JOBS, html, page_of
from tests.surfaces.people import superuser

pytestmark = pytest.mark.django_db

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{7*7}}{% now 'Y' %}",
    "</textarea></pre></details>",
    "\u202egnp.exe\u2066\u200f",
    "\x1b[2Jcleared",
    "&lt;b&gt;",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_is_shown_as_text_wherever_it_stands(text: str) -> None:
    """N83, S26: the same string in list and page, of jobs, queues and workers."""
    worker = make_worker(name=text, host=text, queues={text: 1})
    common = {"payload": json.dumps({text: text}), "result": json.dumps(text), "last_error": text}
    job = make_job(
        Status.RUNNING,
        worker=worker,
        definition=text,
        queue=text,
        options=text,
        tags=[text],
        progress={"current": text, "total": text, "message": text},
        **common,
    )
    make_attempt(job, error=text, traceback=text, worker_name=text)
    make_checkpoint(job, text, name=text, result=json.dumps(text))
    make_checkpoint(job, "2", name=text, result=None, error=text)
    queue = Queue.objects.create(name=text)
    client = superuser()
    addresses = [
        JOBS,
        f"{JOBS}?status=running",
        page_of(job),
        f"{JOBS}{job.id}/history/",
        f"{ADMIN}queue/",
        f"{ADMIN}worker/",
        f"{ADMIN}worker/{worker.pk}/change/",
    ]
    stored = [html(client, address) for address in addresses]
    stored.append(client.get(f"{JOBS}{job.id}/delete/", follow=True).content.decode())
    # What the reader typed comes back in hidden fields of the search form, letter by letter; escaped it must be.
    typed = [client.get(JOBS, data, follow=True) for data in ({"q": text}, {"queue": text}, {text: text})]
    assert queue.pk == text
    for number, page in enumerate([*stored, *(response.content.decode() for response in typed)]):
        assert "alert(1)</script>" not in page, f"page {number}"
        assert "<img src=x" not in page, f"page {number}"
        assert "</textarea></pre>" not in page, f"page {number}"
        assert "&lt;b&gt;" not in page.replace("&amp;lt;b&amp;gt;", ""), f"page {number}"
    for number, page in enumerate(stored):
        assert not set("\u202e\u2066\u200f\x1b") & set(page), f"page {number}"
        assert "49" not in re.findall(r">([^<>]*)<", page), f"page {number}"
    shown = escape(visible(text))
    assert shown in stored[0]
    assert stored[2].count(shown) >= 8


def test_a_message_about_a_hostile_text_is_text() -> None:
    response = superuser().get(f"{JOBS}%3Cscript%3Ealert(1)%3C%2Fscript%3E/change/", follow=True)
    assert "<script>alert" not in response.content.decode()


def test_an_enormous_value_is_cut_on_the_page_and_whole_in_the_download() -> None:
    """N87."""
    huge = json.dumps({"text": "é<&" * 700_000})
    job = make_job(Status.FAILED, payload=huge, result=huge, last_error="x" * 5_000)
    attempt = make_attempt(job, error="ValueError: " + "y" * 50_000, traceback="line\n" * 200_000)
    call = make_checkpoint(job, "1", result=huge)
    client = superuser()
    assert len(html(client, JOBS)) < 60_000
    page = html(client, page_of(job))
    assert len(page) < 12 * PAGE_LIMIT
    assert page.count("Download all of it") == 5
    for what, row, expected in (
        ("arguments", 0, huge),
        ("result", 0, huge),
        ("traceback", attempt.pk, "line\n" * 200_000),
        ("call-result", call.pk, huge),
    ):
        address = f"{JOBS}{job.id}/text/{what}/{row}/"
        assert address in page
        response = client.get(address)
        assert response.content.decode() == expected
        assert response["Content-Type"] == "text/plain; charset=utf-8"
        assert response["Content-Disposition"] == f'attachment; filename="{what}.txt"'
        assert response["X-Content-Type-Options"] == "nosniff"


def test_a_download_gives_texts_of_its_own_job_only() -> None:
    mine, other = make_job(Status.FAILED), make_job(Status.FAILED)
    attempt = make_attempt(other, traceback="of another job")
    client = superuser()
    assert client.get(f"{JOBS}{mine.id}/text/traceback/{attempt.pk}/").status_code == 404
    assert client.get(f"{JOBS}{other.id}/text/traceback/{attempt.pk}/").status_code == 200


@pytest.mark.parametrize("stored", ["{broken", "[" * 15_000, "", "null", '{"a": NaN}', '"\\u0000"'])
def test_a_value_that_is_no_json_is_shown_as_it_is(stored: str) -> None:
    job = make_job(Status.COMPLETED, payload=stored, result=stored)
    assert str(job.id) in html(superuser(), page_of(job))


def test_pages_work_without_inline_scripts_and_styles() -> None:
    """S26: a Content-Security-Policy without 'unsafe-inline' breaks nothing of ours."""
    job = make_job(Status.FAILED)
    for address in (JOBS, page_of(job), f"{ADMIN}queue/", f"{ADMIN}worker/"):
        page = html(superuser(), address)
        assert "<style" not in page
        assert " style=" not in page
        assert " onclick=" not in page
        for script in page.split("<script")[1:]:
            head, _, body = script.partition(">")
            assert "src=" in head or not body.partition("</script>")[0].strip()
