"""Reading pages of the admin in tests."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

from django.test import Client

from django_durable_jobs.models import Job

ADMIN = "/admin/django_durable_jobs/"
JOBS = f"{ADMIN}job/"
HIDDEN = "swordfish"


def page_of(job: Job) -> str:
    return f"{JOBS}{job.id}/change/"


def html(client: Client, address: str, **data: Any) -> str:
    response = client.get(address, data)
    assert response.status_code == 200, f"{address} answers {response.status_code}"
    return response.content.decode()


def ids_in(text: str) -> set[UUID]:
    return {UUID(found) for found in re.findall(r'ddj-mono">([0-9a-f-]{36})<', text)}


def listed(client: Client, **data: Any) -> set[UUID]:
    return ids_in(html(client, JOBS, **data))
