"""System checks as users meet them: through `manage.py check`, `check --database`, and a worker that does not start."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import connection, connections
from django.test import override_settings

from django_durable_jobs.dialects import dialect_of, files
from django_durable_jobs.dialects.limits import server_limit
from django_durable_jobs.management import preflight
from django_durable_jobs.operations import capacity
from tests.databases import child_environment, current_url, database_settings, django_command, lane_of, renamed
from tests.servers import EmbeddedPostgres

ELSEWHERE = "tests.surfaces.check_settings.JobsElsewhere"


def run(*arguments: str, url: str = "", **changes: Any) -> subprocess.CompletedProcess[str]:
    """Run a management command in a process whose settings have these changes."""
    extra = {"DURABLE_JOBS_TEST_DATABASE": url} if url else {}
    environment = child_environment(
        DJANGO_SETTINGS_MODULE="tests.surfaces.check_settings",
        DURABLE_JOBS_TEST_CHANGES=json.dumps(changes),
        **extra,
    )
    return subprocess.run(
        django_command(*arguments), env=environment, capture_output=True, text=True, timeout=50, check=False
    )


def found(*, deploy: bool = False, database: str | None = None) -> str:
    """Run ``manage.py check`` for our checks here, and return everything it says on one line."""
    try:
        said: Any = call_command(
            "check", tags=["durable_jobs"], deploy=deploy, databases=[database] if database else None, fail_level="INFO"
        )
    except SystemCheckError as error:
        said = str(error)
    return " ".join(str(said or "").split())


def jobs_settings(**values: Any) -> override_settings:
    return override_settings(DURABLE_JOBS=values)


@pytest.fixture
def database_options(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The settings of the default connection, to be changed: nobody connects with them."""
    connection.close()
    settings = dict(connection.settings_dict)
    settings["OPTIONS"] = dict(settings["OPTIONS"])
    monkeypatch.setattr(connections["default"], "settings_dict", settings)
    return settings


# Settings of ours


def test_the_settings_of_these_tests_are_faultless() -> None:
    assert found() == ""


@pytest.mark.parametrize(
    ("settings", "number", "words"),
    [
        ({"LEASE": 10, "HEARTBEAT": 5}, "E004", ["10 s", "5 s", "LEASE", "HEARTBEAT"]),
        ({"HEARTBEAT": 9}, "E004", ["20 s", "9 s"]),
        ({"LEESE": 30}, "E002", ["'LEESE'", "Did you mean 'LEASE'?"]),
        ({"retries": 1}, "E002", ["'retries'", "Did you mean 'RETRIES'?"]),
        ({"xyzzy": 1}, "E002", ["'xyzzy'", "Known keys: ARGUMENT_LIMIT"]),
        ({"RETRIES": -1}, "E003", ["DURABLE_JOBS['RETRIES']", "0 and 999", "-1"]),
        ({"DATABASE": "jops"}, "E005", ["'jops'", "Use one of: default"]),
    ],
)
def test_a_setting_that_cannot_be_used_is_an_error_with_its_values(
    settings: dict[str, Any], number: str, words: list[str]
) -> None:
    """N52, N53, N54."""
    with jobs_settings(**settings):
        text = found()
    assert f"(django_durable_jobs.{number})" in text
    assert "HINT" in text
    assert all(word in text for word in words), text


def test_settings_that_are_no_dictionary_are_an_error() -> None:
    with override_settings(DURABLE_JOBS=["LEASE", 30]):
        assert "E001" in found()


def test_without_time_zones_nothing_runs() -> None:
    """N55: the instants that jobs wait for would be local and ambiguous."""
    done = run("check", USE_TZ=False)
    assert done.returncode == 1
    assert "(django_durable_jobs.E007) USE_TZ is False." in done.stderr
    refused = run("runjobs", "--queue", "default=1", "--drain", USE_TZ=False)
    assert refused.returncode == 2
    assert refused.stderr == "CommandError: USE_TZ is False. Durable jobs store instants: set USE_TZ = True.\n"


# Settings of the database


@pytest.mark.parametrize("option", ["connect_timeout", "read_timeout", "write_timeout"])
def test_a_lease_shorter_than_a_timeout_of_the_database_is_an_error(
    database_options: dict[str, Any], option: str
) -> None:
    """N52."""
    database_options["OPTIONS"][option] = 20
    text = found()
    assert "E011" in text
    assert "LEASE (20 s)" in text
    assert f"'{option}' (20 s)" in text
    with jobs_settings(LEASE=21):
        assert "E011" not in found()


def test_an_engine_that_is_not_supported_is_an_error() -> None:
    """N54: no SKIP LOCKED is known of it."""
    done = run("check", DATABASES={"odd": {"ENGINE": "django.db.backends.dummy"}}, DURABLE_JOBS={"DATABASE": "odd"})
    assert done.returncode == 1
    assert "(django_durable_jobs.E010)" in done.stderr
    assert "'odd'" in done.stderr
    assert "'django.db.backends.dummy'" in done.stderr


@pytest.mark.django_db
def test_a_server_without_skip_locked_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """N54: the version that the server reports decides; the comparison is what is tested, with a real connection."""
    if lane_of(current_url()) != "mariadb":
        pytest.skip("only MariaDB and MySQL have supported versions without SKIP LOCKED: runs in the MariaDB lane")
    kind = "MariaDB" if connection.mysql_is_mariadb else "MySQL"  # type: ignore[attr-defined]
    for version, refused in (
        ((10, 6, 0), kind == "MySQL" and False),
        ((10, 5, 99), kind == "MariaDB"),
        ((8, 0, 0), True),
    ):
        monkeypatch.setitem(connection.__dict__, "mysql_version", version)
        assert ("E006" in found(database="default")) is refused
    assert f"{kind} 8.0.0" in found(database="default")


