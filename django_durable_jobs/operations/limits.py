"""Orders to limit a queue or the whole fleet, and to take limits back.

A limit is a row that claims lock (``limited_claim.py``), and a mark at the queue or at the workers, which closes them
to claims that do not know of it. Both are written in one transaction, so when an order has returned, every claim heeds
it; claims that were on their way have been waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, Final

from asgiref.sync import sync_to_async

from ..dialects.now import DatabaseNow
from ..errors import NotLimited, OptionError
from ..keys import KEY_LENGTH, key_rule
from ..models import Limit, Queue, Sequence, Worker
from ..options import MOST_AT_ONCE as MOST_OF_A_KEY
from ..rendering import safe_repr
from .database import alias, dialect
from .limited_claim import FLEET, QUEUE
from .orders import LONGEST_BY, LONGEST_REASON, LOOK, check_text, tell
from .queues import known_queue
from .sequences import CONCURRENT, advance_after_commit

UNORDERED: Final = {
    "ordered": None,
    "rate": None,
    "let_go": None,
    "opens_at": None,
    "ordered_at": None,
    "ordered_by": "",
    "reason": "",
}
MOST_AT_ONCE: Final = 100_000
HIGHEST_RATE: Final = 1_000_000
SHORTEST_PER: Final = 0.1
LONGEST_PER: Final = 30 * 86_400.0
"""Seconds."""


def limit_queue(  # noqa: PLR0913 -- what an order says, by name
    queue: str,
    *,
    concurrency: int | None = None,
    rate: int | None = None,
    per: timedelta | float | None = None,
    burst: int | None = None,
    fair: bool = False,
    by: str = "",
    reason: str = "",
) -> None:
    """Limit a queue for the whole fleet, from now on; what was limited before is replaced.

    At most ``concurrency`` jobs of it run at once. Of its jobs at most ``rate`` begin in any ``per`` (seconds or
    timedelta; a second by default) by the database's clock, and at most ``burst`` of them at one moment (``rate`` by
    default). With ``fair`` its tenants take turns. Running jobs go on. One of these is needed. Raises
    ``QueueNotFound`` and ``OptionError``; then nothing has changed.
    """
    limits = _checked(concurrency=concurrency, rate=rate, per=per, burst=burst, by=by, reason=reason, fair=fair)
    name = known_queue(queue)
    mark = Queue.objects.using(alias()).filter(name=name).update
    dialect().in_own_transaction(partial(_limit, QUEUE + name, limits, mark))


def unlimit_queue(queue: str) -> None:
    """Take the limits of a queue back. Raises ``QueueNotFound`` and ``NotLimited``."""
    name = known_queue(queue)
    mark = Queue.objects.using(alias()).filter(name=name).update
    if not dialect().in_own_transaction(partial(_unlimit, QUEUE + name, mark)):
        raise NotLimited(f"Queue {name!r} is not limited.")


def limit_fleet(  # noqa: PLR0913 -- what an order says, by name
    *,
    concurrency: int | None = None,
    rate: int | None = None,
    per: timedelta | float | None = None,
    burst: int | None = None,
    by: str = "",
    reason: str = "",
) -> None:
    """Limit all queues together; the words are those of ``limit_queue``. Limits of queues hold besides.

    Every claim then waits for its turn at one row: for a few hundred jobs per second, not for many thousands.
    """
    limits = _checked(concurrency=concurrency, rate=rate, per=per, burst=burst, by=by, reason=reason)
    dialect().in_own_transaction(partial(_limit, FLEET, limits, Worker.objects.using(alias()).update))


def unlimit_fleet() -> None:
    """Take the limits of the whole fleet back. Raises ``NotLimited``."""
    if not dialect().in_own_transaction(partial(_unlimit, FLEET, Worker.objects.using(alias()).update)):
        raise NotLimited("The fleet is not limited.")


def limit_key(  # noqa: PLR0913 -- what an order says, by name
    key: str,
    *,
    concurrency: int | None = None,
    rate: int | None = None,
    per: timedelta | float | None = None,
    by: str = "",
    reason: str = "",
) -> None:
    """Limit the jobs of a concurrency key from now on; what an order has said of it before is replaced.

    At most ``concurrency`` of them run at once, in place of what their definition says, and at most ``rate`` begin in
    any ``per`` (seconds or timedelta; a second by default); both up to 1000. The key of a definition without a
    ``concurrency_key`` is its name. Jobs that have a place go on. Raises ``OptionError``; then nothing has changed.
    """
    line = _line(key)
    limits = _checked(concurrency=concurrency, rate=rate, per=per, burst=None, by=by, reason=reason)
    del limits["burst"], limits["fair"]
    for name in ("concurrency", "rate"):
        if limits[name] is not None:
            check_number(name, limits[name], MOST_OF_A_KEY)
    order = {"ordered": limits.pop("concurrency"), **limits, "opens_at": None}

    def work() -> None:
        dialect().lock_keys("Sequence", [line])
        Sequence.objects.using(alias()).filter(key=line).update(**order, ordered_at=DatabaseNow())

    dialect().in_own_transaction(work)
    advance_after_commit([line])


def unlimit_key(key: str) -> None:
    """Let what the definition says hold again for a concurrency key. Raises ``NotLimited``."""
    line = _line(key)
    rows = Sequence.objects.using(alias()).filter(key=line, ordered_at__isnull=False)
    if not rows.update(**UNORDERED):
        raise NotLimited(f"There is no order that limits the concurrency key {safe_repr(key, 80)}.")
    advance_after_commit([line])


def _line(key: object) -> str:
    checked = key_rule("key", KEY_LENGTH - len(CONCURRENT))(key)
    if not isinstance(checked, str):
        raise OptionError(f"key must be a str, not {safe_repr(key, 80)}.")
    return f"{CONCURRENT}{checked}"


async def alimit_queue(queue: str, **limits: Any) -> None:
    """Do what ``limit_queue`` does without blocking the event loop."""
    await sync_to_async(limit_queue)(queue, **limits)


async def aunlimit_queue(queue: str) -> None:
    """Do what ``unlimit_queue`` does without blocking the event loop."""
    await sync_to_async(unlimit_queue)(queue)


def _limit(key: str, limits: dict[str, Any], mark: Callable[..., int]) -> None:
    dialect().lock_keys("Limit", [key])
    # What was admitted stays written down: an order that repeats a rate does not begin its window anew.
    Limit.objects.using(alias()).filter(key=key).update(**limits, ordered_at=DatabaseNow())
    mark(limited=True)
    tell(LOOK)


def _unlimit(key: str, mark: Callable[..., int]) -> bool:
    removed, _by_model = Limit.objects.using(alias()).filter(key=key).delete()
    mark(limited=False)
    tell(LOOK)
    return bool(removed)


def _checked(  # noqa: PLR0913 -- what an order says, by name
    *, concurrency: object, rate: object, per: object, burst: object, by: object, reason: object, fair: object = False
) -> dict[str, Any]:
    if not isinstance(fair, bool):
        raise OptionError(f"fair must be True or False, not {safe_repr(fair, 80)}.")
    if concurrency is None and rate is None and not fair:
        raise OptionError("A limit needs a concurrency, a rate, or both.")
    if rate is None and not (per is None and burst is None):
        raise OptionError("per and burst mean something together with rate only: give it, too.")
    number = None if rate is None else check_number("rate", rate, HIGHEST_RATE)
    return {
        "concurrency": None if concurrency is None else check_number("concurrency", concurrency, MOST_AT_ONCE),
        "rate": number,
        "per": 1.0 if per is None else check_per(per),
        "burst": None if burst is None or number is None else check_number("burst", burst, number),
        "fair": fair,
        "ordered_by": check_text("by", by, LONGEST_BY),
        "reason": check_text("reason", reason, LONGEST_REASON),
    }


def check_number(what: str, value: object, most: int) -> int:
    """Return a whole number from 1, or raise ``OptionError``."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most:
        return int(value)
    hint = " To let none run, pause." if value == 0 else ""
    raise OptionError(f"{what} must be a whole number from 1 to {most}, not {safe_repr(value, 80)}.{hint}")


def check_per(value: object) -> float:
    """Return the window of a rate in seconds, or raise ``OptionError``."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and SHORTEST_PER <= seconds <= LONGEST_PER:
        return float(seconds)
    raise OptionError(f"per must be 0.1 seconds to 30 days (seconds or timedelta), not {safe_repr(value, 80)}.")
