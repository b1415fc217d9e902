"""Pipelines: a job made of named tasks, with one policy for what fails and a report of every run.

``declaration`` is what a project writes; ``run`` says what comes next in a run, ``tries`` what one try of a task is,
and ``conduct`` does it, in a thread or on the event loop. The report stands in ``operations/reports.py``.
"""

from .declaration import Pipeline
from .run import Run

__all__ = ["Pipeline", "Run"]
