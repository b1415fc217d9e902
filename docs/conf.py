"""How Sphinx builds the documentation: Markdown pages in four parts, and every warning is an error."""

from __future__ import annotations

from importlib.metadata import version as installed_version

project = "django_durable_jobs"
author = "The django_durable_jobs authors"
copyright = f"2026, {author}"  # noqa: A001 - Sphinx reads it under this name
release = installed_version("django-durable-jobs")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
nitpicky = False  # autodoc would ask for the pages of Django and of Python, which no offline build has

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "django_durable_jobs"
html_static_path: list[str] = []
