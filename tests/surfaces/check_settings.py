"""The settings of the tests with changes from the environment, for `manage.py` processes that look at settings.

``DURABLE_JOBS_TEST_CHANGES`` is JSON: names of settings with their values; ``DATABASES`` is merged into each entry, so
that an entry can be changed in one option, and a new one is a copy of the default. ``"router"`` names a class here.
"""

from __future__ import annotations

import json
import os
from typing import Any

from tests.settings import *

CHANGES: dict[str, Any] = json.loads(os.environ.get("DURABLE_JOBS_TEST_CHANGES", "{}"))


class JobsElsewhere:
    """Keeps our tables off the default database."""

    def allow_migrate(self, db: str, app_label: str, **_hints: Any) -> bool | None:
        """Allow our app on "jobs" only."""
        return db == "jobs" if app_label == "django_durable_jobs" else None


for alias, changed in CHANGES.pop("DATABASES", {}).items():
    DATABASES[alias] = {**DATABASES.get(alias, DATABASES["default"]), **changed}
globals().update(CHANGES)
