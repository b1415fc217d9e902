"""What a hostile client may send to the API: it is refused in our form, changes nothing and is told nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client

from django_durable_jobs.models import AuditEntry, Queue
from tests.factories import make_job, present
from tests.surfaces.people import staff

pytestmark = pytest.mark.django_db

API = "/jobs/v1/"
EVERYTHING = ("view_job", "view_queue", "view_worker", "view_approval", "cancel_job", "enqueue_job", "pause_queue")
CURSORS = ["", "0x1", "-", "1e9", "9" * 5000, "' OR 1=1", "\x00", "01a21959-c7df-737a-9cd9-503cf052544", "null", "[]"]
TEXTS = ["x" * 100_000, "\x00", "\ud800".encode("utf-8", "surrogatepass"), "'; DROP TABLE x"]
NAMES = [
    *("ordering", "order_by", "_connector", "payload", "payload__contains", "worker__name", "id__in", "format"),
    "x" * 9000,
]
BODIES = ["[" * 100_000, '{"reason":' * 50_000, "1" * 10_000, "NaN", b"\xff", '{"reason": 1e999}']


def refused(response: Any, *statuses: int) -> None:
    assert response.status_code in statuses, (response.status_code, response.content[:300])
    body = response.json()
    assert set(body) == {"error", "code"}
    assert len(body["error"]) < 1000
    assert "Traceback" not in body["error"]


@pytest.mark.parametrize("plural", ["jobs", "workers", "approvals"])
@pytest.mark.parametrize(
    "cursor",
    ["", "0x1", "-", "1e9", "9" * 5000, "' OR 1=1", "\x00", "01a21959-c7df-737a-9cd9-503cf052544", "null", "[]"],
)
def test_a_page_that_was_tampered_with_is_refused(plural: str, cursor: str) -> None:
    make_job("pending")
    refused(staff(*EVERYTHING).get(f"{API}{plural}", {"cursor": cursor}), 400)


@pytest.mark.parametrize(
    "name",
    [
        "ordering",
        "order_by",
        "_connector",
        "payload",
        "payload__contains",
        "worker__name",
        "id__in",
        "format",
        "x" * 9000,
    ],
)
def test_s15_s23_nothing_but_the_filters_of_the_table_is_asked_for(name: str) -> None:
    refused(staff(*EVERYTHING).get(f"{API}jobs", {name: "payload"}), 400, 404)


@pytest.mark.parametrize("value", TEXTS, ids=range(len(TEXTS)))
def test_a_filter_takes_any_text_and_finds_nothing(value: Any) -> None:
    make_job("pending")
    client = staff(*EVERYTHING)
    for name in ("queue", "definition"):
        response = client.get(f"{API}jobs", {name: value})
        if response.status_code == 200:
            assert response.json()["results"] == []
        else:
            refused(response, 400)


@pytest.mark.parametrize("key", ["x" * 5000, "%00", "%ff%fe", "..%2f..%2fetc", "%27", "null", "9" * 400], ids=range(7))
@pytest.mark.parametrize("plural", ["jobs", "queues", "workers", "approvals"])
def test_a_key_that_is_none_is_not_found(plural: str, key: str) -> None:
    client = staff(*EVERYTHING, "pause_job", "pause_worker", "decide_approval")
    assert client.get(f"{API}{plural}/{key}").status_code == 404
    verb = "approve" if plural == "approvals" else "pause"
    assert client.post(f"{API}{plural}/{key}/{verb}", content_type="application/json").status_code == 404


@pytest.mark.parametrize("method", ["put", "patch", "delete", "trace"])
def test_other_methods_are_refused(method: str) -> None:
    job = make_job("pending")
    client: Any = staff(*EVERYTHING)
    for address in ("jobs", f"jobs/{job.id}", f"jobs/{job.id}/cancel", "queues"):
        refused(getattr(client, method)(f"{API}{address}"), 403, 405)
    assert present(job).status == "pending"


def test_looking_at_what_a_view_can_do_needs_its_permission_and_does_nothing() -> None:
    job = make_job("pending")
    for address in ("jobs", f"jobs/{job.id}", f"jobs/{job.id}/cancel"):
        assert Client().options(f"{API}{address}").status_code in {401, 403}
        assert staff().head(f"{API}{address}").status_code in {403, 405}
        assert staff(*EVERYTHING).options(f"{API}{address}").status_code == 200
    assert present(job).status == "pending"
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain"])
def test_another_content_type_is_refused(kind: str) -> None:
    job = make_job("pending")
    response = staff(*EVERYTHING).post(f"{API}jobs/{job.id}/cancel", b"reason=x", content_type=kind)
    refused(response, 415)
    assert present(job).status == "pending"


def test_there_is_no_page_for_browsers_that_could_show_more() -> None:
    make_job("failed", last_error="<script>swordfish</script>")
    client = staff(*EVERYTHING)
    response = client.get(f"{API}jobs", headers={"accept": "text/html"})
    assert "html" not in response["Content-Type"]
    assert "swordfish" not in response.content.decode()
    assert "html" not in client.get(f"{API}jobs?format=api")["Content-Type"]


@pytest.mark.parametrize(
    "body", ["[" * 100_000, '{"reason":' * 50_000, "1" * 10_000, "NaN", b"\xff", '{"reason": 1e999}']
)
def test_a_body_that_no_parser_can_follow_is_refused(body: Any) -> None:
    """Nested beyond measure it was an error of the server once."""
    job = make_job("pending")
    response = staff(*EVERYTHING).post(f"{API}jobs/{job.id}/cancel", body, content_type="application/json")
    refused(response, 400, 413)
    assert present(job).status == "pending"


def test_a_wait_cannot_hold_a_request_for_long() -> None:
    Queue.objects.create(name="mail")
    body = json.dumps({"wait": 21})
    response = staff(*EVERYTHING).post(f"{API}queues/mail/drain", body, content_type="application/json")
    refused(response, 400)
    assert not Queue.objects.filter(paused_at__isnull=False).exists()
    assert not AuditEntry.objects.exists()
