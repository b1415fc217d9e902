"""The table: medians with lowest and highest, and how ours compares, as the median of the rounds' own ratios."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import psutil

from tests.benchmarks.figures import Figure, Metric
from tests.benchmarks.runner import Result, installed

START, END = "<!-- benchmark:start -->", "<!-- benchmark:end -->"
TOOLS = (
    "Django",
    "psycopg",
    "msgspec",
    "pgqueuer",
    "asyncpg",
    "procrastinate",
    "django-tasks-db",
    "dbos",
    "huey",
    "celery",
)


def heading(server: str, rounds: int) -> str:
    """Return when, where and with what it was measured."""
    versions = [f"{name} {version}" for name in TOOLS if (version := installed(name))]
    memory = psutil.virtual_memory().total / 2**30
    machine = f"{psutil.cpu_count()} cores {platform.machine()}, {memory:.0f} GiB, Python {platform.python_version()}"
    return "\n".join(
        (
            f"Measured on {datetime.now(UTC):%Y-%m-%d}, {rounds} rounds in turn, on {machine}.",
            "",
            f"{server}. {', '.join(versions)}.",
        )
    )


def table(figure: Figure, results: Iterable[Result]) -> str:
    """Return one figure as a Markdown table."""
    results = list(results)
    reference = next(result for result in results if result.contender.ours)
    columns = [column for metric in figure.metrics for column in (f"{metric.name}, {metric.unit}", "ours ÷ it")]
    lines = [
        f"### {figure.title} (`{figure.name}`)",
        "",
        f"| | {' | '.join(columns)} |",
        f"|---|{'---:|' * len(columns)}",
    ]
    for result in results:
        cells = [
            cell for metric in figure.metrics for cell in (spread(result, metric), ratio(reference, result, metric))
        ]
        lines.append(f"| {result.contender.label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def values(result: Result, metric: Metric) -> list[float]:
    """Return a metric of the rounds that have it."""
    return [metrics[metric.name] for metrics in result.rounds if metrics]


def spread(result: Result, metric: Metric) -> str:
    """Return the median with the lowest and the highest, and why a round failed, if one did."""
    found = values(result, metric)
    if not found:
        return result.reason or "-"
    middle = number(statistics.median(found))
    cell = middle if len(found) == 1 else f"{middle} ({number(min(found))} to {number(max(found))})"
    return f"{cell}; then {result.reason}" if result.reason else cell


def ratio(reference: Result, result: Result, metric: Metric) -> str:
    """Return the median of ours divided by the other, round by round."""
    pairs = zip(reference.rounds, result.rounds, strict=False)
    found = [ours[metric.name] / other[metric.name] for ours, other in pairs if ours and other and other[metric.name]]
    if not found or result is reference:
        return ""
    return f"{statistics.median(found):.2f}"


def number(value: float) -> str:
    """Return a number with as many digits as mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def write(path: Path, text: str) -> None:
    """Replace the section between the two markers of a page."""
    page = path.read_text()
    before, rest = page.split(START, 1)
    after = rest.split(END, 1)[1]
    path.write_text(f"{before}{START}\n\n{text.strip()}\n\n{END}{after}")
