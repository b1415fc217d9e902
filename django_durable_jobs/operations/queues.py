"""Queues as rows."""

from __future__ import annotations

from .. import registry
from ..models import Queue
from .database import alias


def queue_names() -> list[str]:
    """Return every queue that is known: by a row, or as the default of a registered definition."""
    rows = Queue.objects.using(alias()).values_list("name", flat=True)
    return sorted({*rows, *registry.queues()})
