"""The rules of the house that no other tool checks: names, sizes, and where what may stand."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import django_durable_jobs
from tests.databases import ROOT

pytestmark = pytest.mark.once

PACKAGE = Path(django_durable_jobs.__file__).parent
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if "migrations" not in path.parts)
LONGEST = 320
"""Lines of a file of ours; about 300, with room for a docstring."""

PUBLIC = [
    "AlreadyPaused",
    "ApprovalDecided",
    "ApprovalExpired",
    "ApprovalNotFound",
    "ArgumentError",
    "AtomicStep",
    "Backoff",
    "Batch",
    "BatchClosed",
    "BatchNotFound",
    "BatchProgress",
    "CallError",
    "CannotPause",
    "ChildFailed",
    "ChildResult",
    "ChunkItem",
    "Decision",
    "Determinism",
    "DurableJob",
    "DurableJobsError",
    "Explanation",
    "HardTimedOut",
    "HistoryUnreadable",
    "Invocation",
    "JobCancelled",
    "JobContext",
    "JobEnded",
    "JobFailed",
    "JobHandle",
    "JobNotFound",
    "JobPaused",
    "LeaseLost",
    "NoRetry",
    "NonDeterminism",
    "NotLimited",
    "NotPaused",
    "OptionError",
    "Pipeline",
    "Progress",
    "QueueNotEmpty",
    "QueueNotFound",
    "Results",
    "RetryAfter",
    "SerializationError",
    "Snooze",
    "Status",
    "TaskFailed",
    "TimedOut",
    "TransitionRefused",
    "UnknownDefinition",
    "WorkerNotFound",
    "aapprove",
    "acall",
    "acancel",
    "achange_priority",
    "aclear_queue",
    "acompensate",
    "adelete_queue",
    "adrain_queue",
    "aemit",
    "aenqueue",
    "aenqueue_many",
    "aexplain",
    "afork",
    "agather",
    "aget_version",
    "alimit_queue",
    "aload_checkpoint",
    "amove_job",
    "amove_jobs",
    "apatched",
    "apause",
    "apause_queue",
    "apause_worker",
    "approve",
    "aprogress",
    "areject",
    "aresume",
    "aresume_queue",
    "aresume_worker",
    "arequeue",
    "aretry",
    "asave_checkpoint",
    "asend_message",
    "asleep",
    "asleep_until",
    "astop_worker",
    "atomic_step",
    "aunlimit_queue",
    "await_for_approval",
    "await_for_event",
    "await_for_message",
    "blocked_by",
    "call",
    "cancel",
    "change_priority",
    "check_history",
    "clear_queue",
    "compensate",
    "current_job",
    "delete_queue",
    "drain_queue",
    "durable_job",
    "emit",
    "enqueue",
    "enqueue_many",
    "explain",
    "export_history",
    "fork",
    "gather",
    "get_job",
    "get_version",
    "idempotency_key",
    "is_paused",
    "is_pausing",
    "is_queue_paused",
    "limit_fleet",
    "limit_key",
    "limit_queue",
    "load_checkpoint",
    "move_job",
    "move_jobs",
    "new_job_id",
    "patched",
    "pause",
    "pause_queue",
    "pause_worker",
    "paused_jobs",
    "paused_queues",
    "pending_approvals",
    "progress",
    "reject",
    "resume",
    "resume_queue",
    "resume_worker",
    "requeue",
    "retry",
    "save_checkpoint",
    "send_message",
    "sleep",
    "sleep_until",
    "stop_worker",
    "threshold",
    "unlimit_fleet",
    "unlimit_key",
    "unlimit_queue",
    "wait_for_approval",
    "wait_for_event",
    "wait_for_message",
]


JOB_IN_MESSAGE = re.compile(r"\b[Jj]ob %s")


EVERYWHERE = sorted(
    path
    for folder in ("django_durable_jobs", "docs", "example_project", "tests")
    for path in (ROOT / folder).rglob("*.py")
)
LINT_IS_TOLD = re.compile(r"#\s*noqa(?!: [A-Z0-9]+(, ?[A-Z0-9]+)* --? \S)")
TYPES_ARE_TOLD = re.compile(r"#\s*type: ignore(?!\[[a-z,-]+\]  # \S)")


def relative(path: Path) -> str:
    """Name a file as in the docs."""
    return path.relative_to(PACKAGE).as_posix()


def lines_with(pattern: str, *, allowed: set[str]) -> list[str]:
    """Return each place outside of the allowed files whose code matches."""
    return [
        f"{relative(path)}:{number}: {line.strip()}"
        for path in SOURCES
        if not any(relative(path).startswith(prefix) for prefix in allowed)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(pattern, line.partition("  #")[0])
    ]


def test_the_public_names_are_these() -> None:
    """Adding or losing one is a decision, not an accident."""
    assert sorted(django_durable_jobs.__all__) == sorted(PUBLIC)
    assert all(getattr(django_durable_jobs, name) is not None for name in PUBLIC)
    with pytest.raises(AttributeError):
        _ = django_durable_jobs.no_such_name


def test_the_package_imports_before_models_may_load() -> None:
    """Django imports the app's package long before its models."""
    code = "import django_durable_jobs, sys; assert 'django_durable_jobs.models' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_file_is_one_room(path: Path) -> None:
    """A file that outgrows itself becomes a folder."""
    assert len(path.read_text().splitlines()) <= LONGEST


def test_raw_sql_stands_in_dialects_only() -> None:
    """One place knows each database's words."""
    assert lines_with(r"\.cursor\(\)|\bRawSQL\b|\.raw\(", allowed={"dialects/", "checks.py"}) == []


def test_only_the_clock_asks_the_host_for_time() -> None:
    """Stored times are the database's; waits are the clock's."""
    asks = r"\btime\.(time|monotonic|sleep|perf_counter)\(|datetime\.(now|utcnow)\(|timezone\.now\("
    # The portable dialect's pause between two tries of a transaction is a length, not an instant.
    assert lines_with(asks, allowed={"clock.py", "dialects/transactions.py"}) == []


def test_a_status_is_written_by_one_function() -> None:
    """``transition.py``, and the statements that dialects render from the same table."""
    assert (
        lines_with(r"\.update\([^)]*status\s*=|\.status\s*=[^=]", allowed={"dialects/", "operations/transition.py"})
        == []
    )


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_line_of_the_log_about_one_job_carries_its_fields(path: Path) -> None:
    """B7: whoever looks for a job in a log looks by the field, not by the words of the message."""
    tree = ast.parse(path.read_text())
    texts = {
        target.id: node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and ast.unparse(node.func).startswith("logger.") and node.args):
            continue
        first = node.args[0]
        message = texts.get(first.id) if isinstance(first, ast.Name) else getattr(first, "value", "")
        if JOB_IN_MESSAGE.search(str(message)):
            assert "extra" in {keyword.arg for keyword in node.keywords}, f"line {node.lineno}"


def test_whoever_silences_a_rule_says_why() -> None:
    """A test may hand over what the types forbid without a word: that is what it tests."""
    silent = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in EVERYWHERE
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if LINT_IS_TOLD.search(line) or (path in SOURCES and TYPES_ARE_TOLD.search(line))
    ]
    assert silent == []
