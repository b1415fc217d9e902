"""Enqueueing over HTTP and by the command: who may, what may be enqueued, once (S2, S3, S5, S8, I34)."""

from __future__ import annotations

import io
import json
from datetime import date
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client

from django_durable_jobs import durable_job, new_job_id
from django_durable_jobs.errors import OptionError
from django_durable_jobs.models import AuditEntry, Job, Queue
from django_durable_jobs.registry import get
from tests.factories import present
from tests.surfaces.people import staff

pytestmark = pytest.mark.django_db

ADDRESS = "/jobs/v1/jobs"
OPEN = "tests.jobs.open_to_http"
CLOSED = "tests.jobs.noop"
DAY = {"$date": "2030-01-31"}


def post(body: Any, client: Client | None = None) -> tuple[int, Any]:
    text = body if isinstance(body, str | bytes) else json.dumps(body)
    response = (client or staff("enqueue_job")).post(ADDRESS, text, content_type="application/json")
    return response.status_code, response.json()


def command(*words: str) -> str:
    out = io.StringIO()
    call_command("jobs", "enqueue", *words, stdout=out)
    return out.getvalue()


def test_a_job_is_enqueued_over_http_with_its_options() -> None:
    options = {"queue": "urgent", "priority": "high", "delay": 60, "retries": 1}
    status, answer = post({"definition": OPEN, "args": [DAY], "kwargs": {"note": "x"}, "options": options})
    assert status == 201
    assert answer["existing"] is False
    job = Job.objects.get()
    assert answer["id"] == answer["now"]["id"] == str(job.id)
    assert (job.queue, job.priority, job.status, job.max_attempts) == ("urgent", 50, "scheduled", 2)
    args, kwargs = get(OPEN).arguments.load(job.payload)
    assert (args, kwargs) == ((date(2030, 1, 31),), {"note": "x"})
    assert Queue.objects.filter(name="urgent").exists()
    entry = AuditEntry.objects.get()
    assert (entry.surface, entry.verb, entry.name, entry.outcome) == ("api", "enqueue", str(job.id), "done")
    assert entry.given == options


def test_s8_only_what_says_so_is_enqueued_over_http_and_nothing_is_told_of_the_rest() -> None:
    answers = [post({"definition": name, "args": [1]}) for name in (CLOSED, "no.such.job", "os.system", "\ud800", "")]
    assert {status for status, _answer in answers} == {404}
    words = {answer["error"].partition(" is called ")[0] for _status, answer in answers}
    assert words == {"No durable job that HTTP may enqueue (api=True)"}
    assert not Job.objects.exists()
    assert not AuditEntry.objects.exists()


def test_s3_it_needs_its_own_permission_and_a_csrf_token() -> None:
    body = {"definition": OPEN, "args": [DAY]}
    assert post(body, Client())[0] in {401, 403}
    assert post(body, staff("view_job", "view_arguments", "retry_job", "delete_job"))[0] == 403
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = staff("enqueue_job").cookies
    assert post(body, strict)[0] == 403
    assert staff("enqueue_job").get(ADDRESS).status_code == 403
    assert not Job.objects.exists()


def test_i34_a_repeated_call_with_its_id_finds_the_first_job() -> None:
    body = {"definition": OPEN, "args": [DAY], "options": {"id": str(new_job_id())}}
    first, second = post(body), post(body)
    assert (first[0], second[0]) == (201, 200)
    assert first[1]["id"] == second[1]["id"] == body["options"]["id"]  # type: ignore[index]  # it has options
    assert second[1]["existing"] is True
    assert Job.objects.count() == 1
    status, answer = post({**body, "args": [{"$date": "2031-01-01"}]})
    assert (status, answer["code"]) == (400, "VALIDATION_ERROR")
    assert "belongs to another job" in answer["error"]


def test_a_unique_key_is_answered_with_its_holder() -> None:
    body = {"definition": OPEN, "args": [DAY], "options": {"unique_key": "one"}}
    assert [post(body)[0], post(body)[0]] == [201, 200]
    assert Job.objects.count() == 1


