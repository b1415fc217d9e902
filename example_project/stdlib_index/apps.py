"""Registers the app; its jobs are found because they stand in ``jobs.py``."""

from __future__ import annotations

from django.apps import AppConfig


class StdlibIndexConfig(AppConfig):
    """An index of the standard library."""

    name = "stdlib_index"
    verbose_name = "Index of the standard library"
