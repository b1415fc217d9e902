"""What a type checker must know of the public API. Read by mypy, never run: unused ignores are errors there."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, assert_type

from django_durable_jobs import (
    ChunkItem,
    JobHandle,
    Progress,
    Results,
    acall,
    agather,
    atomic_step,
    call,
    durable_job,
    gather,
    get_version,
    patched,
    threshold,
)
from django_durable_jobs.durable.job import Invocation
from django_durable_jobs.events import JobCompletedEvent, JobFailedEvent

if TYPE_CHECKING:

    @durable_job
    def add(a: int, b: int = 0) -> int:
        """Return a sum."""
        return a + b

    @durable_job(queue="mail", priority="high", retries=5)
    def name_of(n: int) -> str:
        """Return a text."""
        return str(n)

    @durable_job
    async def fetch(url: str) -> bytes:
        """Return bytes."""
        return url.encode()

    @durable_job(chunk=10)
    def index(items: list[ChunkItem[int, str]]) -> None:
        """Say how each of many ended."""
        for item in items:
            assert_type(item.argument, int)
            item.result = 1  # type: ignore[assignment]

    @durable_job(chunk=10, chunk_timeout=1)
    async def async_index(items: list[ChunkItem[int, bytes]]) -> None:
        """Do the same."""

    @durable_job(sequence_key=lambda n: f"key {n}", throttle=60)
    def in_order(n: int) -> None:
        """Have a key."""

    @durable_job(retires=5)  # type: ignore[call-overload, untyped-decorator]
    def misspelt(n: int) -> None:
        """Have an option that does not exist."""

    @durable_job(atomic=True)
    def move(n: int) -> int:
        """Be one transaction."""
        return n

    @atomic_step("book seat")
    def book(order: int) -> str:
        """Be one step."""
        return str(order)

    assert_type(add(1, b=2), int)
    assert_type(move.enqueue(1), JobHandle[int])
    assert_type(move.enqueue(1).progress, Progress | None)
    assert_type(book(1), str)
    assert_type(book.using(retries=1)(1), str)
    assert_type(get_version("x", 0, 1), int)
    assert_type(patched("x"), bool)
    book("1")  # type: ignore[arg-type]
    assert_type(add.enqueue(1), JobHandle[int])
    assert_type(add.enqueue(1).result(), int)
    assert_type(name_of.using(queue="other", delay=3).enqueue(n=1), JobHandle[str])
    assert_type(add.enqueue_many([add.s(1), (2,), {"a": 3}]), list[JobHandle[int]])
    assert_type(name_of.s(1), Invocation[str])
    assert_type(fetch.enqueue("x"), JobHandle[bytes])
    assert_type(gather(add.s(1), add.s(2)), Results[int])
    assert_type(gather(*(name_of.s(n) for n in range(3)), strategy=threshold(0.5)).values(), list[str])
    assert_type([one.value for one in gather(fetch.s("x"), strategy="collect_all").failures()], list[bytes])
    assert_type(gather(add.s(1), name_of.s(2)), Results[object])
    gather(add.s(1), strategy="fail_slow")  # type: ignore[arg-type]
    gather([add.s(1)])  # type: ignore[arg-type]

    assert_type(index.enqueue(1), JobHandle[str])
    assert_type(async_index.enqueue(1), JobHandle[bytes])
    assert_type(in_order.using(sequence_key="one", debounce=None).enqueue(1).existing, bool)
    index.enqueue("1")  # type: ignore[arg-type]
    index.using(chunk=5)  # type: ignore[call-arg]

    add.enqueue("1")  # type: ignore[arg-type]
    add.enqueue()  # type: ignore[call-arg]
    add.enqueue(1, c=2)  # type: ignore[call-arg]
    add.s(None)  # type: ignore[arg-type]
    add.using(que="other")  # type: ignore[call-arg]

    assert_type(call(add, 1, b=2), int)
    assert_type(call(len, "abc"), int)
    call(add, "1")  # type: ignore[call-overload]

    @add.on_failure
    def tell(event: JobFailedEvent) -> None:
        assert_type(event.duration, timedelta | None)

    def wants_another(event: JobCompletedEvent) -> None:
        """Take what the hook below is not called with."""

    add.on_retry(wants_another)  # type: ignore[arg-type]

    async def workflow() -> None:
        """Use the awaited forms."""
        assert_type(await acall(add, 1), int)
        assert_type(await agather(fetch.s("x")), Results[bytes])
        assert_type(await acall(fetch, "x"), bytes)
        assert_type(await fetch("x"), bytes)
        assert_type(await book.acall(1), str)
        assert_type(await add.aenqueue(1), JobHandle[int])
