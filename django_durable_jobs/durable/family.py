"""A gather whose children are stored: what was asked for, and what a look at the children comes to.

The public side and the way to here stand in ``gather``; what happens in the database in ``operations/children.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, cast

from django.db.models import Q

from ..conf import get_settings
from ..errors import ArgumentError, ChildFailed, OptionError, TimedOut
from ..operations import children
from ..operations.database import dialect
from ..operations.enqueue import Request
from ..operations.wake import FIRST_FAILURE, any_open
from ..options import check_timeout
from ..rendering import safe_str
from ..serialization import encode
from ..states import Status
from .job import Invocation
from .points import Point

if TYPE_CHECKING:
    from ..operations.checkpoints import Stored

ERROR_LENGTH: Final = 500
"""Characters of a child's error that the outcome keeps; all of it stands in the child's row."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """A share of children that must succeed; made by ``threshold()``."""

    share: float


Strategy = Literal["fail_fast", "collect_all"] | Threshold


@dataclass(frozen=True, slots=True)
class Plan:
    """What the code asks for."""

    invocations: tuple[Invocation[Any], ...]
    strategy: Strategy
    options: dict[str, Any]
    timeout: timedelta | None
    runs: list[list[Any]] = field(default_factory=list)
    """The children's definitions in order, each with how many of it follow each other."""

    @classmethod
    def of(cls, invocations: tuple[object, ...], strategy: object, options: dict[str, Any], timeout: object) -> Plan:
        """Check what can be checked without the database."""
        given = tuple(_checked(one, index) for index, one in enumerate(invocations))
        if strategy not in ("fail_fast", "collect_all") and not isinstance(strategy, Threshold):
            raise OptionError(
                f"gather()'s strategy must be 'fail_fast', 'collect_all' or threshold(share), not {strategy!r:.80}."
            )
        options = {name: value for name, value in options.items() if value is not None}
        length = check_timeout(timeout, "gather()'s timeout")
        runs = [[name, len(list(same))] for name, same in groupby(one.job.name for one in given)]
        return cls(given, strategy, options, length, runs)

    @property
    def needed(self) -> float:
        """The share of the children that must succeed."""
        if isinstance(self.strategy, Threshold):
            return self.strategy.share
        return 1.0 if self.strategy == "fail_fast" else 0.0

    def requests(self) -> list[Request]:
        """Return what is to be stored; many children share the options of one job, so they are merged once."""
        jobs = {id(one.job): one.job for one in self.invocations}
        merged = {key: job.options.changed(self.options) for key, job in jobs.items()}
        return [Request(one.job.definition, one.args, one.kwargs, merged[id(one.job)]) for one in self.invocations]


def _checked(item: object, index: int) -> Invocation[Any]:
    if not isinstance(item, Invocation):
        hint = "Write gather(*invocations)." if isinstance(item, (list, tuple)) else "Write job.s(...)."
        raise ArgumentError(
            f"Argument {index} of gather() is {type(item).__name__}, not a durable job with its arguments. {hint}"
        )
    if item.job.options.id is not None:
        raise OptionError(
            f"Child {index} of gather() ({item.job.name}) was given an id: children get theirs here. With a given one "
            "a job could be its own ancestor, or have two parents."
        )
    return item


def form(plan: Plan, ended: Sequence[children.Child]) -> str:
    """Put what became of the children into the form in which it is stored: results are the texts that they stored."""
    rows = [
        [child.id.hex, child.status, child.result, None if child.status == Status.COMPLETED else _why(child)]
        for child in ended
    ]
    what = f"what gather() keeps of its {len(rows)} children"
    return encode({"children": plan.runs, "outcomes": rows}, limit=get_settings().gather_limit, what=what)


def deadline_of(plan: Plan) -> datetime | None:
    """Return when a wait that begins now takes too long, by the database's clock."""
    return None if plan.timeout is None else dialect().now() + plan.timeout


class Wait:
    """A gather whose children are stored: they run, or have ended."""

    def __init__(self, point: Point, plan: Plan, call: str, until: datetime | None) -> None:
        self.point = point
        self.plan = plan
        self.call = call
        self.until = until
        self.since: datetime | None = None
        """When children were last put back into their queues; an order to cancel from before then is over."""
        self.parent = point.job.id
        # Fixed with the children: they are known by these words, and wake the parent by them.
        self.fail_fast = call.startswith(FIRST_FAILURE)

    def run_again_what_failed_an_attempt(self) -> None:
        """Begin anew with the children that did not succeed, if an earlier attempt ended because of them."""
        if part := self.point.anew():
            begun = self.point.begun(self._again, part)
            self.since, self.until = begun["since"], begun["until"]

    def _again(self) -> dict[str, Any]:
        children.run_again(self.parent, self.call)
        return {"since": dialect().now(), "until": deadline_of(self.plan)}

    def look(self) -> Stored:
        """Look at the children, in one transaction, and do what is to be done then."""
        verdict: _Verdict = _Verdict()

        def decide() -> str | None:
            nonlocal verdict
            verdict = self._judge()
            return verdict.text

        stored = self.point.once(decide)
        if stored is not None:
            return stored
        if verdict.error is None:
            raise self.point.park(self.call, self.until)
        return self._give_up(verdict.error)

    def _judge(self) -> _Verdict:
        if self.since is not None:
            # Asked to stop by an earlier attempt, and ended only now: that is not what this attempt has to see.
            old = Q(status=Status.CANCELLED.value, cancel_requested_at__lt=self.since)
            children.run_again(self.parent, self.call, old)
        total = len(self.plan.invocations)
        if self.fail_fast and (failing := children.first_failing(self.parent, self.call)):
            return _Verdict(error=ChildFailed(f"{_named(failing, total)} The other children were cancelled."))
        if any_open(self.parent, self.call):
            if self.until is not None and self.until <= dialect().now():
                took = f"gather() of {total} children took longer than {self.plan.timeout}: those that had not ended"
                return _Verdict(error=TimedOut(f"{took} were cancelled."))
            return _Verdict()
        ended = children.ended(self.parent, self.call)
        if len(ended) != total:
            return _Verdict(error=ChildFailed(f"Only {len(ended)} of {total} children are there: some were deleted."))
        succeeded, needed = sum(child.status == Status.COMPLETED for child in ended), self.plan.needed
        if succeeded / total < needed:
            failing = cast("children.Failing", children.first_failing(self.parent, self.call))
            few = f"{succeeded} of {total} children succeeded, but a share of {needed:g} must."
            return _Verdict(error=ChildFailed(f"{few} The first: {_named(failing, total)}"))
        return _Verdict(text=form(self.plan, ended))

    def _give_up(self, error: Exception) -> NoReturn:
        point, job = self.point, self.point.job
        # In portions, each a transaction on the connection of the checkpoints, which no code of the job has touched.
        while job.recorder.transact(partial(children.cancel_some, job.row, self.call, heed=not job.deaf)):
            pass
        job.recorder.transact(point.give_up)
        raise point.fail(error, point.task)


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What a look at the children has found: the outcome, an error, or that the job goes on waiting."""

    text: str | None = None
    error: Exception | None = None


def _named(failing: children.Failing, total: int) -> str:
    child = failing.child
    return f"Child {failing.place} of {total} ({failing.definition}, {child.id}) is {child.status}: {_why(child)}."


def _why(child: children.Child) -> str:
    return safe_str(child.error or "no error is recorded", ERROR_LENGTH)
