"""Database connections: those that the calling thread has open, and one that is ours alone.

Asking Django for a thread's open connections costs a multiple of a short job, and is wanted twice for each; so
they are noted when they open. Checkpoints go through a connection of their own: what a job's code did to its
thread's connection (a search path, a time limit, a transaction) must not reach what is stored, least of all the
checkpoints of other jobs that share the commit.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from ..dialects import dialect_of
from .database import alias

_MARK: Final = "_durable_jobs_own"


class _Opened(threading.local):
    def __init__(self) -> None:
        self.connections: list[BaseDatabaseWrapper] = []


_thread = _Opened()


def opened() -> list[BaseDatabaseWrapper]:
    """Return the connections that were opened in this thread; some may be closed by now."""
    return _thread.connections


def is_own(connection: BaseDatabaseWrapper) -> bool:
    """Answer whether this is an ``OwnConnection``, which no user code ever sees."""
    return hasattr(connection, _MARK)


def transaction_open(connection: BaseDatabaseWrapper) -> bool:
    """Answer whether a transaction is open, by ``atomic()``, by autocommit that is off, or by a bare ``BEGIN``.

    The one that ``TestCase`` wraps around each test is not the code's own and does not count.
    """
    if connection.in_atomic_block:
        return not all(getattr(block, "_from_testcase", False) for block in connection.atomic_blocks)
    # Closed beneath Django, nothing is open on it.
    if connection.connection is None or getattr(connection.connection, "closed", False):
        return False
    return not connection.autocommit or dialect_of(connection.alias).has_open_transaction(connection)


class OwnConnection:
    """A connection to the jobs' database that is lent to one thread at a time, in place of the thread's own.

    The caller sees to it that no two threads ask at once.
    """

    def __init__(self) -> None:
        """Open nothing yet."""
        self._wrapper: BaseDatabaseWrapper | None = None

    @contextmanager
    def lent(self) -> Generator[BaseDatabaseWrapper]:
        """Let everything that this thread sends to the jobs' database inside the block go through it."""
        name = alias()
        wrapper = self._wrapper
        if wrapper is None:
            wrapper = self._wrapper = connections.create_connection(name)
            setattr(wrapper, _MARK, True)
            wrapper.inc_thread_sharing()
        theirs = connections[name]
        connections[name] = wrapper
        try:
            yield wrapper
        finally:
            connections[name] = theirs
            wrapper.queries_log.clear()  # with DEBUG Django keeps every statement

    def close(self) -> None:
        """Close it; the next block opens it again."""
        wrapper, self._wrapper = self._wrapper, None
        if wrapper is not None:
            wrapper.close()


def _note(sender: object, connection: BaseDatabaseWrapper, **_kwargs: object) -> None:  # noqa: ARG001 -- a signal
    if is_own(connection):
        connection.close_at = None  # CONN_MAX_AGE belongs to requests
        dialect_of(connection.alias).prepare_worker_connection(connection)
    elif not any(known is connection for known in _thread.connections):
        _thread.connections.append(connection)


connection_created.connect(_note, dispatch_uid="django_durable_jobs.connections")
