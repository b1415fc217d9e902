"""The page of a pipeline's job shows the report of its run (E8)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from django_durable_jobs.models import ExecutionReport
from tests.factories import make_job
from tests.surfaces.admin_pages import HIDDEN, html, page_of
from tests.surfaces.people import staff, superuser

pytestmark = pytest.mark.django_db


def _try(number: int, error: str | None) -> dict[str, Any]:
    moment = "2026-01-01T00:00:00+00:00"
    return {"number": number, "started_at": moment, "finished_at": moment, "error": error}


TASKS = [
    {"name": "extract", "status": "failed", "attempts": [_try(1, HIDDEN), _try(2, HIDDEN)]},
    {"name": "publish", "status": "not_started", "attempts": []},
]


def test_the_report_is_shown_with_every_try() -> None:
    job = make_job("completed")
    ExecutionReport.objects.create(job=job, outcome="completed_with_errors", tasks=json.dumps(TASKS))
    page = html(superuser(), page_of(job))
    assert "Execution report: completed with errors" in page
    assert page.count("<td>extract</td>") == 2
    assert "not started" in page
    assert HIDDEN in page


def test_errors_of_tasks_are_values_that_not_everyone_may_see() -> None:
    job = make_job("completed")
    ExecutionReport.objects.create(job=job, outcome="failed", tasks=json.dumps(TASKS))
    page = html(staff("view_job"), page_of(job))
    assert "Execution report: failed" in page
    assert HIDDEN not in page


def test_a_job_that_is_no_pipeline_or_has_not_ended_shows_none() -> None:
    running = make_job("running")
    ExecutionReport.objects.create(job=running, outcome="failed", tasks=json.dumps(TASKS))
    for job in (make_job("completed"), running):
        assert "Execution report" not in html(superuser(), page_of(job))
