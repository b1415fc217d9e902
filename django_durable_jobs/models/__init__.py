"""The tables. One module per subject; the hot one is ``job.py``, which says why it is as narrow as it is."""

from .approval import Approval
from .attempt import Attempt
from .audit import AuditEntry
from .batch import JobBatch
from .checkpoint import Checkpoint
from .coalescing import Coalescing
from .event_wait import EventWait
from .job import Job
from .limit import Limit
from .message import Message
from .named_value import NamedValue
from .queue import Queue
from .report import ExecutionReport
from .sequence import Sequence
from .worker import Worker

__all__ = [
    "Approval",
    "Attempt",
    "AuditEntry",
    "Checkpoint",
    "Coalescing",
    "EventWait",
    "ExecutionReport",
    "Job",
    "JobBatch",
    "Limit",
    "Message",
    "NamedValue",
    "Queue",
    "Sequence",
    "Worker",
]