@pytest.mark.django_db
def test_the_server_of_these_tests_is_recent_enough_and_migrated() -> None:
    assert found(database="default") == ""


def test_atomic_requests_and_endless_connections_are_warnings(database_options: dict[str, Any]) -> None:
    """N56."""
    database_options["ATOMIC_REQUESTS"] = True
    database_options["CONN_MAX_AGE"] = None
    text = found()
    assert "W001" in text
    assert "ATOMIC_REQUESTS" in text
    assert "W002" in text
    assert "CONN_MAX_AGE" in text


def test_debug_is_a_warning_for_a_deployment(settings: Any) -> None:
    """N56."""
    settings.DEBUG = True
    assert "W003" in found(deploy=True)
    assert found() == ""
    settings.DEBUG = False
    assert found(deploy=True) == ""


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        ({"NAME": ":memory:"}, "W006"),
        ({"NAME": "file:memorydb_default?mode=memory&cache=shared"}, "W006"),
        ({"OPTIONS": {"init_command": "PRAGMA journal_mode = WAL"}}, "W007"),
        ({"OPTIONS": {"transaction_mode": "DEFERRED", "init_command": "PRAGMA journal_mode=WAL"}}, "W007"),
        ({"OPTIONS": {"transaction_mode": "IMMEDIATE"}}, "W008"),
        ({"OPTIONS": {"transaction_mode": "immediate", "init_command": "PRAGMA journal_mode = DELETE"}}, "W008"),
    ],
)
def test_sqlite_in_memory_or_with_a_rollback_journal_is_a_warning(changes: dict[str, Any], number: str) -> None:
    """N59."""
    sqlite = {**database_settings("sqlite:////tmp/some.sqlite3"), **changes}
    done = run("check", "--fail-level", "WARNING", DATABASES={"file": sqlite}, DURABLE_JOBS={"DATABASE": "file"})
    assert done.returncode == 1
    assert re.findall(r"django_durable_jobs\.(\w+)", done.stderr) == [number]
    assert "HINT" in done.stderr


MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
31 27 0:30 / /srv/net\\040work rw - nfs4 host:/export rw
32 31 0:31 / /srv/net\\040work/local rw - tmpfs none rw
33 27 0:33 / /srv/share rw - ext4 /dev/vdb rw
34 33 0:34 / /srv/share rw master:2 - cifs //host/share rw
odd line
"""


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("/srv/db.sqlite3", None),
        ("/srv/net work/db.sqlite3", "nfs4"),
        ("/srv/net workshop/db.sqlite3", None),
        ("/srv/net work/local/db.sqlite3", None),
        ("/srv/share/x/../db.sqlite3", "cifs"),
        ("/srv/share/a\0b", None),
    ],
)
def test_a_file_is_on_the_file_system_that_is_mounted_deepest_and_last(
    tmp_path: Path, file: str, kind: str | None
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    assert files.network_file_system_of(file, mounts) == kind
    assert files.network_file_system_of(file, tmp_path / "no such file") is None


def test_sqlite_on_a_network_file_system_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """N59: a machine of this name and these mounts; no test can mount a real one."""
    if lane_of(current_url()) != "sqlite":
        pytest.skip("a file database: runs in the SQLite lane")
    folder = Path(str(connection.settings_dict["NAME"])).resolve().parent
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"1 0 0:1 / / rw - ext4 /dev/vda rw\n2 1 0:2 / {folder} rw - nfs host:/x rw\n")
    monkeypatch.setattr(files, "MOUNTS", mounts)
    text = found()
    assert "W009" in text
    assert "(nfs)" in text
    assert str(folder) in text


# X74: where the tables are


@pytest.fixture
def empty_database(tmp_path: Path) -> Iterator[str]:
    """The URL of a database of this lane's kind in which nothing was migrated."""
    lane = lane_of(current_url())
    if lane == "postgresql":
        with EmbeddedPostgres() as server:
            yield server.create_database("empty")
    elif lane == "mariadb":
        name = f"{connection.settings_dict['NAME']}_empty"
        with connections["default"].cursor() as cursor:
            cursor.execute(f"CREATE DATABASE `{name}`")
        yield renamed(current_url(), name)
        with connections["default"].cursor() as cursor:
            cursor.execute(f"DROP DATABASE `{name}`")
    else:
        yield f"sqlite:///{tmp_path / 'empty.sqlite3'}"


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


# The start of a worker


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
    assert "14 connections" in text


@pytest.mark.django_db(transaction=True)
def test_a_worker_says_at_its_start_what_it_may_run_out_of() -> None:
    """N58, N56: as lines of the log; it works nevertheless."""
    done = run("runjobs", "--queue", "default=1", "--threads", "900", "--drain", DEBUG=True)
    assert done.returncode == 0, done.stderr
    assert "DEBUG is True" in done.stderr
    assert ("connections are needed" in done.stderr) is (lane_of(current_url()) != "sqlite")


def test_the_dialect_of_these_tests_has_nothing_to_complain_about() -> None:
    assert dialect_of("default").database_warnings() == []
