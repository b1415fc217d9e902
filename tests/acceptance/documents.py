"""Fenced blocks of a document, and a project made of them as a reader makes one.

The first line of a Python block is a comment that says where it belongs: a path (the block is added to that file), or
anything else (it is typed into a shell).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.databases import ROOT

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PLACE = re.compile(r"# ([\w/]+\.py)\b")


def blocks(document: str, language: str) -> list[str]:
    """Return the blocks of a document of this repository that are in one language."""
    return [text for found, text in FENCE.findall((ROOT / document).read_text()) if found == language]


@dataclass
class Project:
    """A new Django project in a folder."""

    folder: Path
    app: str
    environment: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        own = {"PYTHONPATH": str(ROOT)}
        foreign = ("DJANGO_", "DURABLE_JOBS_")
        self.environment = {name: text for name, text in os.environ.items() if not name.startswith(foreign)} | own
        self.run("-m", "django", "startproject", "mysite", ".")
        self.run("manage.py", "startapp", self.app)

    def run(self, *arguments: str) -> str:
        """Run Python with these arguments in the project and return its output; it must succeed."""
        ended = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout
        return ended.stdout

    def add(self, block: str) -> bool:
        """Add a block to the file that it names; answer whether it names one."""
        place = PLACE.match(block)
        if place is None:
            return False
        with (self.folder / place[1]).open("a") as file:
            file.write(f"\n\n{block}")
        return True

    def type(self, block: str) -> str:
        """Type a block into a shell of the project and return what that prints."""
        return self.run("manage.py", "shell", "-c", block)

    def worker(self) -> subprocess.Popen[bytes]:
        """Start a worker; its log is added to ``worker.log``."""
        with (self.folder / "worker.log").open("a") as log:
            return subprocess.Popen(
                [sys.executable, "manage.py", "runjobs"],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
