"""The Django admin of durable jobs: fast lists, pages that show everything and change nothing, orders as actions.

``jobs.py``, ``queues.py``, ``workers.py``, ``batches.py``, ``approvals.py`` and ``audit.py`` register one model each;
``base.py`` is what they share, ``ordering.py`` what those share that take orders; ``filters.py`` the filters of the
lists; ``actions.py`` orders over many rows; ``showing.py`` how stored text becomes visible text.
"""

from __future__ import annotations

from . import approvals, audit, batches, jobs, queues, workers

__all__ = ["approvals", "audit", "batches", "jobs", "queues", "workers"]
