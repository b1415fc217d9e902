"""The branches of an async job: calls that run in tasks of their own, beside the code that made them."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Final

from ..durable.context import JobContext, is_parking
from ..durable.frames import fields_of
from ..errors import Interrupted

logger = logging.getLogger("django_durable_jobs.jobs")

BRANCH_LOOK: Final = 1.0
"""Seconds between two looks whether a job whose branches still run was interrupted."""
LEFTOVER_TIME: Final = 5.0
"""Seconds that cancelled calls of an attempt that is over have to end."""


async def let_branches_end(context: JobContext) -> None:
    """Let the other branches of a job that is about to wait go on until each has ended, or waits too."""
    while not context.interrupted and (tasks := [task for task in context.tasks or () if not task.done()]):
        await asyncio.wait(tasks, timeout=BRANCH_LOOK)


async def end_tasks(context: JobContext) -> None:
    """Stop calls that still run in tasks or threads of an attempt that is over: the next one makes them anew."""
    context.interrupt(context.why or Interrupted("The attempt is over."))
    tasks = [task for task in context.tasks or () if not task.done()]
    for task in tasks:
        task.cancel()
    with suppress(asyncio.CancelledError):
        if tasks and (await asyncio.wait(tasks, timeout=LEFTOVER_TIME))[1]:
            fields = fields_of(context.row, context.worker_name)
            logger.warning("Calls of job %s do not end although they were cancelled", context.id, extra=fields)
    for branch in [parking.task for parking in context.parkings]:
        if branch is not None and branch.done() and not branch.cancelled():
            # A wait that the code gave up is no error: once asked for, asyncio does not log it as forgotten.
            error = branch.exception()
            if error is not None and not (isinstance(error, Interrupted) or is_parking(error)):
                fields = fields_of(context.row, context.worker_name)
                text = "A branch of job %s failed, and nobody looked"
                logger.error(text, context.id, exc_info=error, extra=fields)
