"""Jobs whose histories are kept in ``histories``: some go on as they were recorded, some were changed since.

What the recorded code of a changed job was, its comment says.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from decimal import Decimal

from django_durable_jobs import Determinism, acall, asleep, call, durable_job, sleep

RAN: list[str] = []
"""What was run that only a worker may run."""


@dataclass
class Receipt:
    number: str
    amount: Decimal


class Declined(Exception):
    """The bank says no."""


def reserve(order: int) -> list[str]:
    RAN.append(f"reserve {order}")
    return ["chair", "table"]


def charge(order: int, amount: Decimal) -> Receipt:
    RAN.append(f"charge {order}")
    return Receipt(f"R-{order}", amount)


def charge_card(order: int) -> Receipt:
    RAN.append(f"charge card {order}")
    raise Declined("no funds")


def weigh(item: str) -> int:
    RAN.append(f"weigh {item}")
    return len(item)


def notify(order: int) -> None:
    RAN.append(f"notify {order}")


@durable_job(name="recorded.pack")
def pack(items: list[str]) -> int:
    return sum(call(weigh, item) for item in items)


@durable_job(name="recorded.checkout")
def checkout(order: int, *, amount: Decimal = Decimal(10)) -> Receipt:
    items = call(reserve, order)
    try:
        receipt = call.using(retries=0)(charge_card, order)
    except Declined:
        receipt = call(charge, order, amount)
    sleep(3600)
    assert receipt.amount == amount
    call(pack, items)
    call(notify, order)
    RAN.append("after the last call")
    return receipt


async def fetch(page: str) -> tuple[str, int]:
    RAN.append(f"fetch {page}")
    return page, len(page)


async def branch(page: str, wait: float) -> int:
    await asleep(wait)
    _name, size = await acall(fetch, page)
    return size


@durable_job(name="recorded.crawl")
async def crawl(pages: list[str]) -> int:
    sizes = await asyncio.gather(*(acall(branch, page, 60.0) for page in pages))
    await acall(notify, sum(sizes))
    return sum(sizes)


# Recorded: reserve, then notify.
@durable_job(name="recorded.inserted")
def inserted(order: int) -> None:
    call(reserve, order)
    call(weigh, "new")
    call(notify, order)


# Recorded: weigh one after the other, in a function that had not returned.
@durable_job(name="recorded.swapped_inside")
def swapped_inside(order: int) -> int:
    return call(inner, order)


def inner(order: int) -> int:
    call(notify, order)
    return call(weigh, "first")


# Recorded: a second notify at the end.
@durable_job(name="recorded.shorter", determinism=Determinism.STRICT)
def shorter(order: int) -> None:
    call(notify, order)


# Recorded with the argument order_id.
@durable_job(name="recorded.other_argument")
def other_argument(order: int) -> None:
    call(notify, order)


@dataclass
class Address:
    street: str


def find_address(order: int) -> Address:
    raise AssertionError("only its result is recorded: an address with a field place")


@durable_job(name="recorded.other_result")
def other_result(order: int) -> str:
    return call(find_address, order).street
