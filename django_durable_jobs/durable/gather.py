"""Fan-out and fan-in: a job stores children, waits for them without a slot, and goes on with what became of them.

The children and the note that they exist are one transaction; so is the outcome of all, as the job first saw it, so
that a replay gives the same whatever becomes of the children later. An attempt that ended because children failed has
seen that for itself only: the next one puts those children back into their queues, and waits again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, TypeVar, cast
from uuid import UUID

from django.db.models import Q

from ..conf import get_settings
from ..definitions import check_timeout
from ..errors import ArgumentError, ChildFailed, NonDeterminism, OptionError, TimedOut
from ..operations import children
from ..operations.database import dialect
from ..operations.enqueue import Request, prepare
from ..operations.wake import children_wait
from ..rendering import safe_str
from ..serialization import decode, encode
from ..states import Status
from .job import Invocation
from .points import BEGUN, Point, elsewhere, here
from .results import ChildResult, Results

if TYPE_CHECKING:
    from ..definitions import Definition
    from ..operations.checkpoints import Stored

R = TypeVar("R")

ERROR_LENGTH: Final = 500
"""Characters of a child's error that the outcome keeps; all of it stands in the child's row."""
RAISED: Final = "raised"


@dataclass(frozen=True, slots=True)
class Threshold:
    """A share of children that must succeed; made by ``threshold()``."""

    share: float


Strategy = Literal["fail_fast", "collect_all"] | Threshold


def threshold(share: float) -> Threshold:
    """Return the strategy that needs this share of the children to succeed, more than 0 and at most 1."""
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
        raise OptionError(f"threshold() needs a share of more than 0 and at most 1, e.g. 0.8, not {share!r:.80}.")
    return Threshold(float(share))


def gather(
    *invocations: Invocation[R],
    strategy: Strategy = "fail_fast",
    queue: str | None = None,
    retries: int | None = None,
    priority: int | str | None = None,
    timeout: timedelta | float | None = None,
) -> Results[R]:
    """Run children, each a job of its own made by ``child.s(...)``, and return what became of them, in this order.

    The job waits without a slot. All children are stored in one transaction, once; ``queue``, ``retries`` and
    ``priority`` hold for all of them. ``strategy`` says what a failed child means: "fail_fast" cancels the others and
    raises ``ChildFailed``, "collect_all" waits for all and returns, ``threshold(0.8)`` waits for all and raises
    ``ChildFailed`` when fewer than that share succeeded. After ``timeout`` (seconds or timedelta) the open children
    are cancelled and ``TimedOut`` is raised. When such an error ends the attempt, the next attempt runs the children
    again that did not succeed, and no others.

    Raises ``NonDeterminism`` when a replay gives other children than the first run, ``TooDeep`` beyond the setting
    ``CHILD_DEPTH``, ``SerializationError`` when all results together exceed ``GATHER_LIMIT``, and what ``enqueue``
    raises for arguments that do not fit; then no child is stored.
    """
    plan = _Plan.of(invocations, strategy, {"queue": queue, "retries": retries, "priority": priority}, timeout)
    return cast("Results[R]", _gather(here("gather()", "gather", "gather"), plan))


def agather(
    *invocations: Invocation[R],
    strategy: Strategy = "fail_fast",
    queue: str | None = None,
    retries: int | None = None,
    priority: int | str | None = None,
    timeout: timedelta | float | None = None,
) -> Awaitable[Results[R]]:
    """Do what ``gather`` does in an ``async def`` job; several may wait side by side in branches."""
    plan = _Plan.of(invocations, strategy, {"queue": queue, "retries": retries, "priority": priority}, timeout)
    return elsewhere("agather()", "gather", "gather", partial(_gather, plan=plan))


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the code asks for."""

    invocations: tuple[Invocation[Any], ...]
    strategy: Strategy
    options: dict[str, Any]
    timeout: timedelta | None
    runs: list[list[Any]] = field(default_factory=list)
    """The children's definitions in order, each with how many of it follow each other."""

    @classmethod
    def of(cls, invocations: tuple[object, ...], strategy: object, options: dict[str, Any], timeout: object) -> _Plan:
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

    def requests(self) -> list[Request]:
        """Return what is to be stored; many children share the options of one job, so they are merged once."""
        merged = {id(one.job): one.job.options.changed(self.options) for one in self.invocations}
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


# The way of a gather -----------------------------------------------------------------------------------------------


def _gather(point: Point, plan: _Plan) -> Results[Any]:
    stored = point.recorded()
    if stored is None:
        stored = _outcome(point, plan)
    if stored.error is not None:
        if (begun := _begun(point)) is not None:
            _compare(point, plan, begun["children"])
        return cast("Results[Any]", point.replayed(stored))
    outcome = cast("dict[str, Any]", decode(cast("str", stored.result)))
    _compare(point, plan, outcome["children"])
    pairs = zip(plan.invocations, outcome["outcomes"], strict=True)
    return Results(_read(index, one.job.definition, row) for index, (one, row) in enumerate(pairs))


def _read(index: int, definition: Definition, row: list[Any]) -> ChildResult[Any]:
    id_, status, text, error = row
    value = None if text is None else definition.result.decode(text)
    return ChildResult(index, UUID(id_), definition.name, Status(status), error, value)