NONE_FITS: list[Any] = [{}, ["2030-01-31"], [DAY, 1], [{"$date": "never"}], [{"$class": "os.system"}]]
NO_NAMES: list[Any] = [[], {"*": 1}, {"note": 7}, {"other": 7}, {"note": "\ud800"}, {"note": {"$nothing": 1}}]
NO_OPTIONS: list[Any] = [
    *([], {"atomic": True}, {"id": "4"}, {"id": 7}, {"queue": "a b"}, {"queue": ["a"]}, {"priority": 10**30}),
    *({"delay": -1}, {"delay": 1, "run_at": "2030-01-01T00:00:00+00:00"}, {"run_at": "2030-01-01T00:00:00"}),
    *({"unique_key": "\ud800"}, {"tenant": "x" * 1000}, {"retries": 1.5}, {"expire_after": 0}),
]
REFUSED: list[Any] = [
    *([], 1, "null", {"definition": ["a"]}, "[" * 100_000, '{"definition": NaN}', "1" * 10_000, b"\xff\xfe", ""),
    *({"definition": OPEN}, {"definition": OPEN, "args": [DAY], "more": 1}),
    *({"definition": OPEN, "args": args} for args in NONE_FITS),
    *({"definition": OPEN, "args": [DAY], "kwargs": kwargs} for kwargs in NO_NAMES),
    *({"definition": OPEN, "args": [DAY], "options": options} for options in NO_OPTIONS),
]


@pytest.mark.parametrize("body", REFUSED, ids=range(len(REFUSED)))
def test_what_is_no_enqueue_is_refused_and_nothing_is_stored(body: Any) -> None:
    status, answer = post(body)
    assert (status, answer["code"]) == (400, "VALIDATION_ERROR"), answer
    assert len(answer["error"]) < 600
    assert not Job.objects.exists()


def test_a_body_beyond_its_limit_is_not_read() -> None:
    status, answer = post({"definition": OPEN, "args": [DAY], "kwargs": {"note": "x" * 1_000_000}})
    assert (status, answer["code"]) == (413, "TOO_LARGE")
    status, answer = post({"definition": OPEN, "args": [DAY], "kwargs": {"note": "x" * 270_000}})
    assert (status, answer["code"]) == (400, "VALIDATION_ERROR")  # the arguments' own limit
    assert not Job.objects.exists()


@pytest.mark.once
def test_api_is_a_yes_or_no() -> None:
    with pytest.raises(OptionError, match="api must be True or False"):
        durable_job(api="yes")(test_api_is_a_yes_or_no)  # type: ignore[call-overload]  # on purpose
    assert get(CLOSED).api is False


def test_the_command_enqueues_any_definition() -> None:
    shown = command(CLOSED, "--args", "[1]", "--queue", "urgent", "--priority", "7", "--delay", "60").strip()
    job = Job.objects.get()
    assert shown == str(job.id)
    assert (job.queue, job.priority, job.status) == ("urgent", 7, "scheduled")
    entry = AuditEntry.objects.get()
    assert (entry.surface, entry.verb, entry.name) == ("command", "enqueue", str(job.id))
    id_ = str(new_job_id())
    assert json.loads(command(CLOSED, "--kwargs", '{"n": 1}', "--id", id_, "--output", "json"))["existing"] is False
    assert json.loads(command(CLOSED, "--kwargs", '{"n": 1}', "--id", id_, "--output", "json"))["existing"] is True
    assert present(Job.objects.get(id=id_)).definition == CLOSED


@pytest.mark.parametrize("words", [
    ["no.such.job"], [CLOSED], [CLOSED, "--args", "1"], [CLOSED, "--args", "[1"], [CLOSED, "--args", '["x"]'],
    [CLOSED, "--args", "[1]", "--delay", "soon"], [CLOSED, "--args", "[1]", "--id", "4"],
    [CLOSED, "--args", "[" * 100_000],
], ids=lambda words: " ".join(words)[:60])  # fmt: skip
def test_the_command_refuses_what_is_no_enqueue(words: list[str]) -> None:
    with pytest.raises(CommandError) as caught:
        command(*words)
    assert caught.value.returncode == 1
    assert not Job.objects.exists()


def test_both_say_the_same_when_they_refuse() -> None:
    body = {"definition": OPEN, "args": [7]}
    with pytest.raises(CommandError) as caught:
        command(OPEN, "--args", "[7]")
    assert str(caught.value) == post(body)[1]["error"]
