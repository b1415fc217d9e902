"""Claims from queues that are limited, and from all queues while the fleet is: in a transaction that locks the limits.

Unlimited queues never come here; the claim of ``claim.py`` leaves limited ones alone, in the statement that claims.
How many jobs run is counted, under the lock of the limit's row, and not kept as a number: so nothing that a lost worker
or a late one does can free a place twice, or never.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from django.db.models import Count, Subquery, Value

from ..clock import SYSTEM
from ..dialects.now import DatabaseNow
from ..dialects.rows import Claim, Claimed, Want
from ..faults import fault
from ..models import Limit
from ..rates import Admitted, Rate
from .database import alias, dialect, jobs
from .tenants import in_turn

FLEET: Final = "fleet"
QUEUE: Final = "queue "
"""How the keys of limits begin; the name of the queue follows."""
SHARE: Final = 40
"""A worker waits until this part of a rate's number is free (if it wants so many): fewer and fuller claims."""


class Taken(NamedTuple):
    """What a claim under limits has brought.

    ``full`` are queues of which no more may run; ``later`` those whose rate is used up, with the seconds until it is
    worth to ask again; ``in_hand`` those that somebody else claims from, or is about to change.
    """

    jobs: list[Claimed]
    full: set[str]
    later: dict[str, float]
    in_hand: set[str]


class _Place:
    """One limit, locked: how much of it is left in this transaction."""

    def __init__(self, row: Limit, now: float, running: int) -> None:
        self.key = row.key
        self._rate: Rate | None = row.bucket
        self._admitted = Admitted.of(row.admitted)
        self._now = now
        self._places = None if row.concurrency is None else row.concurrency - running
        self._count = 0
        self.fair = row.fair
        self.turn = row.turn

    def left(self, wanted: int) -> int:
        """Return how many of the wanted jobs may be taken."""
        tokens = wanted if self._rate is None else self._rate.free(self._admitted, self._now) - self._count
        places = wanted if self._places is None else self._places - self._count
        return max(0, min(wanted, tokens, places))

    def take(self, count: int) -> None:
        """Note jobs that were claimed."""
        self._count += count

    @property
    def full(self) -> bool:
        """Whether no more may run."""
        return self._places is not None and self._places - self._count <= 0

    def store(self, seconds: float) -> None:
        """Write down what was admitted, at most ``seconds`` after the lock was taken."""
        if not self._count:
            return
        if self._rate is not None:
            self._admitted = self._rate.noted(self._admitted, self._now, self._now + seconds, self._count)
        # Written for a concurrency too: at REPEATABLE READ, who waited for this row would count in an old snapshot.
        Limit.objects.using(alias()).filter(key=self.key).update(
            admitted=self._admitted, admitted_at=DatabaseNow(), turn=self.turn
        )

    def wait(self, wanted: int) -> float:
        """Return in how many seconds so much of the rate is free that asking is worth it; 0 without a rate."""
        if self._rate is None:
            return 0.0
        share = min(wanted, self._rate.burst, max(1, self._rate.number // SHARE))
        return self._rate.wait(self._admitted, self._now, share)


def claim_limited(order: Claim) -> Taken:
    """Claim as ``claim`` does from queues that are believed to be limited, within their and the fleet's limits."""
    return dialect().in_own_transaction(lambda: _claim_limited(order))


def _claim_limited(order: Claim) -> Taken:
    began = SYSTEM.monotonic()
    keys = [FLEET, *(QUEUE + want.queue for want in order.wants)]
    places, in_hand = _lock(keys)
    taken = Taken([], set(), {}, {want.queue for want in order.wants if in_hand & {FLEET, QUEUE + want.queue}})
    used_up: list[tuple[Want, list[_Place]]] = []
    fault("limits-locked")
    # Not always the same queue first: the fleet's limit may leave room for one only.
    for want in random.sample(order.wants, len(order.wants)):
        if want.queue in taken.in_hand:
            continue
        over = [place for key in (FLEET, QUEUE + want.queue) if (place := places.get(key)) is not None]
        amount = min((place.left(want.amount) for place in over), default=want.amount)
        found = _take(order, Want(want.queue, amount), places) if amount else []
        taken.jobs.extend(found)
        for place in over:
            place.take(len(found))
        if amount < want.amount and len(found) == amount:
            used_up.append((want, over))
    seconds = SYSTEM.monotonic() - began
    for place in places.values():
        place.store(seconds)
    for want, over in used_up:
        _note_why(want, over, taken)
    return taken


def _take(order: Claim, want: Want, places: dict[str, _Place]) -> list[Claimed]:
    # What is not limited, as far as this transaction has seen, is claimed as if we did not know limits: so an order
    # that comes meanwhile closes it to this claim.
    place = places.get(QUEUE + want.queue)
    only = None
    if place is not None and place.fair:
        only, place.turn = in_turn(want, place.turn, rescued=order.rescued)
        if not only:
            return []
    checked = order._replace(queue_checked=place is not None, fleet_checked=FLEET in places)
    return dialect().claim(checked._replace(wants=[want], only=only))


def _note_why(want: Want, over: Iterable[_Place], taken: Taken) -> None:
    if any(place.full for place in over):
        taken.full.add(want.queue)
    else:
        taken.later[want.queue] = max(place.wait(want.amount) for place in over)


def _lock(keys: list[str]) -> tuple[dict[str, _Place], set[str]]:
    """Lock the limits that there are; return them, and the keys of those that somebody else has locked."""
    rows = Limit.objects.using(alias()).filter(key__in=keys)
    locked = rows.order_by("key").select_for_update(skip_locked=dialect().has_skip_locked)
    number = rows.annotate(one=Value(1)).order_by().values("one").annotate(number=Count("key")).values("number")
    found = {row.key: row for row in locked.annotate(now=DatabaseNow(), number=Subquery(number))}
    complete = any(row.number == len(found) for row in found.values())
    others = set() if complete else set(rows.exclude(key__in=found).values_list("key", flat=True))
    running = _running(found.values())
    now = {key: row.now.timestamp() for key, row in found.items()}
    return {key: _Place(row, now[key], running.get(key, 0)) for key, row in found.items()}, others


class UsedUp(NamedTuple):
    """A limit that lets nothing begin now: its key, its number, and for a rate how long that lasts."""

    key: str
    allowed: str
    seconds: float | None


def used_up(queue: str) -> Iterator[UsedUp]:
    """Yield what lets no job of a queue begin now, by a look that locks nothing."""
    rows = list(Limit.objects.using(alias()).filter(key__in=[FLEET, QUEUE + queue]).annotate(now=DatabaseNow()))
    running = _running(rows)
    for row in rows:
        place = _Place(row, row.now.timestamp(), running.get(row.key, 0))
        if place.full:
            yield UsedUp(row.key, str(row.concurrency), None)
        elif not place.left(1):
            yield UsedUp(row.key, f"{row.rate} jobs in {row.per:g} s", place.wait(1))


def _running(rows: Iterable[Limit]) -> dict[str, int]:
    """Count the running jobs under those of these limits that have a concurrency."""
    counted = {row.key for row in rows if row.concurrency is not None}
    if not counted:
        return {}
    these = jobs().running()
    if FLEET not in counted:
        these = these.on_queues(key.removeprefix(QUEUE) for key in counted)
    by_queue = these.counted_by("queue")
    return {FLEET: sum(by_queue.values()), **{QUEUE + queue: count for queue, count in by_queue.items()}}
