"""What tests of atomic steps and jobs share: effects that can be counted, and commits that are lost."""

from __future__ import annotations

import threading
from typing import Any
from uuid import UUID

import pytest
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import F

from django_durable_jobs import faults
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.models import Job, Message
from tests.reliability.outages import broken

SOMEBODY = UUID(int=0)
"""Stands for a job that the effects belong to; there is no such row."""


def write(name: str) -> None:
    """Make an effect. Nothing makes these rows unique: what happens twice is there twice."""
    Message.objects.create(job_id=SOMEBODY, name=name, payload="null")


def effects() -> list[str]:
    """Return the effects that were committed."""
    return sorted(Message.objects.filter(job_id=SOMEBODY).values_list("name", flat=True))


def take_away(job_id: Any) -> int:
    """Do to a job what a rescue and the claim after it do: the token is another one."""
    return Job.objects.filter(id=job_id).update(token=F("token") + 1)


def lose_commit(patch: pytest.MonkeyPatch, dialect: Dialect, what: str) -> list[str]:
    """Break the connection at the first commit of a step or an atomic job: at its "request", or after its "answer"."""
    armed, lost = threading.local(), list[str]()
    faults.install(lambda point: setattr(armed, "now", point == "before-commit"))
    real = BaseDatabaseWrapper.commit

    def commit(self: BaseDatabaseWrapper) -> None:
        due, armed.now = getattr(armed, "now", False) and not lost, False
        if not due:
            real(self)
            return
        lost.append(what)
        if what == "answer":
            real(self)
        self.connection.close()
        raise broken(dialect)

    patch.setattr(BaseDatabaseWrapper, "commit", commit)
    return lost
