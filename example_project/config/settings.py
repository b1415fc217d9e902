"""Settings of the example project: what a project needs for durable jobs, and nothing that it does not.

Three variables of the environment, which the demo sets for its child processes:

* ``DEMO_DATABASE_URL``: another database than the SQLite file, e.g. ``postgresql://user:password@host/name``;
* ``DEMO_FOLDER``: where the SQLite file and the worker's log are, instead of beside ``manage.py``;
* ``DEMO_SHORT_LEASES``: jobs of a lost worker come back after seconds, for ``demo --kill``.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from config.databases import database_of

FOLDER = Path(os.environ.get("DEMO_FOLDER") or Path(__file__).resolve().parent.parent)
SQLITE_FILE = FOLDER / "demo.sqlite3"
DATABASES = {"default": database_of(os.environ.get("DEMO_DATABASE_URL") or f"sqlite:///{SQLITE_FILE}")}

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "django_durable_jobs",
    "stdlib_index",  # models and jobs
    "demo",  # the command that shows them
]

# A worker that says nothing for LEASE seconds has lost its jobs. The defaults (20, 5 and 5 s) suit production; whoever
# watches a demo does not want to wait for them.
SHORT_LEASES = {"LEASE": 5, "HEARTBEAT": 1, "RESCUE_INTERVAL": 1}
DURABLE_JOBS = SHORT_LEASES if os.environ.get("DEMO_SHORT_LEASES") else {}

DEBUG = True  # so that `runserver` serves the admin's style sheets; it listens on this machine only
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
SECRET_KEY = os.environ.get("SECRET_KEY") or secrets.token_urlsafe()  # new at each start: a restart logs everybody out
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "config.urls"
STATIC_URL = "static/"
TIME_ZONE = "UTC"
USE_TZ = True

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
