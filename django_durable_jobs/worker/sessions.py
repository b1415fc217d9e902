"""Database connections of a worker: kept open between jobs, and clean for each of them.

A connection per job costs several times the job. So threads keep theirs; what a job may leave behind (an open
transaction, settings, session locks) is undone after it, and only where it used the connection at all.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from functools import cache
from typing import Any, Final, TypeVar

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from ..clock import SYSTEM
from ..dialects import dialect_of
from ..errors import OpenTransaction
from ..operations.connections import is_own, opened, transaction_open
from ..operations.database import alias

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

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


_inherited: list[object] = []
"""Connections and pools of a parent process, kept so that nothing here ever closes them and ends its sessions."""


def install() -> None:
    """Prepare every connection that this process opens from now on."""
    connection_created.connect(_prepare, dispatch_uid="django_durable_jobs.sessions")
    _give_forked_processes_their_own()


@cache
def _give_forked_processes_their_own() -> None:
    """Arrange once that a process which a job forks (``multiprocessing``) never speaks on the job's connection."""
    os.register_at_fork(after_in_child=_forget_inherited)


def _forget_inherited() -> None:
    # A pool's sessions are the parent's as well, and the threads that look after it do not exist here.
    _inherited.extend(pool for name in connections if (pool := dialect_of(name).take_pool()) is not None)
    for connection in opened():
        if connection.connection is not None:
            _inherited.append(connection.connection)
            connection.connection = None
            # Inside the parent's transaction a new connection would be another one: Django then says so.
            connection.closed_in_transaction = connection.in_atomic_block


def mark_thread_as_ours(*, ours: bool = True) -> None:
    """Say that this thread runs the worker's own statements, not a project's code; or that it does so no more."""
    _thread.ours = ours


def _prepare(sender: object, connection: BaseDatabaseWrapper, **_kwargs: object) -> None:  # noqa: ARG001 -- a signal
    connection.close_at = None  # CONN_MAX_AGE belongs to requests; a worker decides itself
    if getattr(_thread, "ours", False):
        if connection.alias == alias():
            dialect_of(connection.alias).prepare_worker_connection(connection)
    elif not is_own(connection):
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
    for connection in opened():
        if connection.connection is not None and SYSTEM.monotonic() - _use_of(connection).last > CHECK_AFTER:
            connection.health_check_enabled = True  # type: ignore[attr-defined]  # the stubs lack it
            connection.health_check_done = False  # type: ignore[attr-defined]  # as above


def clean_up(*, anew: bool = False) -> OpenTransaction | None:
    """Leave every connection of this thread as new; called after each job.

    With ``anew`` they are closed, whatever they look like: code was interrupted that may have been using them. Returns
    an error, not raised, if a transaction was open: what was written in it is rolled back.
    """
    left = None
    for connection in opened():
        if (connection.connection is not None or connection.in_atomic_block) and _clean(connection, anew=anew):
            left = _left_open(connection)
        connection.queries_log.clear()  # with DEBUG Django keeps every statement
    return left


def _left_open(connection: BaseDatabaseWrapper) -> OpenTransaction:
    return OpenTransaction(
        f"A transaction was left open on database {connection.alias!r}; it was rolled back. Commit it before the code "
        "returns, e.g. with atomic() as a with block."
    )


def around(function: Callable[[], Result]) -> Result:
    """Run a function that an async job sends to a thread, with connections that are clean before and after."""
    before_job()
    left = None
    try:
        result = function()
    finally:
        left = clean_up()
    if left is not None:
        raise left
    return result


def between(function: Callable[[], Result]) -> Result:
    """Run a function in a thread that several async jobs share: no transaction stays open until the next one.

    The rest is cleaned when the job is over: that costs a round trip, and this runs for each query.
    """
    before_job()
    left = None
    try:
        result = function()
    finally:
        for connection in opened():
            if transaction_open(connection):
                _drop(connection)
                left = _left_open(connection)
            _use_of(connection).last = SYSTEM.monotonic()
    if left is not None:
        raise left
    return result


def _clean(connection: BaseDatabaseWrapper, *, anew: bool) -> bool:
    """Make the connection as new; answer whether a transaction had to be rolled back."""
    use, rolled_back = _use_of(connection), False
    try:
        # Asked first, as none of it needs a statement that would have been noticed.
        if transaction_open(connection) or connection.in_atomic_block or connection.closed_in_transaction:
            rolled_back = True
            _drop(connection)
        elif connection.errors_occurred or anew:
            _drop(connection)
        elif use.used:
            dialect_of(connection.alias).reset_session(connection)
    except Exception as error:  # noqa: BLE001 -- the next job must get a connection that works, whatever this was
        logger.debug("A connection could not be cleaned and is dropped: %s", error)
        _drop(connection)
    if use.used:
        use.used = False
        use.last = SYSTEM.monotonic()
    return rolled_back


def _drop(connection: BaseDatabaseWrapper) -> None:
    connection.in_atomic_block = False
    connection.savepoint_ids = []
    connection.atomic_blocks = []
    connection.run_on_commit = []
    connection.needs_rollback = False
    connection.closed_in_transaction = False
    try:
        dialect_of(connection.alias).end_session(connection)
    except Exception as error:  # noqa: BLE001 -- it is gone either way
        logger.debug("A connection could not be closed: %s", error)
        connection.connection = None
