"""The README and the tutorial do what they say: their Python blocks are put into a new project and run."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from pathlib import Path

import pytest

from tests.acceptance.documents import Project, blocks
from tests.acceptance.example import Example
from tests.databases import current_url, lane_of
from tests.waiting import eventually

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(lane_of(current_url()) != "sqlite", reason="a new project has SQLite: sqlite lane"),
]

TUTORIAL = "docs/tutorial/index.md"

WAIT = """
from django_durable_jobs import JobHandle
from django_durable_jobs.models import Job
JobHandle(Job.objects.latest("id").id, "library.jobs.scan_book").result(timeout=30)
"""


def test_readme_usage_runs_in_a_new_project(tmp_path: Path) -> None:
    project = Project(tmp_path, app="shop")
    typed = [block for block in blocks("README.md", "python") if not project.add(block)]
    project.run("manage.py", "migrate")
    worker = project.worker()
    try:
        (block,) = typed
        assert "completed" in project.type(f"{block}\nprint(job.status)")
        assert "['order 42 reserved', '19.99 paid for order 42']" in project.type(
            "from django_durable_jobs.models import Job\n"
            "from django_durable_jobs import get_job\n"
            "job = Job.objects.get()\n"
            "print(get_job(job.definition).definition.result.decode(job.result))"
        )
        worker.terminate()
        assert worker.wait(30) == 0
    finally:
        worker.kill()
        worker.wait()


def test_readme_commands_exist(tmp_path: Path) -> None:
    commands = [
        shlex.split(line.removeprefix("$ "), comments=True)
        for block in blocks("README.md", "console")
        for line in block.splitlines()
    ]
    demos = [words for words in commands if "example_project/manage.py" in words]
    assert demos
    for words in demos:
        assert words[:2] == ["python", "example_project/manage.py"]
        ended = Example(tmp_path).run(*words[2:], "--help")
        assert ended.exit_code == 0, ended.output


def test_tutorial_works_step_by_step(tmp_path: Path) -> None:
    project = Project(tmp_path, app="library")
    settings, greeting, greet, workflow, enqueue, look = blocks(TUTORIAL, "python")
    log = tmp_path / "scanned.log"

    def pages() -> list[str]:
        return log.read_text().splitlines() if log.exists() else []

    assert project.add(settings)
    project.run("manage.py", "migrate")
    assert "no issues" in project.run("manage.py", "check", "--database", "default")
    assert project.add(greeting)
    first = project.worker()
    try:
        assert "Hello, Ada!" in project.type(greet)
        first.terminate()
        assert first.wait(30) == 0
    finally:
        first.kill()
        first.wait()

    assert project.add(workflow.replace("time.sleep(1)", "time.sleep(0.3)"))
    killed = project.worker()
    try:
        project.type(enqueue)
        eventually(lambda: len(pages()) >= 4, seconds=30)
    finally:
        killed.kill()
        killed.wait()
    before = len(pages())
    second = project.worker()
    try:
        eventually(lambda: len(pages()) > before and "page 10 " in pages()[-1], seconds=60)
        seen = project.type(f"{WAIT}\n{look}")
    finally:
        second.terminate()
        second.wait(30)
    runs = Counter(int(re.match(r"page (\d+) ", line)[1]) for line in pages())  # type: ignore[index]
    assert sorted(runs) == list(range(1, 11))
    assert {page for page, times in runs.items() if times > 1} <= {before}, "only the page in flight ran again"
    assert runs[before] <= 2
    assert f"completed {12 * 55} attempt 2 rescues 1" in seen
    assert str([str(12 * page) for page in range(1, 11)]) in seen
