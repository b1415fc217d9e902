"""What the pages state beside their code blocks, where no other test shows it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections, transaction

from django_durable_jobs import ArgumentError, call, durable_job, enqueue
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.models import Job
from django_durable_jobs.worker.options import WorkerOptions
from django_durable_jobs.worker.worker import Worker
from tests.docs.playing import drain, warnings_about
from tests.jobs import add, noop
from tests.waiting import eventually

OTHER = "other"


@pytest.fixture
def other_database(tmp_path: Path) -> Iterator[str]:
    """A second database of the project, which holds no jobs."""
    own = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "other.sqlite3"), "OPTIONS": {}}
    connections.settings[OTHER] = {**connections["default"].settings_dict, **own}
    wrapper = connections[OTHER]
    # Made, it is found without its settings; by these Django would forbid a test case the use of it.
    del connections.settings[OTHER]
    yield OTHER
    wrapper.close()
    del connections[OTHER]


def rolled_back(work: Callable[[], object], database: str) -> None:
    """Do the work in a transaction that ends with a rollback."""
    with transaction.atomic(using=database):
        work()
        transaction.set_rollback(True, using=database)


def committed(work: Callable[[], object], database: str = "default") -> None:
    """Do the work in a transaction that commits."""
    with transaction.atomic(using=database):
        work()


def enqueue_nothing() -> None:
    """Fail as an enqueue does whose arguments are wrong."""
    enqueue("tests.jobs.noop")


@pytest.mark.django_db(transaction=True)
def test_a_rollback_on_another_database_leaves_the_job(other_database: str) -> None:
    """X37; `docs/how-to/transactions.md`."""
    rolled_back(lambda: noop.enqueue(1), other_database)
    assert Job.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_enqueued_on_commit_of_another_database_a_rollback_leaves_nothing(other_database: str) -> None:
    """X37."""

    def work() -> None:
        transaction.on_commit(lambda: noop.enqueue(1), using=other_database)
        assert Job.objects.count() == 0

    rolled_back(work, other_database)
    assert Job.objects.count() == 0
    committed(work, other_database)
    assert Job.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_an_enqueue_that_fails_on_commit_reaches_the_caller_and_robust_only_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """X38. The rows are committed either way."""

    def work(name: str, *, robust: bool) -> None:
        User.objects.create(username=name)
        transaction.on_commit(enqueue_nothing, robust=robust)

    with pytest.raises(ArgumentError, match="missing"):
        committed(lambda: work("first", robust=False))
    with caplog.at_level(logging.ERROR, "django.db.backends.base"):
        committed(lambda: work("second", robust=True))
    assert "missing" in caplog.text
    assert User.objects.count() == 2
    assert Job.objects.count() == 0


@pytest.mark.django_db(transaction=True)
def test_a_job_whose_arguments_no_longer_fit_the_function_fails_at_once() -> None:
    """`docs/how-to/upgrading.md`: the function was changed after the enqueue."""
    handle = add.enqueue(1, 2)
    Job.objects.filter(id=handle.id).update(payload='{"*": [1], "c": 2}')
    drain()
    job = handle.job()
    assert (job.status, job.attempt) == ("failed", 1)
    assert "missing: 'b'; unexpected: 'c'" in (job.last_error or "")


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        ({}, {"W007", "W008"}),
        ({"transaction_mode": "IMMEDIATE"}, {"W008"}),
        ({"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode = WAL"}, set()),
    ],
)
def test_settings_of_sqlite_on_a_page_would_be_warned_about(options: dict[str, Any], ids: set[str]) -> None:
    """The harness looks at every `DATABASES` of the pages with this."""
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3", "OPTIONS": options}
    assert {number for number, _text, _hint in warnings_about(database)} == ids


# Connections of a worker, as the table in `docs/how-to/workers.md` counts them -----------------------------------

_go = threading.Event()


def count_users() -> int:
    return User.objects.count()


@durable_job
def wait_without_database() -> None:
    _go.wait(20)


@durable_job
def wait_with_database() -> None:
    count_users()
    _go.wait(20)


@durable_job
def wait_after_a_call() -> None:
    call(count_users)
    _go.wait(20)


def connections_beside_ours() -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        (count,) = cursor.fetchone()
    return int(count)


@pytest.mark.django_db(transaction=True)
def test_a_worker_has_as_many_connections_as_the_page_says(dialect: Dialect) -> None:
    if not dialect.has_notifications:
        pytest.skip("needs a server that tells its connections: the one with notifications")
    _go.clear()
    worker = Worker(WorkerOptions(name="counted", queues={"default": 10}))
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(worker.run)
        try:
            eventually(lambda: connections_beside_ours() == 4, what="claims, heartbeat, chores, LISTEN")
            wait_without_database.enqueue()
            eventually(lambda: Job.objects.running().count() == 1)
            wait_with_database.enqueue()
            wait_with_database.enqueue()
            eventually(lambda: connections_beside_ours() == 6, what="two threads that use the database")
            wait_after_a_call.enqueue()
            eventually(lambda: connections_beside_ours() == 8, what="one more thread, and checkpoints")
        finally:
            _go.set()
            worker.stop()
            running.result()
