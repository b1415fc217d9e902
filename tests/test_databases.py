"""The test databases themselves: what every other test leans on when it uses processes, threads or crashes."""

from __future__ import annotations

import subprocess
from threading import Thread

import pytest
from django.contrib.auth.models import Group
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connection

from tests.databases import (
    child_environment,
    current_url,
    database_settings,
    database_url,
    django_command,
    lane_of,
    renamed,
)
from tests.servers import EmbeddedPostgres

COUNT_GROUPS = django_command(
    "shell", "-c", "from django.contrib.auth.models import Group as G; print('groups:', G.objects.count())"
)


def groups_seen_by_a_child() -> str:
    """Count the groups in a process of its own and return what it printed."""
    child = subprocess.run(COUNT_GROUPS, env=child_environment(), capture_output=True, text=True, check=True)
    return child.stdout


@pytest.mark.django_db(transaction=True)
def test_a_child_process_reaches_the_test_database() -> None:
    Group.objects.create(name="one")
    assert "groups: 1" in groups_seen_by_a_child()


@pytest.mark.django_db(transaction=True)
def test_a_thread_reaches_the_test_database() -> None:
    Group.objects.create(name="one")
    seen: list[int] = []

    def look() -> None:
        seen.append(Group.objects.count())
        connection.close()

    thread = Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [1]


@pytest.mark.parametrize(
    ("url", "name", "host"),
    [
        ("sqlite:////tmp/a b.sqlite3", "/tmp/a b.sqlite3", ""),  # noqa: S108 - nothing is written there
        ("postgresql://postgres@/jobs?host=/run/pg", "jobs", "/run/pg"),
        ("mariadb://root:p%40ss@127.0.0.1:3307/jobs", "jobs", "127.0.0.1"),
    ],
)
def test_a_url_names_a_database(url: str, name: str, host: str) -> None:
    settings = database_settings(url)
    assert (settings["NAME"], settings["HOST"]) == (name, host)
    assert database_settings(renamed(url, "/other"))["NAME"] == "/other"


def test_an_unknown_kind_of_database_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"oracle://x.*postgresql://.*python -m tests\.lanes"):
        lane_of("oracle://x")


def test_a_crashed_server_keeps_what_was_committed(private_database: EmbeddedPostgres) -> None:
    Group.objects.create(name="one")

    private_database.stop("immediate")
    assert not private_database.running
    with pytest.raises(DatabaseError):
        Group.objects.count()

    connection.close()
    private_database.start()
    assert Group.objects.count() == 1
    assert "groups: 1" in groups_seen_by_a_child()


def test_a_killed_server_starts_again(private_database: EmbeddedPostgres) -> None:
    private_database.kill()
    assert not private_database.running
    private_database.start()
    assert Group.objects.count() == 0


def test_a_killed_backend_takes_the_others_with_it(private_database: EmbeddedPostgres) -> None:
    Group.objects.create(name="one")
    private_database.kill_backend()
    with pytest.raises(DatabaseError):
        Group.objects.count()


def test_a_private_database_is_left_as_it_was_found(private_database: EmbeddedPostgres) -> None:
    assert Group.objects.count() == 0
    assert database_url() != current_url()
