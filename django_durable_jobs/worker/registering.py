"""The beginning of a worker: its row, for which it waits while the database is not up yet."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Final, NamedTuple

from django.db import connections

from ..clock import Clock
from ..conf import get_settings
from ..errors import WorkerNameTaken
from ..operations.database import dialect
from ..operations.queues import queue_names
from ..operations.workers import register
from .options import WorkerOptions

logger = logging.getLogger(__name__)

WAIT_FOR_DATABASE: Final = 300.0
"""Seconds that a starting worker waits for the database before it gives up."""


class Registered(NamedTuple):
    """The worker's row, and the queues that it begins with."""

    worker_id: int
    queues: dict[str, int]


def registered(
    options: WorkerOptions, stopping: Callable[[], bool], rest: Callable[[float], None], *, clock: Clock
) -> Registered | None:
    """Add the worker's row; ``None`` when it was stopped meanwhile. ``rest`` waits, but not beyond an order to stop.

    Raises ``WorkerNameTaken``, and the database's error when it could not be reached for five minutes.
    """
    began, pause, tried_for = clock.monotonic(), 0.1, timedelta(0)
    while not stopping():
        try:
            names = [] if options.queues else queue_names() or [get_settings().default_queue]
            queues = options.queues or dict.fromkeys(names, options.concurrency)
            worker_id = register(
                options.name,
                host=socket.gethostname(),
                pid=os.getpid(),
                queues=queues,
                lease=options.lease,
                tried_for=tried_for,
            )
            return Registered(worker_id, queues)
        except WorkerNameTaken:
            raise
        except Exception as error:
            connections.close_all()
            waited = clock.monotonic() - began
            passing = dialect().is_disconnect(error) or dialect().is_conflict(error)
            if not passing or waited > WAIT_FOR_DATABASE:
                raise
            logger.warning("The database cannot be reached (%s); trying again in %.1f s", error, pause)
        rest(pause)
        pause = min(pause * 2, 5.0)
        # A second more than it took: the two clocks need not tick alike.
        tried_for = timedelta(seconds=clock.monotonic() - began + 1)
    return None
