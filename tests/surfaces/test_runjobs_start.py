"""The start of a worker: refused in one line where it cannot work, with warnings where it will not work well."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection

from django_durable_jobs.dialects.limits import server_limit
from django_durable_jobs.management import preflight
from django_durable_jobs.operations import capacity
from tests.databases import current_url, lane_of
from tests.surfaces.checking import run


@pytest.mark.once
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"LEESE": 30}, "DURABLE_JOBS has no setting 'LEESE'. Did you mean 'LEASE'?"),
        ({"LEASE": 10, "HEARTBEAT": 5}, "LEASE (10 s) is shorter than three HEARTBEATs (5 s each)"),
        ({"DATABASE": "jops"}, "DURABLE_JOBS['DATABASE'] is 'jops', which is not in DATABASES. Use one of: default."),
        ({"LEESE": 30, "RETRIES": -1}, "(1 more: manage.py check says which)"),
    ],
)
def test_a_worker_does_not_start_with_settings_that_cannot_be_used(settings: dict[str, Any], words: str) -> None:
    """Exit code 2 and one line, without a traceback."""
    done = run("runjobs", "--queue", "default=1", "--drain", DURABLE_JOBS=settings)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert words in done.stderr


@pytest.mark.django_db(transaction=True)
def test_a_worker_does_not_start_on_a_database_without_the_tables(empty_database: str) -> None:
    """X74."""
    done = run("runjobs", "--queue", "default=1", "--drain", url=empty_database)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "The tables of durable jobs are not in the database 'default'" in line
    assert "manage.py migrate --database default" in line


@pytest.mark.django_db
def test_more_threads_than_the_server_takes_are_a_warning_with_the_numbers(caplog: pytest.LogCaptureFixture) -> None:
    """N58: the number is the server's own; SQLite has none."""
    limit = server_limit(connection)
    if lane_of(current_url()) == "sqlite":
        assert limit is None
        assert capacity.connection_shortage(1000, 64) is None
        return
    assert limit is not None
    assert capacity.connection_shortage(limit - capacity.OWN_CONNECTIONS) is None
    preflight.warn_of_shortages(limit // 2, 3)
    (line,) = caplog.messages
    wanted = 3 * (limit // 2 + capacity.OWN_CONNECTIONS)
    assert f"Up to {wanted} connections are needed" in line
    assert f"takes {limit} in all" in line


@pytest.mark.parametrize(("pool", "size"), [(True, 4), ({"min_size": 2}, 2), ({"max_size": 7, "min_size": 1}, 7)])
def test_more_threads_than_the_pool_takes_are_a_warning(database_options: dict[str, Any], pool: Any, size: int) -> None:
    """N58."""
    database_options["OPTIONS"]["pool"] = pool
    text = capacity.connection_shortage(10)
    assert text is not None
    assert f"the pool of database 'default' has {size}" in text
    assert "15 connections" in text


@pytest.mark.django_db(transaction=True)
def test_a_worker_says_at_its_start_what_it_may_run_out_of() -> None:
    """N58, N56: as lines of the log; it works nevertheless."""
    done = run("runjobs", "--queue", "default=1", "--threads", "900", "--drain", DEBUG=True)
    assert done.returncode == 0, done.stderr
    assert "DEBUG is True" in done.stderr
    assert ("connections are needed" in done.stderr) is (lane_of(current_url()) != "sqlite")
