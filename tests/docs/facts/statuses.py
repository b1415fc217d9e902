"""Statuses and verbs, as a table and as a picture, from `states.py`."""

from __future__ import annotations

import math
from collections import defaultdict
from html import escape
from typing import Final, NamedTuple

from django_durable_jobs.states import FINAL, PAUSABLE, TRANSITIONS, Actor, Status
from tests.docs.facts.markdown_tables import code, listed, markdown_table

MEANINGS: Final[dict[Status, str]] = {
    Status.SCHEDULED: "due later: `run_at` says when (`delay`, `run_at`, `Snooze`)",
    Status.PENDING: "waits in its queue for a worker",
    Status.RUNNING: "a worker holds it under a lease",
    Status.WAITING: "parked until something outside happens: a time, a message, the end of children",
    Status.RETRYING: "an attempt failed; `run_at` says when the next one is due",
    Status.PAUSED: "held back by an operator",
    Status.COMPLETED: "the function returned; its result is stored",
    Status.FAILED: "no attempt is left, or none was wanted: the dead letters",
    Status.CANCELLED: "ended by an operator",
    Status.EXPIRED: "had not begun in time",
}
ACTORS: Final[dict[Actor, str]] = {
    Actor.OWNER: "the worker that holds the lease, with its token",
    Actor.SYSTEM: "any worker",
    Actor.OPERATOR: "an operator, or the project's code",
}
EFFECTS: Final[dict[str, str]] = {
    "claim": "a worker takes it: attempt + 1, token + 1",
    "complete": "the function returned",
    "fail": "it raised, and no attempt is left or wanted",
    "back_off": "it raised, and attempts are left",
    "snooze": "it raised `Snooze`; the attempt is given back",
    "release": "the worker stops, or holds it without need; the attempt is given back",
    "rescue": "the lease is over: it goes back to its queue",
    "give_up": "the lease is over and no attempt is left",
    "promote": "`run_at` has come",
    "park": "its code waits for something outside; the attempt is given back",
    "wake": "what it waited for has come",
    "stop": "the holder obeys an order to cancel",
    "expire": "a worker's chore, of a job that nobody has begun by its `expires_at`",
    "cancel": "`cancel(job)`, of a job that does not run",
    "abort": "`cancel(job, force=True)`, of a running job: its lease is over",
    "recall": "`cancel(job)`, of a job whose compensations must run first",
    "retry": "`retry(job)`, or the admin's action; at least one more attempt",
    "line_up": "the same, of a job that has no place in its line: it waits for its turn",
    "put_off": "a look at a concurrency key whose rate is used up: it lines up again when it may begin",
    "line_up_due": "a worker's promoter, of a job with a `concurrency` when its time has come: it waits for a place",
    "pause": "`pause(job)`, of a job that does not run; it remembers where it was",
    "seize": '`pause(job, mode="aggressive")`, of a running job: its lease is over, the attempt is given back',
    "take_away": "an aggressive pause of its queue or worker: its lease is over, the attempt is given back",
    **{f"resume_{status}": f"`resume(job)`, of a job that was paused while it was {status}" for status in PAUSABLE},
}
PICTURE_NAME: Final = "statuses.svg"
"""The diagram, beside the page that shows it."""
BEGINNINGS: Final = frozenset({Status.PENDING, Status.SCHEDULED})
"""What an enqueue stores."""


def reachable() -> list[Status]:
    """Return the statuses that something leads to now; the others are kept for what comes later."""
    reached = {rule.target for rule in TRANSITIONS.values()} | BEGINNINGS
    return [status for status in Status if status in reached]


def table() -> str:
    """Return the table of statuses."""
    rows = []
    for status in Status:
        into = [verb for verb, rule in TRANSITIONS.items() if rule.target is status]
        out = [verb for verb, rule in TRANSITIONS.items() if status in rule.sources]
        entry = (["enqueue"] if status in BEGINNINGS else []) + into
        meaning = MEANINGS[status] + ("" if status in reachable() else " (not yet: nothing leads here)")
        rows.append([code(status), meaning, listed(entry), listed(out), "yes" if status in FINAL else ""])
    return markdown_table(["status", "the job", "comes here by", "leaves by", "final"], rows)


def transitions() -> str:
    """Return the table of verbs."""
    rows = [
        [code(verb), listed(sorted(rule.sources)), code(rule.target), ACTORS[rule.actor], EFFECTS[verb]]
        for verb, rule in TRANSITIONS.items()
    ]
    return markdown_table(["verb", "from", "to", "who may", "what happened"], rows)


# The picture --------------------------------------------------------------------------------------------------

WIDTH: Final = 860
HEIGHT: Final = 680
WORDS: Final = 438
"""Where the words at the bottom begin."""
BOX: Final = (120, 40)
PLACES: Final[dict[Status, tuple[int, int]]] = {
    Status.SCHEDULED: (280, 60),
    Status.PENDING: (110, 190),
    Status.RUNNING: (450, 190),
    Status.RETRYING: (290, 280),
    Status.WAITING: (450, 370),
    Status.PAUSED: (110, 370),
    Status.COMPLETED: (740, 90),
    Status.FAILED: (740, 250),
    Status.CANCELLED: (740, 370),
    Status.EXPIRED: (450, 490),
}
"""Centres of the boxes. A status that becomes reachable needs one; the generator says so."""
BENDS: Final[dict[tuple[Status, Status], int]] = {
    (Status.PENDING, Status.RUNNING): 24,
    (Status.RUNNING, Status.PENDING): 24,
    (Status.WAITING, Status.PENDING): -60,
    (Status.RUNNING, Status.CANCELLED): 10,
}
"""How far an arrow swings out to its left, in pixels; straight unless said."""


