"""Job functions that log; registered by the tests that import them."""

from __future__ import annotations

import asyncio
import logging

from django_durable_jobs import call, durable_job

logger = logging.getLogger("tests.shop")


@durable_job
def pay(amount: int) -> int:
    """Log, and call something that logs."""
    logger.info("Paying %d", amount)
    return call(book, amount)


@durable_job
def book(amount: int) -> int:
    """Log inside a call."""
    logger.info("Booking")
    return amount


@durable_job
async def pay_later(amount: int) -> None:
    """Log on the event loop, between two switches."""
    logger.info("Later %d", amount)
    await asyncio.sleep(0)
    logger.info("Later still %d", amount)


@durable_job(retries=0)
def forge(message: str) -> None:
    """Fail with a message that tries to look like another line."""
    raise ValueError(message)
