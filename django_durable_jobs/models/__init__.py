"""The tables. One module per subject; the hot one is ``job.py``, which says why it is as narrow as it is."""

from .attempt import Attempt
from .checkpoint import Checkpoint
from .job import Job
from .queue import Queue
from .worker import Worker

__all__ = ["Attempt", "Checkpoint", "Job", "Queue", "Worker"]
