"""Enqueueing where a project may not expect to: in a migration, and while Django starts (N31)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from django.db import DatabaseError

from django_durable_jobs import migrations
from django_durable_jobs.dialects import dialect_of
from django_durable_jobs.models import Queue
from tests.jobs import add
from tests.settings import INSTALLED_APPS
from tests.surfaces.checking import run

APP = "an_early_app"
"""Before ours in the alphabet: without a dependency its migrations come first."""
JOBS = """
from django_durable_jobs import durable_job

@durable_job(queue="early")
def greet(name: str) -> None: ...
"""
APPS = """
from django.apps import AppConfig

class EarlyConfig(AppConfig):
    name = "an_early_app"

    def ready(self):
        from an_early_app.jobs import greet
        greet.enqueue("from ready()")
"""
MIGRATION = """
from django.db import migrations
from django_durable_jobs import enqueue

class Migration(migrations.Migration):
    dependencies = {dependencies}
    operations = [migrations.RunPython(lambda apps, editor: enqueue("an_early_app.jobs.greet", "from a migration"))]
"""
SHOW = "from django_durable_jobs.models import Job; print(list(Job.objects.values_list('queue', 'payload')))"

NEWEST = max(path.stem for path in Path(migrations.__file__).parent.glob("0*.py"))

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one more app, whose folder is returned."""
    folder = tmp_path / APP
    (folder / "migrations").mkdir(parents=True)
    for package in (folder, folder / "migrations"):
        (package / "__init__.py").touch()
    (folder / "jobs.py").write_text(JOBS)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    return folder


def manage(*arguments: str, url: str) -> tuple[int, str, str]:
    done = run(*arguments, url=url, INSTALLED_APPS=[*INSTALLED_APPS, APP])
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("ours", ["0002_storage_parameters", NEWEST])
def test_n31_a_migration_that_depends_on_our_tables_may_enqueue(project: Path, empty_database: str, ours: str) -> None:
    """Also on those of an earlier version: what a project has written once must go on to work."""
    needs = [("django_durable_jobs", ours)]
    (project / "migrations" / "0001_initial.py").write_text(MIGRATION.format(dependencies=needs))
    code, _, said = manage("migrate", "--verbosity", "0", url=empty_database)
    assert (code, said) == (0, "")
    _, shown, _ = manage("shell", "--verbosity", "0", "-c", SHOW, url=empty_database)
    assert shown.strip() == """[('early', '{"*":["from a migration"]}')]"""


def test_n31_a_migration_without_that_dependency_is_told_which_one_it_needs(project: Path, empty_database: str) -> None:
    (project / "migrations" / "0001_initial.py").write_text(MIGRATION.format(dependencies=[]))
    code, _, said = manage("migrate", "--verbosity", "0", url=empty_database)
    assert code == 1
    assert "django_durable_jobs has no tables yet on database 'default': run `manage.py migrate`." in said
    assert f'("django_durable_jobs", "{NEWEST}") among its dependencies' in said


def test_n31_ready_runs_before_the_first_migrate_and_the_error_says_so(project: Path, empty_database: str) -> None:
    (project / "apps.py").write_text(APPS)
    code, _, said = manage("migrate", "--verbosity", "0", url=empty_database)
    assert code == 1
    assert "AppConfig.ready(), also runs before the first migrate: do not enqueue there." in said


def test_n31_with_the_tables_ready_may_enqueue_and_django_warns(project: Path, empty_database: str) -> None:
    manage("migrate", "--verbosity", "0", url=empty_database)
    (project / "apps.py").write_text(APPS)
    code, shown, said = manage("shell", "--verbosity", "0", "-c", SHOW, url=empty_database)
    assert (code, shown.strip()) == (0, """[('early', '{"*":["from ready()"]}')]""")
    assert "Accessing the database during app initialization is discouraged" in said


def test_n31_missing_tables_are_told_in_a_running_process_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Queue._meta, "db_table", "no_such_table")
    monkeypatch.setattr(dialect_of("default"), "_tables", {})
    with pytest.raises(DatabaseError) as missing:
        add.enqueue(1, 2)
    (note,) = missing.value.__notes__
    assert note.startswith("django_durable_jobs has no tables yet on database 'default'")
