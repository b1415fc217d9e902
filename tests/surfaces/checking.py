"""Running `manage.py check` and other commands: in a process with changed settings, or here."""

from __future__ import annotations

import json
import subprocess
from typing import Any, Final

from django.core.management import call_command
from django.core.management.base import SystemCheckError

from tests.databases import child_environment, django_command

ELSEWHERE: Final = "tests.surfaces.check_settings.JobsElsewhere"
"""A router that keeps our tables off the default database."""


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
