"""The tables. One module per subject; the hot one is ``job.py``, which says why it is as narrow as it is."""

from .approval import Approval
from .attempt import Attempt
from .checkpoint import Checkpoint
from .event_wait import EventWait
from .job import Job
from .message import Message
from .named_value import NamedValue
from .queue import Queue
from .report import ExecutionReport
from .worker import Worker

__all__ = [
    "Approval",
    "Attempt",
    "Checkpoint",
    "EventWait",
    "ExecutionReport",
    "Job",
    "Message",
    "NamedValue",
    "Queue",
    "Worker",
]