UNDRAWN: Final = {
    "expire": "expire: from scheduled, pending, waiting and paused, to expired",
    "cancel": "cancel: from every status that is not final, except running, to cancelled",
    "recall": "recall: the same statuses except pending, to pending",
    "retry": "retry: from failed, cancelled, expired and retrying, to pending",
    "line_up": "line_up: from failed, cancelled, expired and retrying, to waiting",
    "put_off": "put_off: from waiting to scheduled",
    "line_up_due": "line_up_due: from scheduled and retrying, to waiting",
    "pause": "pause: from pending, scheduled, retrying and waiting, to paused; resume leads back",
    "seize": "seize: from running to paused",
    "take_away": "take_away: from running to pending",
    **{f"resume_{status}": f"resume_{status}: from paused to {status}" for status in sorted(PAUSABLE)},
}
"""Verbs that lead from many statuses to one: said in words at the bottom of the picture."""


class _Point(NamedTuple):
    x: float
    y: float


def picture() -> str:
    """Return the diagram of statuses as SVG."""
    if missing := [status for status in reachable() if status not in PLACES]:
        raise SystemExit(f"Give {', '.join(missing)} a place in the diagram: tests/docs/facts/statuses.py")
    arrows: dict[tuple[Status, Status], list[str]] = defaultdict(list)
    for verb, rule in TRANSITIONS.items():
        for source in sorted(rule.sources & PLACES.keys()):
            if verb not in UNDRAWN:
                arrows[source, rule.target].append(verb)
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="13" role="img">',
        "<title>Statuses of a job and the verbs between them</title>",
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto">',
        '<path d="M0 0 10 5 0 10z" fill="#555"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="#fff"/>',
        *(_entry(status) for status in Status if status in BEGINNINGS),
        *(_arrow(source, target, verbs) for (source, target), verbs in arrows.items()),
        *(_box(status) for status in reachable()),
        *(
            f'<text x="20" y="{WORDS + 18 * line}" fill="#111">{escape(words)}</text>'
            for line, words in enumerate(UNDRAWN.values())
        ),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _box(status: Status) -> str:
    (x, y), (width, height) = PLACES[status], BOX
    fill = "#e8eef7" if status not in FINAL else "#eee"
    stroke = "2.5" if status in FINAL else "1"
    return (
        f'<rect x="{x - width // 2}" y="{y - height // 2}" width="{width}" height="{height}" rx="6" fill="{fill}" '
        f'stroke="#345" stroke-width="{stroke}"/><text x="{x}" y="{y + 5}" text-anchor="middle" font-weight="bold" '
        f'fill="#111">{escape(status.value)}</text>'
    )


def _entry(status: Status) -> str:
    """An arrow from outside: what an enqueue stores."""
    x, y = PLACES[status]
    end = x - BOX[0] / 2
    if status is Status.PENDING:
        top = y - BOX[1] / 2
        return _line(f"M{x} {top - 50} L{x} {top - 2}") + _label(_Point(x, top - 56), ["enqueue"])
    return _line(f"M{end - 60} {y} L{end - 2} {y}") + _label(_Point(end - 92, y + 4), ["enqueue"])


def _arrow(source: Status, target: Status, verbs: list[str]) -> str:
    start, end = _Point(*PLACES[source]), _Point(*PLACES[target])
    length = math.dist(start, end)
    across = _Point((end.y - start.y) / length, -(end.x - start.x) / length)
    bend = BENDS.get((source, target), 0)
    middle = _Point((start.x + end.x) / 2 - across.x * bend, (start.y + end.y) / 2 - across.y * bend)
    # A quadratic curve passes half-way between its control point and the chord.
    control = _Point(2 * middle.x - (start.x + end.x) / 2, 2 * middle.y - (start.y + end.y) / 2)
    begin, stop = _border(start, control), _border(end, control)
    path = f"M{begin.x:.0f} {begin.y:.0f} Q{control.x:.0f} {control.y:.0f} {stop.x:.0f} {stop.y:.0f}"
    return _line(path) + _label(middle, verbs)


def _border(centre: _Point, towards: _Point) -> _Point:
    """Return where the way from the centre of a box leaves it, with two pixels of air."""
    away = _Point(towards.x - centre.x, towards.y - centre.y)
    reach = min(
        (BOX[0] / 2 + 2) / abs(away.x) if away.x else math.inf, (BOX[1] / 2 + 2) / abs(away.y) if away.y else math.inf
    )
    return _Point(centre.x + away.x * reach, centre.y + away.y * reach)


def _line(path: str) -> str:
    return f'<path d="{path}" fill="none" stroke="#555" stroke-width="1.3" marker-end="url(#tip)"/>'


def _label(place: _Point, verbs: list[str]) -> str:
    text = escape(", ".join(verbs))
    half = 3.6 * len(text) + 4
    return (
        f'<rect x="{place.x - half:.0f}" y="{place.y - 9:.0f}" width="{2 * half:.0f}" height="18" fill="#fff"/>'
        f'<text x="{place.x:.0f}" y="{place.y + 4:.0f}" text-anchor="middle" fill="#111">{text}</text>'
    )
