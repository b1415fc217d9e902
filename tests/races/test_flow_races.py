"""Two looks at one sequence at the same moment, each of which sees something else (F15)."""

from __future__ import annotations

import threading
from uuid import UUID

import pytest
from django.db import transaction

from django_durable_jobs import durable_job
from django_durable_jobs.dialects import Dialect
from django_durable_jobs.models import Job, Sequence
from django_durable_jobs.operations import sequences
from tests.waiting import elsewhere, together

pytestmark = pytest.mark.django_db(transaction=True, available_apps=["django_durable_jobs", "tests"])

A_MOMENT = 1.0
"""Seconds that the one look gives the other to get in between."""


@durable_job(sequence_key="one")
def step(number: int) -> None:
    """One of a sequence."""


def test_two_looks_that_see_different_jobs_let_one_go_on(dialect: Dialect, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first has read which job is the oldest, when an older one appears: its transaction commits only now."""
    if not dialect.has_parallel_writers:
        pytest.skip("transactions that write do not overlap")
    real_oldest, real_advance = sequences._oldest, sequences.advance
    Sequence.objects.create(key="one")
    read, committed, looked = threading.Event(), threading.Event(), threading.Event()

    def oldest(key: str, count: int) -> tuple[list[UUID], str]:
        found = real_oldest(key, count)
        if threading.current_thread().name == "together-0":
            read.set()
            committed.wait(10)
            looked.wait(A_MOMENT)
        return found

    def late() -> None:
        with transaction.atomic():
            step.enqueue(1)
            entered.set()
            assert read.wait(10)
        committed.set()
        real_advance(["one"])
        looked.set()

    def early() -> None:
        assert entered.wait(10)
        elsewhere(lambda: step.enqueue(2))
        real_advance(["one"])

    entered = threading.Event()
    monkeypatch.setattr(sequences, "_oldest", oldest)
    monkeypatch.setattr(sequences, "advance", lambda _keys: 0)
    step.using(sequence_key="other").enqueue(0)  # the queue has its row
    together(early, late)
    ours = Job.objects.filter(sequence_key="one")
    assert sorted(ours.values_list("status", flat=True)) == ["pending", "waiting"]
