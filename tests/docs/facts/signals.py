"""The signals with their events, from `signals.py` and `events.py`."""

from __future__ import annotations

from dataclasses import fields

from tests.docs.facts.markdown_tables import code, listed, markdown_table, prose
from tests.listening import SIGNALS


def table() -> str:
    """Return the table of signals."""
    rows = [
        [
            code(name),
            code(signal.event.__name__),
            " ".join(prose(signal.event).split()),
            listed(field.name for field in fields(signal.event)),
        ]
        for name, signal in SIGNALS.items()
    ]
    return markdown_table(["signal", "event", "what happened", "fields"], rows)
