"""Whether the database has room for a worker that is about to start."""

from __future__ import annotations

from typing import Final

from django.db import connections

from ..dialects.limits import pool_limit, server_limit
from .database import alias

OWN_CONNECTIONS: Final = 5
"""Connections of a worker process beside those of its threads: claims, heartbeat, chores, listening."""


def connection_shortage(threads: int, processes: int = 1) -> str | None:
    """Say that the threads of a worker may find no connection, with the numbers and what to change; else ``None``.

    ``threads`` is per process. Raises what the database raises when it cannot be asked.
    """
    connection = connections[alias()]
    wanted = threads + OWN_CONNECTIONS
    pool = pool_limit(connection)
    if pool is not None and pool < wanted:
        return (
            f"Up to {wanted} connections are needed ({threads} threads and {OWN_CONNECTIONS} of the worker), but "
            f"the pool of database {alias()!r} has {pool}: raise its max_size, or lower --threads or --queue NAME=N."
        )
    limit = server_limit(connection)
    if limit is not None and limit < wanted * processes:
        return (
            f"Up to {wanted * processes} connections are needed ({processes} × {threads} threads and "
            f"{OWN_CONNECTIONS} of each worker), but the server of database {alias()!r} takes {limit} in all: lower "
            "--threads, --queue NAME=N or --processes, raise its max_connections, or put a pooler in between."
        )
    return None
