"""Django settings of the tests, in every process that belongs to them (see `tests.databases`)."""

from __future__ import annotations

import json
import os
from typing import Any

from tests.databases import current_url, database_settings, lane_of

if lane_of(current_url()) == "mariadb":
    import pymysql

    pymysql.install_as_MySQLdb()  # what Django calls mysqlclient; this one needs no compiler

DATABASES = {"default": database_settings(current_url())}

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "django_durable_jobs",
    "tests",
]

# The defaults, as a new project has them; a process that a test starts may be told others, as JSON.
DURABLE_JOBS: dict[str, Any] = json.loads(os.environ.get("DURABLE_JOBS_TEST_SETTINGS", "{}"))

SECRET_KEY = "not a secret: tests only"  # noqa: S105 - nothing is protected by it
ALLOWED_HOSTS = ["testserver", "127.0.0.1", "localhost"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "tests.urls"
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

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # logging in is not what is tested here

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
