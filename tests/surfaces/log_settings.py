"""The settings of the tests plus an app that registers `log_jobs`, for a worker process.

With ``DURABLE_JOBS_TEST_LOGGING=documented`` also the ``LOGGING`` that the documentation shows.
"""

from __future__ import annotations

import os
import re

from django.apps import AppConfig

from tests.databases import ROOT
from tests.settings import *


class LogJobs(AppConfig):
    """Imports the jobs of `log_jobs`."""

    name = "tests.surfaces"
    label = "tests_surfaces"

    def ready(self) -> None:
        """Register them."""
        from tests.surfaces import log_jobs  # noqa: F401, PLC0415 -- after the registry of apps is ready


INSTALLED_APPS = [*INSTALLED_APPS, "tests.surfaces.log_settings.LogJobs"]

if os.environ.get("DURABLE_JOBS_TEST_LOGGING") == "documented":
    page = (ROOT / "docs" / "how-to" / "logging.md").read_text()
    (block,) = re.findall(r"```python\n# settings.py\n(LOGGING = .*?)```", page, re.DOTALL)
    exec(block)  # noqa: S102 -- the documentation's own text, run as a project would
