"""Listening to signals in tests: everything that is told is kept, and nobody listens any more afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django_durable_jobs import signals
from django_durable_jobs.events import Event
from django_durable_jobs.signals import EventSignal

SIGNALS: dict[str, EventSignal[Any]] = {
    name: value for name, value in vars(signals).items() if isinstance(value, EventSignal)
}


@contextmanager
def listening(*only: EventSignal[Any], sender: object = None) -> Iterator[list[Event]]:
    """Collect what these signals tell, or all."""
    told: list[Event] = []
    with connected(lambda event, **_more: told.append(event), *only, sender=sender):
        yield told


@contextmanager
def connected(receiver: Callable[..., Any], *only: EventSignal[Any], sender: object = None) -> Iterator[None]:
    """Have a receiver called while the block runs."""
    chosen = only or tuple(SIGNALS.values())
    for signal in chosen:
        signal.connect(receiver, sender=sender)
    try:
        yield
    finally:
        for signal in chosen:
            assert signal.disconnect(receiver, sender=sender)


def kinds(told: list[Event]) -> list[str]:
    """Return what kinds of events these are, in short: ``job_started``."""
    names = {signal.event: name for name, signal in SIGNALS.items()}
    return [names[type(event)] for event in told]
