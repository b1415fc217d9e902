"""Django settings of the peer ``django-tasks-db``: the same small project with that backend instead of ours.

Its worker closes old connections twice for each task; a project that wants speed keeps them open, so this one does.
Ours runs with Django's default.
"""

from __future__ import annotations

from tests.benchmarks import settings

SECRET_KEY = settings.SECRET_KEY
DEBUG = settings.DEBUG
USE_TZ = settings.USE_TZ
DEFAULT_AUTO_FIELD = settings.DEFAULT_AUTO_FIELD
MIDDLEWARE = settings.MIDDLEWARE
TEMPLATES = settings.TEMPLATES
DATABASES = {"default": {**settings.DATABASES["default"], "CONN_MAX_AGE": None}}
INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app not in {"django_durable_jobs", "tests.benchmarks"}]
INSTALLED_APPS += ["django_tasks", "django_tasks_db"]
TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend", "QUEUES": []}}
