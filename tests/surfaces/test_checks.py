"""System checks of settings as users meet them: through `manage.py check`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, connections
from django.test import override_settings

from django_durable_jobs.checks import check_api
from django_durable_jobs.dialects import dialect_of, files
from tests.databases import current_url, database_settings, lane_of
from tests.surfaces.checking import found, run


def jobs_settings(**values: Any) -> override_settings:
    return override_settings(DURABLE_JOBS=values)


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


@pytest.mark.once
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


@pytest.mark.once
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
    wrapper: Any = connections["default"]
    kind, old, enough = (
        ("MariaDB", (10, 5, 99), (10, 6, 0)) if wrapper.mysql_is_mariadb else ("MySQL", (8, 0, 0), (8, 0, 1))
    )
    monkeypatch.setitem(wrapper.__dict__, "mysql_version", enough)
    assert found(database="default") == ""
    monkeypatch.setitem(wrapper.__dict__, "mysql_version", old)
    text = found(database="default")
    assert "E006" in text
    assert f"is {kind} {'.'.join(map(str, old))}, which has no SKIP LOCKED" in text


@pytest.mark.django_db
def test_the_server_of_these_tests_is_recent_enough_and_migrated() -> None:
    assert found(database="default") == ""


def test_a_database_without_autocommit_is_an_error(database_options: dict[str, Any]) -> None:
    database_options["AUTOCOMMIT"] = False
    text = found()
    assert "E013" in text
    assert "AUTOCOMMIT" in text
    assert "atomic()" in text


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


@pytest.mark.once
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


def test_the_dialect_of_these_tests_has_nothing_to_complain_about() -> None:
    assert dialect_of("default").database_warnings() == []


def test_s1_an_api_that_cannot_know_who_asks_is_an_error(settings: Any) -> None:
    assert check_api(None) == []
    settings.REST_FRAMEWORK = {"DEFAULT_AUTHENTICATION_CLASSES": []}
    (found,) = check_api(None)
    assert (found.id, found.is_serious()) == ("django_durable_jobs.E014", True)
    settings.ROOT_URLCONF = "tests.surfaces.no_api"
    assert check_api(None) == []
