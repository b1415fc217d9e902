"""The settings that mypy reads models by: those of the tests and those of the example project in one."""

from __future__ import annotations

import sys

from tests.databases import ROOT
from tests.settings import *

sys.path.insert(0, str(ROOT / "example_project"))  # as its manage.py does
from config.settings import FOLDER, SHORT_LEASES, SQLITE_FILE

__all__ = ["FOLDER", "SHORT_LEASES", "SQLITE_FILE"]

INSTALLED_APPS = [*INSTALLED_APPS, "stdlib_index", "demo"]
