"""Fair turns: which jobs of a queue come next when its tenants take turns.

To be called under the lock of the queue's limit, which all claims of such a queue take. So nobody else chooses from it
meanwhile, and the turn is kept from one claim to the next, whichever worker makes it.
"""

from __future__ import annotations

from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Final
from uuid import UUID

from ..dialects.rows import Want
from .database import dialect, jobs

if TYPE_CHECKING:
    from ..querysets.jobs import JobQuerySet

AT_ONCE: Final = 20
"""Tenants that one claim looks at, each with a query; the others are first the next time."""
WITHOUT: Final = 1000
"""Among so many jobs at the head of the queue those without a tenant are looked for; together they are one tenant."""
NOBODY: Final = ""
"""That tenant. No real one has an empty name."""


def in_turn(want: Want, turn: str | None, *, rescued: bool) -> tuple[list[UUID], str | None]:
    """Return the jobs to claim, one of each tenant in turn from that after ``turn`` on, and whose turn was last."""
    these = jobs().pending().filter(queue=want.queue, **({"rescues__gt": 0} if rescued else {"rescues": 0}))
    lines = {tenant: _first(these, tenant, want.amount) for tenant in _tenants(these, turn, min(want.amount, AT_ONCE))}
    rounds = zip_longest(*([(tenant, job_id) for job_id in ids] for tenant, ids in lines.items()))
    chosen = [one for one in chain.from_iterable(rounds) if one is not None][: want.amount]
    return [job_id for _tenant, job_id in chosen], chosen[-1][0] if chosen else turn


def _first(these: JobQuerySet, tenant: str, amount: int) -> list[UUID]:
    if tenant != NOBODY:
        return list(these.filter(tenant=tenant).in_claim_order().values_list("id", flat=True)[:amount])
    head = these.in_claim_order().values_list("id", "tenant")[:WITHOUT]
    return [job_id for job_id, owner in head if owner is None][:amount]


def _tenants(these: JobQuerySet, turn: str | None, most: int) -> list[str]:
    """Return the tenants with jobs, from the one after ``turn`` on and around."""
    last = NOBODY if turn is None else turn
    if not dialect().has_partial_indexes:
        # Without an index of tenants, the queue is read once.
        known = sorted({one or NOBODY for one in these.values_list("tenant", flat=True).distinct()})
        return [*(one for one in known if one > last), *(one for one in known if one <= last)][:most]
    after = _following(these, last, most)
    if len(after) < most:
        # And those without one, who may not be there.
        around = [one for one in _following(these, NOBODY, most - len(after)) if one <= last]
        return [*after, NOBODY, *around]
    return after


def _following(these: JobQuerySet, after: str, most: int) -> list[str]:
    """Return the tenants behind one, each found by one entry of the index."""
    found: list[str] = []
    while len(found) < most:
        following = these.filter(tenant__gt=found[-1] if found else after).order_by("tenant")
        tenant = following.values_list("tenant", flat=True).first()
        if tenant is None:
            break
        found.append(tenant)
    return found
