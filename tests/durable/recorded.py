"""Jobs whose histories are kept in ``histories``: some go on as they were recorded, some were changed since.

What the recorded code of a changed job was, its comment says.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from django_durable_jobs import (
    Determinism,
    Pipeline,
    acall,
    agather,
    aload_checkpoint,
    apatched,
    aprogress,
    asave_checkpoint,
    asleep,
    atomic_step,
    await_for_approval,
    await_for_event,
    await_for_message,
    call,
    compensate,
    durable_job,
    gather,
    load_checkpoint,
    patched,
    progress,
    save_checkpoint,
    sleep,
    sleep_until,
    wait_for_approval,
    wait_for_event,
    wait_for_message,
)

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


@durable_job(name="recorded.measure")
def measure(item: str) -> int:
    RAN.append(f"measure {item}")
    return len(item)


@atomic_step("book")
def book(order: int) -> str:
    RAN.append(f"book {order}")
    return f"booking {order}"


@durable_job(name="recorded.everything")
def everything(order: int) -> list[str]:
    """Make every kind of point."""
    sizes = gather(measure.s("chair"), measure.s("table")).values()
    progress(1, 4)
    save_checkpoint("sizes", sizes)
    booking = book(order)
    paid = wait_for_message("paid", timeout=3600)
    if patched("weigh-first"):
        call(weigh, "first")
    opened = wait_for_event("shop.opened", key="7")
    decision = wait_for_approval("Ship it?", {"order": order}, timeout=3600)
    sleep_until(datetime(2026, 1, 1, tzinfo=UTC))
    call(notify, sum(sizes))
    return [booking, paid, opened, decision.by, str(load_checkpoint("sizes"))]


@durable_job(name="recorded.aeverything")
async def aeverything(order: int) -> list[str]:
    """Do the same in async code."""
    sizes = (await agather(measure.s("chair"), measure.s("table"))).values()
    await aprogress(1, 4)
    await asave_checkpoint("sizes", sizes)
    booking = await book.acall(order)
    paid = await await_for_message("paid", timeout=3600)
    if await apatched("weigh-first"):
        await acall(weigh, "first")
    opened = await await_for_event("shop.opened", key="7")
    decision = await await_for_approval("Ship it?", {"order": order}, timeout=3600)
    await acall(notify, sum(sizes))
    return [booking, paid, opened, decision.by, str(await aload_checkpoint("sizes"))]


@durable_job(name="recorded.unbook")
def unbook(order: int) -> None:
    RAN.append(f"unbook {order}")


@durable_job(name="recorded.undoable")
def undoable(order: int) -> int:
    call(reserve, order)
    compensate(unbook, order)
    call(notify, order)
    raise ValueError("after the last call")


nightly = Pipeline("recorded.nightly", timeout=3600, retry_interval=60, on_start=print)


@nightly.task
def load(day: int) -> int:
    if not RAN:
        RAN.append("load")
        raise OSError("not yet")
    return call(weigh, "day")


@nightly.task
def send(day: int) -> int:
    return call(weigh, "mail")


beside = Pipeline("recorded.beside", mode="parallel", timeout=3600)


@beside.task
def left(day: int) -> int:
    return day


@beside.task
def right(day: int) -> int:
    return day


# Recorded: the children measure, measure.
@durable_job(name="recorded.other_children")
def other_children(order: int) -> list[int]:
    return gather(measure.s("chair"), measure.s("table"), measure.s("lamp")).values()


# Recorded: a wait for the message "paid", which had not come.
@durable_job(name="recorded.other_wait")
def other_wait(order: int) -> None:
    wait_for_message("payed", timeout=3600)


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
