"""No question about events reads many of them, on every database: neither old ones nor those of other keys."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models import Count
from django.test.utils import CaptureQueriesContext

from django_durable_jobs.dialects import dialect_of
from django_durable_jobs.dialects.rows import Claimed
from django_durable_jobs.models import Checkpoint, Job, Message
from django_durable_jobs.operations.events import announce_forgotten, channel_of, emit, take_event
from django_durable_jobs.operations.messages import send_message
from django_durable_jobs.operations.prune import WINDOW, prune_events
from tests.conformance.work import analyze, counted_work
from tests.factories import claim_one

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]

DAY = timedelta(days=1)
FEW = 300
MANY = 2_000
"""Events that a job has had."""


def now() -> datetime:
    """The database's time as a value: of many rows with an expression each Django makes a statement for minutes."""
    return dialect_of("default").now()


def fill() -> None:
    """Store 20,000 events of one channel, all of which were announced, and as many of other keys."""
    old = {"created_at": now() - DAY, "consumed_at": now() - DAY, "name": "tick", "payload": "1"}
    rows = [Message(event_key=str(number) if number % 2 else None, **old) for number in range(40_000)]
    Message.objects.bulk_create(rows, batch_size=2000)


def test_questions_about_events_read_few_of_them() -> None:
    fill()
    job = claim_one()
    new = {"created_at": now(), "consumed_at": now(), "name": "tick", "payload": "1"}
    Message.objects.bulk_create([Message(**new) for _ in range(20)])
    analyze(Message)
    channel = channel_of("tick", None)
    asked: dict[str, tuple[Callable[[], Any], int]] = {
        "look": (lambda: take_event(job, channel, "1"), FEW),
        "look for none": (lambda: take_event(job, channel_of("tick", "1"), "1"), FEW),
        "emit": (lambda: emit("tick"), FEW),
        "stand in": (announce_forgotten, FEW),
        "send a message": (lambda: send_message(job.id, "tick"), FEW),
        "prune": (lambda: prune_events(None), 10 * WINDOW),
    }
    read = {}
    for what, (ask, limit) in asked.items():
        with counted_work(Message) as work:
            ask()
        if work.rows > limit:
            read[what] = work.rows
    assert read == {}


def had(job: Claimed, count: int) -> None:
    """Let the job have had so many events."""
    new = {"created_at": now(), "consumed_at": now()}
    Message.objects.bulk_create([Message(name="tick", payload=str(n), **new) for n in range(count)], batch_size=2000)
    numbers = Message.objects.filter(name="tick", created_at__gte=Job.objects.get().created_at).order_by("id")
    Checkpoint.objects.bulk_create(
        [
            Checkpoint(job_id=job.id, key=str(n), name="tick", kind="event", result=f"[{number},{n}]")
            for n, number in enumerate(numbers.values_list("id", flat=True), 1)
        ],
        batch_size=2000,
    )


def test_a_job_that_has_listened_for_long_reads_what_it_had_once_and_sends_none_of_it() -> None:
    job = claim_one()
    had(job, MANY)
    emit("tick", "new")
    channel = channel_of("tick", None)
    analyze(Message)
    analyze(Checkpoint)
    reads = {}
    for model in (Message, Checkpoint):
        with counted_work(model) as work, CaptureQueriesContext(connection) as queries, transaction.atomic():
            assert str(take_event(job, channel, str(MANY + 1))).endswith(',"new"]')
            transaction.set_rollback(True)
        reads[model.__name__] = work.rows
        assert max(len(query["sql"]) for query in queries) < 2000
    assert max(reads.values()) < 20 * MANY, reads


def test_events_are_pruned_name_by_name_up_to_those_that_are_kept() -> None:
    old, new = {"created_at": now() - 30 * DAY, "payload": "1"}, {"created_at": now(), "payload": "1"}
    names = ["a", "b", "c"]
    Message.objects.bulk_create([Message(name=name, **old) for name in names for _ in range(WINDOW + 10)])
    Message.objects.bulk_create([Message(name=name, **new) for name in names for _ in range(2 * WINDOW)])
    place, windows = prune_events(None), 1
    while place is not None:
        place, windows = prune_events(place), windows + 1
    assert list(Message.objects.values_list("name").annotate(Count("id")).order_by("name")) == [
        (name, 2 * WINDOW) for name in names
    ]
    assert windows <= 3 * len(names) + 1


def test_the_pruner_does_not_walk_past_messages_to_jobs() -> None:
    job = claim_one()
    old = {"created_at": now() - 30 * DAY, "consumed_at": now(), "name": "tick", "payload": "1"}
    Message.objects.bulk_create([Message(job_id=job.id, **old) for _ in range(40_000)], batch_size=2000)
    Message.objects.bulk_create([Message(**old) for _ in range(10)])
    analyze(Message)
    with counted_work(Message) as work:
        assert prune_events(None) is None
    assert Message.objects.count() == 40_000
    assert work.rows < FEW


def test_a_job_that_had_many_events_does_not_read_them_again() -> None:
    job = claim_one()
    events = Message.objects.bulk_create(
        [Message(name="tick", payload=str(n), created_at=now(), consumed_at=now()) for n in range(200)]
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
