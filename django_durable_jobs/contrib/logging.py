"""Log records that say which job they are about: a filter and a formatter for ``LOGGING``, a processor for structlog.

Names in a record may come from rows that somebody else wrote, and messages from anywhere: what is unprintable
(line breaks, terminal escapes, direction marks) is escaped here, so that one record stays one line. What the fields
are is decided by ``durable.frames.log_fields``.
"""

from __future__ import annotations

import copy
import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final

from ..rendering import visible

__all__ = ["FIELDS", "JobFilter", "JobFormatter", "add_job_fields", "job_fields"]

FIELDS: Final = ("job", "definition", "attempt", "queue", "worker", "call")
"""The attributes of a record, in the order in which a line shows them."""
FIELD_LIMIT: Final = 200
"""Characters of one field."""
LINE_LIMIT: Final = 10_000
"""Characters of one line without its fields."""
CONTEXT: Final = f"{__package__.rpartition('.')[0]}.durable.frames"
PLAIN: Final = re.compile(r"[\w.:@/+-]+")


def job_fields() -> dict[str, Any]:
    """Return what is known of the running job, safe to print; empty outside of one."""
    return {name: _safe(value) for name, value in _log_fields().items()}


class JobFilter(logging.Filter):
    """Gives every record the attributes ``FIELDS``; an empty text is "none". Lets every record pass.

    Attach it to a handler: then it also sees the records of libraries that a job calls. What a record was given by
    ``extra`` stays. ``worker`` is the name for records that no job is responsible for.
    """

    def __init__(self, name: str = "", *, worker: str = "") -> None:
        """Take a logger's name as any filter does: records of others get no fields."""
        super().__init__(name)
        self._worker = worker

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields."""
        if super().filter(record):
            known = {"worker": self._worker, **_log_fields()}
            for name in FIELDS:
                value = record.__dict__.get(name)
                record.__dict__[name] = _safe(known.get(name, "") if value is None else value)
        return True


class JobFormatter(logging.Formatter):
    """Writes a record as one line that ends in its fields: ``… [job=0198… definition=shop.jobs.pay attempt=1 …]``.

    A traceback follows in lines of its own, indented: nothing in it can pass for a record.
    """

    def __init__(self, fmt: str = "%(asctime)s %(levelname)s %(message)s", **options: Any) -> None:
        """Take what any formatter takes."""
        super().__init__(fmt, **options)

    def format(self, record: logging.LogRecord) -> str:
        """Format a copy: a text that another handler's formatter left on the record is not ours, nor ours its."""
        own = copy.copy(record)
        own.exc_text = None
        return super().format(own)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 -- logging's interface
        """Return the line."""
        line = super().formatMessage(record)
        if len(line) > LINE_LIMIT:
            line = f"{line[:LINE_LIMIT]}… (cut, {len(line)} characters)"
        given = ((name, getattr(record, name, "")) for name in FIELDS)
        fields = " ".join(f"{name}={_quoted(value)}" for name, value in given if value is not None and value != "")
        return f"{visible(line)} [{fields}]" if fields else visible(line)

    def formatException(self, ei: Any) -> str:  # noqa: N802 -- as above
        """Return the traceback."""
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 -- as above
        """Return the stack."""
        return _indented(super().formatStack(stack_info))


def add_job_fields(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the fields to an event of structlog; a processor. What the event has already stays."""
    for name, value in job_fields().items():
        event.setdefault(name, value)
    return event


def _log_fields() -> dict[str, Any]:
    """Ask the context of jobs, if it is there: Django sets up logging before models may be imported, and it needs them.

    Until somebody else has imported it, no job can be running.
    """
    ask = getattr(sys.modules.get(CONTEXT), "log_fields", None)
    return {} if ask is None else ask()


def _safe(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return visible(value if len(value) <= FIELD_LIMIT else f"{value[: FIELD_LIMIT - 1]}…")


def _quoted(value: object) -> str:
    text = visible(str(value))
    if PLAIN.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _indented(text: str) -> str:
    lines = (visible(line, keep="\t") for line in text.split("\n"))
    return "\n".join(f"  {line}" for line in lines)
