"""System checks about where the tables are: not migrated, kept off by a router, in a second database (X74)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.databases import database_settings
from tests.surfaces.checking import ELSEWHERE, run


@pytest.mark.django_db(transaction=True)
def test_tables_that_were_not_migrated_are_an_error_that_names_the_setting(empty_database: str) -> None:
    """X74."""
    done = run("check", "--database", "default", url=empty_database)
    assert done.returncode == 1
    assert "(django_durable_jobs.E009)" in done.stderr
    assert "'default' (DURABLE_JOBS['DATABASE'])" in done.stderr
    assert "manage.py migrate --database default" in done.stderr
    assert run("check", url=empty_database).returncode == 0, "without --database no database is asked"


@pytest.mark.django_db(transaction=True)
def test_migrations_that_are_missing_are_an_error_that_names_them(empty_database: str) -> None:
    """X74: the tables are there, but of an earlier version."""
    migrated = run("migrate", "django_durable_jobs", "0001", "-v", "0", url=empty_database)
    assert migrated.returncode == 0, migrated.stderr
    done = run("check", "--database", "default", url=empty_database)
    assert done.returncode == 1
    assert "(django_durable_jobs.E012)" in done.stderr
    assert "0002_storage_parameters" in done.stderr


def test_a_router_that_keeps_the_tables_off_is_an_error_that_names_the_setting() -> None:
    """X74."""
    done = run("check", DATABASE_ROUTERS=[ELSEWHERE])
    assert done.returncode == 1
    assert "(django_durable_jobs.E008)" in done.stderr
    assert "'default' that DURABLE_JOBS['DATABASE'] names" in done.stderr


@pytest.mark.django_db(transaction=True)
def test_jobs_may_live_in_a_second_database_behind_a_router(empty_database: str) -> None:
    """X74: settings, check, migrate and a worker, all on the database that the setting names."""
    changes: dict[str, Any] = {
        "DATABASES": {"jobs": database_settings(empty_database)},
        "DATABASE_ROUTERS": [ELSEWHERE],
        "DURABLE_JOBS": {"DATABASE": "jobs"},
    }
    assert run("check", **changes).returncode == 0
    missing = run("check", "--database", "jobs", **changes)
    assert "'jobs' (DURABLE_JOBS['DATABASE'])" in missing.stderr
    assert "manage.py migrate --database jobs" in missing.stderr
    migrated = run("migrate", "--database", "jobs", "-v", "0", **changes)
    assert migrated.returncode == 0, migrated.stderr
    assert run("check", "--database", "jobs", **changes).returncode == 0
    script = (
        "from tests.jobs import add; from django_durable_jobs.models import Job; job = add.enqueue(1, 2); "
        "print([str(found.id) for found in Job.objects.using('jobs')] == [str(job.id)])"
    )
    assert run("shell", "-c", script, **changes).stdout.splitlines()[-1:] == ["True"]
    worked = run("runjobs", "--queue", "default=1", "--drain", **changes)
    assert worked.returncode == 0, worked.stderr
    state = "from django_durable_jobs.models import Job; print(Job.objects.using('jobs').get().status)"
    assert run("shell", "-c", state, **changes).stdout.splitlines()[-1:] == ["completed"]
