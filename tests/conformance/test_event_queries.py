"""No question about events reads many of them, on every database: neither old ones nor those of other keys."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from django_durable_jobs.dialects.now import DatabaseNow
from django_durable_jobs.models import Checkpoint, Job, Message
from django_durable_jobs.operations.events import announce_forgotten, channel_of, emit, take_event
from django_durable_jobs.operations.messages import send_message
from django_durable_jobs.operations.prune import WINDOW, prune_events
from tests.conformance.work import analyze, counted_work
from tests.factories import claim_one

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]

DAY = timedelta(days=1)
FEW = 300


def fill() -> None:
    """Store 20,000 events of one channel, all of which were announced, and as many of other keys."""
    old = {"created_at": DatabaseNow() - DAY, "consumed_at": DatabaseNow() - DAY, "name": "tick", "payload": "1"}
    rows = [Message(event_key=str(number) if number % 2 else None, **old) for number in range(40_000)]
    Message.objects.bulk_create(rows, batch_size=2000)


def test_questions_about_events_read_few_of_them() -> None:
    fill()
    job = claim_one()
    new = [Message(name="tick", payload="1", created_at=DatabaseNow(), consumed_at=DatabaseNow()) for _ in range(20)]
    Message.objects.bulk_create(new)
    analyze(Message)
    channel = channel_of("tick", None)
    asked: dict[str, tuple[Callable[[], Any], int]] = {
        "look": (lambda: take_event(job, channel, "1"), FEW),
        "look for none": (lambda: take_event(job, channel_of("tick", "1"), "1"), FEW),
        "emit": (lambda: emit("tick"), FEW),
        "stand in": (announce_forgotten, FEW),
        "send a message": (lambda: send_message(job.id, "tick"), FEW),
        "prune": (prune_events, 10 * WINDOW),
    }
    read = {}
    for what, (ask, limit) in asked.items():
        with counted_work(Message) as work:
            ask()
        if work.rows > limit:
            read[what] = work.rows
    assert read == {}


def test_a_job_that_had_many_events_does_not_read_them_again() -> None:
    job = claim_one()
    events = Message.objects.bulk_create(
        [Message(name="tick", payload=str(n), created_at=DatabaseNow(), consumed_at=DatabaseNow()) for n in range(200)]
    )
    Checkpoint.objects.bulk_create(
        [
            Checkpoint(job_id=job.id, key=str(n), name="tick", kind="event", result=f"[{event.pk},{n}]")
            for n, event in enumerate(events, 1)
        ]
    )
    assert take_event(job, channel_of("tick", None), "201") is None
    emit("tick", "new")
    assert str(take_event(job, channel_of("tick", None), "201")).endswith(',"new"]')
    assert Job.objects.get().status == "running"
