"""Fan-out and fan-in: a job stores children, waits for them without a slot, and goes on with what became of them.

The children and the note that they exist are one transaction; so is the outcome of all, as the job first saw it, so
that a replay gives the same whatever becomes of the children later. An attempt that ended because children failed has
seen that for itself only: the next one puts those children back into their queues, and waits again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from uuid import UUID

from ..errors import NonDeterminism, OptionError, TooDeep
from ..operations import children
from ..operations.checkpoints import BEGINNING, BEGUN, fixed_by
from ..operations.enqueue import prepare
from ..operations.wake import LONGEST, children_wait
from ..serialization import decode
from ..states import Status
from .family import Plan, Strategy, Threshold, Wait, deadline_of, form
from .job import Invocation
from .lines import code_line
from .points import Point, elsewhere, here
from .results import ChildResult, Results

if TYPE_CHECKING:
    from ..definitions import Definition
    from ..operations.checkpoints import Stored

R = TypeVar("R")

RUNS_SHOWN: Final = 10


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
    plan = Plan.of(invocations, strategy, {"queue": queue, "retries": retries, "priority": priority}, timeout)
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
    plan = Plan.of(invocations, strategy, {"queue": queue, "retries": retries, "priority": priority}, timeout)
    return elsewhere("gather()", "gather", "gather", partial(_gather, plan=plan))


# The way of a gather -----------------------------------------------------------------------------------------------


def _gather(point: Point, plan: Plan) -> Results[Any]:
    stored = point.recorded(partial(_results, point, plan)) or _outcome(point, plan)
    results = _results(point, plan, stored)
    return cast("Results[Any]", point.replayed(stored)) if results is None else results


def _results(point: Point, plan: Plan, stored: Stored | None) -> Results[Any] | None:
    """Read what became of the children; ``None`` for an error or nothing. They must be those that the code asks for."""
    if stored is None or stored.error is not None:
        if (begun := _begun(point)) is not None:
            _compare(point, plan, begun["children"])
        return None
    outcome = cast("dict[str, Any]", decode(cast("str", stored.result)))
    _compare(point, plan, outcome["children"])
    pairs = zip(plan.invocations, outcome["outcomes"], strict=True)
    return Results(_read(index, one.job.definition, row) for index, (one, row) in enumerate(pairs))


def _read(index: int, definition: Definition, row: list[Any]) -> ChildResult[Any]:
    id_, status, text, error = row
    value = None if text is None else definition.result.decode(text)
    return ChildResult(index, UUID(id_), definition.name, Status(status), error, value)


def _outcome(point: Point, plan: Plan) -> Stored:
    """Return what became of the children, as it is stored from now on; raises the wait, or what the strategy says."""
    new = _begun(point) is None
    if new and not plan.invocations:
        return cast("Stored", point.once(partial(form, plan, [])))
    call = children_wait(point.job.row.generation, point.key, first_failure=plan.strategy == "fail_fast")
    if len(call) > LONGEST:
        raise TooDeep(f"Calls are nested too deep for a gather(): the place of this one is {call}.")
    fresh = False

    def spawn() -> dict[str, Any]:
        nonlocal fresh
        fresh = True
        children.spawn(point.job.row, call, prepared)
        return {"call": call, "children": plan.runs, "until": deadline_of(plan)}

    prepared = prepare(plan.requests()) if new else []
    begun = point.begun(spawn)
    _compare(point, plan, begun["children"])
    wait = Wait(point, plan, begun["call"], begun["until"])
    if fresh:
        # They have only just been stored. Should the last one end this moment, it finds the parent or is found by it.
        raise point.park(wait.call, wait.until)
    wait.run_again_what_failed_an_attempt()
    return wait.look()


def _begun(point: Point) -> dict[str, Any] | None:
    stored = point.job.history.find(f"{point.key}{BEGINNING}", point.name, BEGUN)
    return None if stored is None else cast("dict[str, Any]", fixed_by(cast("str", stored.result)))


def _compare(point: Point, plan: Plan, recorded: list[list[Any]]) -> None:
    if recorded == plan.runs:
        return
    error = NonDeterminism(
        f"Call {point.key} of job {point.job.id} ({point.job.definition}) was recorded as gather() of "
        f"{_described(recorded)}, but the code now gathers {_described(plan.runs)}"
        f"{code_line(point.frame.task)}. What children there are may depend on arguments and on "
        "results of durable calls only."
    )
    # As with a call of another name: swallowing it does not help.
    point.job.history.broken = error
    raise error


def _described(runs: Sequence[Sequence[Any]]) -> str:
    total = sum(count for _name, count in runs)
    shown = [f"{count} x {name}" for name, count in runs[:RUNS_SHOWN]] + ["..."] * (len(runs) > RUNS_SHOWN)
    return f"{total} children ({', '.join(shown)})" if runs else "no children"
