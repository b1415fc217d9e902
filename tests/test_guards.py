"""The runner of guards itself: it must not call a guard noticed that is not.

It runs here on harmless guards of its own, in a plain calculation that needs no database.
"""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest

from tests.guard_trials import BadGuards
from tests.guards import main, read_guards

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

CAP = "min(cap, base * (n + 1))"
ENTRY = {
    "proves": ["X0"],
    "file": "django_durable_jobs/backoff.py",
    "find": CAP,
    "replace": "base * (n + 1)",
    "test": "tests/words/test_backoff.py::test_linear_adds_up_to_the_cap",
    "lane": "sqlite",
}


def written(folder: Path, **entries: dict[str, object]) -> Path:
    """Write a file of guards: each is `ENTRY` with some fields changed."""
    file = folder / "guards.toml"
    lines = []
    for name, changes in entries.items():
        lines.append("[[guard]]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in {"name": name, **ENTRY, **changes}.items()]
    file.write_text("\n".join(lines))
    return file


def run(file: Path, *words: str) -> tuple[int, str]:
    """Run the command on a file of guards; return its exit code and what it said."""
    out = io.StringIO()
    return main([f"--file={file}", *words], out), out.getvalue()


@pytest.mark.timeout(120)
def test_only_a_failed_assertion_of_a_passing_test_counts_as_noticed(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        noticed={},
        unnoticed={"find": '"""Return the rule that retries at once."""', "replace": '""""""'},
        stale={"find": "no such text"},
        occurring_twice={"find": "import Callable", "count": 2},
        not_importable={"find": "class Backoff:", "replace": "class Another:"},
        broken={"replace": "no_such_name"},
        broken_on_purpose={"replace": "no_such_name", "fails_with": "NameError"},
    )
    exit_code, said = run(file)
    table = said.partition("## Guards ##")[2]
    found = {line.split()[0]: line for line in table.splitlines() if "X0" in line}
    assert {name: line.partition("X0")[2].strip() for name, line in found.items()} == {
        "noticed": "noticed",
        "unnoticed": "UNNOTICED",
        "stale": "STALE",
        "occurring_twice": "STALE",
        "not_importable": "BROKEN, not noticed",
        "broken": "BROKEN, not noticed",
        "broken_on_purpose": "noticed",
    }
    assert "2 guards noticed, 5 wrong" in table
    assert exit_code == 1


def test_the_run_passes_when_every_guard_is_noticed(tmp_path: Path) -> None:
    exit_code, said = run(written(tmp_path, noticed={}))
    assert (exit_code, "1 guards noticed, 0 wrong" in said) == (0, True), said


def test_a_test_that_does_not_run_as_the_code_is_proves_nothing(tmp_path: Path) -> None:
    file = written(tmp_path, lost={"test": "tests/words/test_backoff.py::test_that_was_renamed"})
    exit_code, said = run(file)
    assert exit_code == 1
    assert "its test does not pass as the code is" in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no guard"),
        ("[[guard]]\nname = 'a'", "unknown or missing"),
        ("[[guard]]\nfind = 'b'\nreplace = 'b'\nname = 'a'", "unknown or missing"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "guards.toml"
    file.write_text(text)
    exit_code, said = run(file)
    assert exit_code == 1
    assert words in said


def test_a_guard_that_takes_nothing_away_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadGuards, match="nothing to take away"):
        read_guards(written(tmp_path, idle={"replace": CAP}))
