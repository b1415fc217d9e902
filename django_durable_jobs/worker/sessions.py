"""Database connections of a worker: kept open between jobs, and clean for each of them.

A connection per job costs several times the job. So threads keep theirs; what a job may leave behind (an open
transaction, settings, session locks) is undone after it, and only where it used the connection at all.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Final

from django.db import connections, reset_queries
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from ..clock import SYSTEM
from ..dialects import dialect_of
from ..operations.database import alias

logger = logging.getLogger(__name__)

CHECK_AFTER: Final = 1.0
"""Seconds without use after which a connection is checked before it is used again."""

_thread = threading.local()


class _Use:
    """Notes that a connection was used, by standing among its execute wrappers."""

    def __init__(self) -> None:
        self.used = True
        self.last = SYSTEM.monotonic()

    def __call__(self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:  # noqa: FBT001 -- Django's interface
        self.used = True
        return execute(sql, params, many, context)


def install() -> None:
    """Prepare every connection that this process opens from now on."""
    connection_created.connect(_prepare, dispatch_uid="django_durable_jobs.sessions")


def mark_thread_as_ours() -> None:
    """Say that this thread runs the worker's own statements, not a project's code."""
    _thread.ours = True


def _prepare(sender: object, connection: BaseDatabaseWrapper, **_kwargs: object) -> None:  # noqa: ARG001 -- a signal
    connection.close_at = None  # CONN_MAX_AGE belongs to requests; a worker decides itself
    if getattr(_thread, "ours", False):
        if connection.alias == alias():
            dialect_of(connection.alias).prepare_worker_connection(connection)
        return
    _use_of(connection).used = True


def _use_of(connection: BaseDatabaseWrapper) -> _Use:
    for wrapper in connection.execute_wrappers:
        if isinstance(wrapper, _Use):
            return wrapper
    use = _Use()
    connection.execute_wrappers.append(use)
    return use


def before_job() -> None:
    """Let Django check connections of this thread that have been idle for a while, at their next use."""
    for connection in connections.all(initialized_only=True):
        if connection.connection is not None and SYSTEM.monotonic() - _use_of(connection).last > CHECK_AFTER:
            connection.health_check_enabled = True
            connection.health_check_done = False


def clean_up() -> None:
    """Leave every connection of this thread as new; called after each job."""
    for connection in connections.all(initialized_only=True):
        if connection.connection is not None:
            _clean(connection)
    reset_queries()


def _clean(connection: BaseDatabaseWrapper) -> None:
    use = _use_of(connection)
    if not use.used:
        return
    use.used = False
    try:
        if connection.in_atomic_block or not connection.get_autocommit() or connection.errors_occurred:
            _drop(connection)
            return
        dialect = dialect_of(connection.alias)
        if dialect.has_open_transaction(connection):
            _drop(connection)
            return
        dialect.reset_session(connection)
    except Exception as error:  # noqa: BLE001 -- the next job must get a connection that works, whatever this was
        logger.debug("A connection could not be cleaned and is dropped: %s", error)
        _drop(connection)
    use.used = False
    use.last = SYSTEM.monotonic()


def _drop(connection: BaseDatabaseWrapper) -> None:
    connection.in_atomic_block = False
    connection.savepoint_ids = []
    connection.atomic_blocks = []
    connection.run_on_commit = []
    connection.needs_rollback = False
    connection.close()
