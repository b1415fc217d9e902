"""Code of a job and the record of it in one commit: both are there afterwards, or neither is.

The transaction is that of the thread's own connection, since the code's writes go through it. The job's row is
locked at the end only: the heartbeat must be able to renew the lease while the code runs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from django.db import DatabaseError
from django.db.backends.base.base import BaseDatabaseWrapper

from ..errors import BrokenTransaction
from ..faults import fault
from .database import dialect

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


class _StoredBefore(Exception):
    """Ends a transaction whose record is there already, so that its writes are not made twice."""


def one_commit(
    what: str, body: Callable[[], Result], store: Callable[[Result], bool], is_stored: Callable[[], bool]
) -> None:
    """Run ``body``, then ``store`` what it returned, and commit; ``what`` names the code in messages.

    ``store`` returns ``False`` when a record is there already: then everything is rolled back. An error at the end
    leaves open whether the commit has happened (X4), so ``is_stored`` looks, on another connection; if it has, the
    error is only logged. Raises ``BrokenTransaction`` when the code ended the transaction, or broke it and went on.
    """
    storing = False
    try:
        with dialect().job_transaction():
            connection = dialect().connection
            # It is gone if the transaction ends, by hand or by a statement that commits, whatever begins after that.
            mark = connection.savepoint()
            result = body()
            _check(what, connection, mark)
            storing = True
            with dialect().own_schema():
                if not store(result):
                    raise _StoredBefore  # noqa: TRY301 -- leaves the transaction
            fault("before-commit")
        fault("after-commit")
    except Exception as error:
        if not storing or not is_stored():
            raise
        if not isinstance(error, _StoredBefore):
            logger.warning("%s is committed, although that ended with an error", what, exc_info=error)


def _check(what: str, connection: BaseDatabaseWrapper, mark: str | None) -> None:
    if connection.needs_rollback:
        raise BrokenTransaction(
            f"{what} has returned, but its transaction can only be rolled back: a database error was caught inside "
            "it, or set_rollback(True) was called. Put what may fail into an atomic() block of its own, and catch "
            "the error outside of that block."
        ) from getattr(connection, "rollback_exc", None)
    if mark is None:
        return
    try:
        connection.savepoint_commit(mark)
    except DatabaseError as error:
        if dialect().is_disconnect(error) or dialect().is_conflict(error):
            raise
        raise BrokenTransaction(
            f"{what} has returned, but the transaction that it ran in is no longer open or no longer usable: it was "
            "ended by hand, by a statement that commits (on MySQL and MariaDB every change of a table's form does), "
            "or by a database error that was caught."
        ) from error
