"""What the sessions of a worker need, and how what a job left in one is undone: the modest answers."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from django.db import DatabaseError

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper


class Sessions:
    """The part of a dialect that concerns a connection, whatever is sent through it."""

    def prepare_worker_connection(self, connection: BaseDatabaseWrapper) -> None:
        """Set what a worker's connection needs beyond the project's own options; called when it opens."""

    def has_open_transaction(self, connection: BaseDatabaseWrapper) -> bool:
        """Answer whether a transaction is open that Django does not know of."""
        return False

    def end_session(self, connection: BaseDatabaseWrapper) -> None:
        """Close the connection so that no other use of it finds what its session was left with."""
        connection.close()

    def cut(self, connection: BaseDatabaseWrapper) -> None:
        """Break a connection that another thread waits on: its statement ends with an error that says so.

        The server is not asked, and may go on with the statement until it finds that nobody listens.
        """
        raw = connection.connection
        with suppress(OSError, AttributeError, ValueError, DatabaseError):
            number = raw.fileno() if hasattr(raw, "fileno") else raw._sock.fileno()  # noqa: SLF001 -- PyMySQL's
            with socket.socket(fileno=os.dup(number)) as line:
                line.shutdown(socket.SHUT_RDWR)

    def take_pool(self) -> object | None:
        """Take away the pool that this process shares among its threads, without closing it; ``None`` without one."""
        return None

    def reset_session(self, connection: BaseDatabaseWrapper) -> None:
        """Undo what a job's code may have left in its thread's session, after the transaction is closed."""