def _outcome(point: Point, plan: _Plan) -> Stored:
    """Return what became of the children, as it is stored from now on; raises the wait, or what the strategy says."""
    new = _begun(point) is None
    if new and not plan.invocations:
        return cast("Stored", point.once(partial(_form, plan, [])))
    call = children_wait(point.job.row.generation, point.key, first_failure=plan.strategy == "fail_fast")
    fresh = False

    def spawn() -> dict[str, Any]:
        nonlocal fresh
        fresh = True
        children.spawn(point.job.row, call, prepared)
        return {"call": call, "children": plan.runs, "until": _until(plan)}

    prepared = prepare(plan.requests()) if new else []
    begun = point.begun(spawn)
    _compare(point, plan, begun["children"])
    wait = _Wait(point, plan, begun["call"], begun["until"])
    if fresh:
        # They have only just been stored. Should the last one end this moment, it finds the parent or is found by it.
        raise point.park(wait.call, wait.until)
    wait.run_again_what_failed_an_attempt()
    return wait.look()


def _begun(point: Point) -> dict[str, Any] | None:
    stored = point.job.history.find(f"{point.key}.{BEGUN}", point.name, "begun")
    return None if stored is None else cast("dict[str, Any]", decode(cast("str", stored.result)))


def _until(plan: _Plan) -> datetime | None:
    return None if plan.timeout is None else dialect().now() + plan.timeout


def _compare(point: Point, plan: _Plan, recorded: list[list[Any]]) -> None:
    if recorded == plan.runs:
        return
    error = NonDeterminism(
        f"Call {point.key} of job {point.job.id} ({point.job.definition}) was recorded as gather() of "
        f"{_described(recorded)}, but the code now gathers {_described(plan.runs)}. What children there are may "
        "depend on arguments and on results of durable calls only."
    )
    # As with a call of another name: swallowing it does not help.
    point.job.history.broken = error
    raise error


def _described(runs: Sequence[Sequence[Any]]) -> str:
    total = sum(count for _name, count in runs)
    shown = ", ".join(f"{count} x {name}" for name, count in runs[:10])
    return f"{total} children ({shown}{', ...' if len(runs) > 10 else ''})" if runs else "no children"  # noqa: PLR2004


def _form(plan: _Plan, ended: Sequence[children.Child]) -> str:
    """Put what became of the children into the form in which it is stored: results are the texts that they stored."""
    rows = [
        [child.id.hex, child.status, child.result, None if child.status == Status.COMPLETED else _why(child)]
        for child in ended
    ]
    what = f"what gather() keeps of its {len(rows)} children"
    return encode({"children": plan.runs, "outcomes": rows}, limit=get_settings().gather_limit, what=what)


class _Wait:
    """A gather whose children are stored: they run, or have ended."""

    def __init__(self, point: Point, plan: _Plan, call: str, until: datetime | None) -> None:
        self.point = point
        self.plan = plan
        self.call = call
        self.until = until
        self.since: datetime | None = None
        """When children were last put back into their queues; an order to cancel from before then is over."""
        self.parent = point.job.id

    def run_again_what_failed_an_attempt(self) -> None:
        """Begin anew with the children that did not succeed, if an earlier attempt ended because of them."""
        find, attempt = self.point.job.history.find, self.point.job.attempt
        earlier = range(attempt - 1, 0, -1)
        key = f"{self.point.key}.{BEGUN}"
        last = next((one for one in earlier if find(f"{key}.{one}", self.point.name, "begun") is not None), None)
        if last is not None:
            begun = self.point.begun(self._again, part=f"{last}.{BEGUN}")
            self.since, self.until = begun["since"], begun["until"]

    def _again(self) -> dict[str, Any]:
        children.run_again(self.parent, self.call)
        return {"since": dialect().now(), "until": _until(self.plan)}

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
        if self.plan.strategy == "fail_fast" and (failing := children.first_failing(self.parent, self.call)):
            return _Verdict(error=ChildFailed(f"{_named(failing, total)} The other children were cancelled."))
        if children.any_open(self.parent, self.call):
            if self.until is not None and self.until <= dialect().now():
                took = f"gather() of {total} children took longer than {self.plan.timeout}: those that had not ended"
                return _Verdict(error=TimedOut(f"{took} were cancelled."))
            return _Verdict()
        ended = children.ended(self.parent, self.call)
        if len(ended) != total:
            return _Verdict(error=ChildFailed(f"Only {len(ended)} of {total} children are there: some were deleted."))
        succeeded = sum(child.status == Status.COMPLETED for child in ended)
        if isinstance(self.plan.strategy, Threshold) and succeeded / total < self.plan.strategy.share:
            failing = cast("children.Failing", children.first_failing(self.parent, self.call))
            few = f"{succeeded} of {total} children succeeded, but a share of {self.plan.strategy.share:g} must."
            return _Verdict(error=ChildFailed(f"{few} The first: {_named(failing, total)}"))
        return _Verdict(text=_form(self.plan, ended))

    def _give_up(self, error: Exception) -> NoReturn:
        point, job = self.point, self.point.job
        # In portions, each a transaction on the connection of the checkpoints, which no code of the job has touched.
        while job.recorder.transact(partial(children.cancel_some, job.row, self.call, heed=not job.deaf)):
            pass
        point.begun(lambda: RAISED, part=str(point.job.attempt))
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
