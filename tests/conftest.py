"""Fixtures for all tests: the databases. Rows come from `tests/factories.py`, job functions from `tests/jobs.py`."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import hypothesis
import pytest
from django.conf import settings
from django.core.management import call_command

from django_durable_jobs import faults
from django_durable_jobs.dialects import Dialect, dialect_of
from django_durable_jobs.operations import enqueue
from tests.databases import current_url, lane_of, using_database
from tests.emptying import empty_by_delete
from tests.reliability.harness import workers  # noqa: F401 -- a fixture
from tests.servers import EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_django import DjangoDbBlocker

TEMPLATE = "durable_jobs_template"
"""The database that each `private_database` is copied from; migrating is done once."""

# How long an example takes says how busy the machine is: other lanes and real workers run beside it.
hypothesis.settings.register_profile("durable_jobs", deadline=None)
hypothesis.settings.load_profile("durable_jobs")


def pytest_configure() -> None:
    """Make and empty the tables of the test database in the ways that are quick here."""
    # Tables of others are made as they are now, not by their twenty migrations: a quarter of a second for each process.
    settings.MIGRATION_MODULES = dict.fromkeys(["admin", "auth", "contenttypes", "sessions"])
    if lane_of(current_url()) == "postgresql":
        empty_by_delete()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that may take longest, by the limits that their tests give themselves."""
    longest: dict[str, float] = {}
    for item in items:
        limit = item.get_closest_marker("timeout")
        seconds = float(limit.args[0]) if limit is not None else 0.0
        longest[item.location[0]] = max(seconds, longest.get(item.location[0], 0.0))
    items.sort(key=lambda item: -longest[item.location[0]])


def pytest_report_header() -> str:
    """Say which database this run is on."""
    return f"database: {lane_of(current_url())}"


@pytest.fixture(scope="session")
def private_postgres(django_db_blocker: DjangoDbBlocker) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL server that only this test run uses, to be crashed at will; started when first asked for.

    It is part of the PostgreSQL lane; elsewhere the test is skipped.
    """
    if lane_of(current_url()) != "postgresql":
        pytest.skip("crashes a PostgreSQL server: runs in the lane of that name")
    with EmbeddedPostgres() as server:
        with django_db_blocker.unblock(), using_database(server.create_database(TEMPLATE)):
            call_command("migrate", run_syncdb=True, verbosity=0)
        yield server


@pytest.fixture
def private_database(
    private_postgres: EmbeddedPostgres, django_db_blocker: DjangoDbBlocker
) -> Iterator[EmbeddedPostgres]:
    """A running private server whose fresh, migrated database is this test's default connection.

    The ORM, threads and `child_environment` all lead there, so no ``django_db`` mark is needed. The test may leave
    the server down.
    """
    private_postgres.start()
    name = f"private_{uuid4().hex}"
    url = private_postgres.create_database(name, template=TEMPLATE)
    with django_db_blocker.unblock(), using_database(url):
        yield private_postgres


@pytest.fixture(autouse=True)
def _forget_what_the_process_remembers() -> Iterator[None]:
    """Undo what a test changes in this process: fault hook, moved clock, queues known to have a row.

    Between two tests the tables are emptied, which no production process has to reckon with.
    """
    enqueue._queues_with_row.clear()
    enqueue._notified.clear()
    yield
    faults.install(None)
    dialect_of("default").clock_offset = timedelta(0)


@pytest.fixture
def dialect() -> Dialect:
    """What the database of this run does its own way; tests ask its flags, never for a vendor."""
    return dialect_of("default")
