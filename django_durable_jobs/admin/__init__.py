"""The Django admin of durable jobs: fast lists, pages that show everything and change nothing, orders as actions.

``jobs.py``, ``queues.py`` and ``workers.py`` register one model each; ``base.py`` is what they share; ``filters.py``
the filters of the lists; ``actions.py`` orders over many jobs; ``showing.py`` how stored text becomes visible text.
"""

from __future__ import annotations

from . import jobs, queues, workers

__all__ = ["jobs", "queues", "workers"]
