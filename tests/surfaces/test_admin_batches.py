"""Batches in the admin: a list, and a page that counts the members."""

from __future__ import annotations

import pytest

from django_durable_jobs import Batch, cancel, durable_job
from django_durable_jobs.models import JobBatch
from tests.jobs import noop
from tests.surfaces.admin_pages import ADMIN
from tests.surfaces.people import staff

pytestmark = pytest.mark.django_db(transaction=True)

LIST = f"{ADMIN}jobbatch/"


@durable_job
def note_the_end(batch: str) -> None:
    """Be told of an end."""


def test_a_page_shows_members_by_status_and_the_callbacks_that_were_enqueued() -> None:
    with Batch.open("<b>monthly</b>", on_complete=note_the_end.s("monthly")) as batch:
        first, second = batch.enqueue(noop, 1), batch.enqueue(noop, 2)
    client = staff("view_jobbatch")
    page = client.get(f"{LIST}{batch.id}/change/").content.decode()
    assert "0 of 2 ended" in page
    assert "2 pending" in page
    assert "&lt;b&gt;monthly&lt;/b&gt;" in page
    assert "<b>monthly</b>" not in page
    cancel(first)
    cancel(second)
    page = client.get(f"{LIST}{batch.id}/change/").content.decode()
    assert "2 of 2 ended" in page
    assert "2 cancelled" in page
    (callback,) = JobBatch.objects.get().enqueued.values()
    assert f"/job/{callback}/change/" in page
    listed = client.get(LIST).content.decode()
    assert "&lt;b&gt;monthly&lt;/b&gt;" in listed
    assert "cancelled" not in listed, "members are not counted in a list"


def test_nobody_without_the_permission_sees_batches() -> None:
    assert staff("view_job").get(LIST).status_code == 403


def test_the_list_takes_as_many_queries_for_many_as_for_one(django_assert_max_num_queries: object) -> None:
    for number in range(5):
        Batch.open(f"batch {number}")
    client = staff("view_jobbatch")
    with django_assert_max_num_queries(10):  # type: ignore[operator]  # pytest-django's own type is private
        assert client.get(LIST).status_code == 200
