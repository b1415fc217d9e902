"""What the page of a waiting job says: for what it waits, and who is in front of it."""

from __future__ import annotations

import pytest

from django_durable_jobs import durable_job
from django_durable_jobs.states import Status
from tests.factories import make_job
from tests.surfaces.admin_pages import HIDDEN, html, page_of
from tests.surfaces.people import staff, superuser


@durable_job(sequence_key=f"customer {HIDDEN}")
def follow() -> None:
    """Follow the others."""


@pytest.mark.django_db(transaction=True)
def test_the_page_of_a_job_of_a_sequence_shows_who_blocks() -> None:
    front, behind = follow.enqueue(), follow.enqueue()
    text = html(superuser(), page_of(behind.job()))
    assert f'/job/{front.id}/change/" class="ddj-mono">{front.id}</a>' in text
    assert f"customer {HIDDEN}" in text
    assert "Waits for" not in html(superuser(), page_of(front.job()))
    seen_by_few = html(staff("view_job"), page_of(behind.job()))
    assert str(front.id) in seen_by_few
    assert HIDDEN not in seen_by_few


@pytest.mark.django_db
def test_the_page_of_any_waiting_job_says_for_what() -> None:
    assert "message &lt;go&gt;" in html(superuser(), page_of(make_job(Status.WAITING, waiting_for="message <go>")))
