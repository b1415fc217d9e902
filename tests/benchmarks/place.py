"""Where a measurement takes place: the database, Redis and the marks file, handed on in the environment.

Marks are lines of integers that job bodies append to a file, so that a body can tell the measuring process when it
ran without touching the database that is being measured.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

ROOT = Path(__file__).resolve().parents[2]
QUEUE = "bench"
CONCURRENCY = 10


@dataclass(frozen=True)
class Place:
    """One fresh database (PostgreSQL or SQLite URL), optionally a Redis, and the marks file."""

    database: str
    marks: Path
    redis: str = ""

    @classmethod
    def current(cls) -> Place:
        """Return the place that the parent process wrote into the environment."""
        return cls(
            database=os.environ["BENCH_DATABASE_URL"],
            marks=Path(os.environ["BENCH_MARKS"]),
            redis=os.environ.get("BENCH_REDIS_URL", ""),
        )

    def environ(self) -> dict[str, str]:
        """Return the environment of a child process that works at this place."""
        return {
            **os.environ,
            "BENCH_DATABASE_URL": self.database,
            "BENCH_MARKS": str(self.marks),
            "BENCH_REDIS_URL": self.redis,
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }

    def read_marks(self) -> list[tuple[int, ...]]:
        """Return every complete line that bodies have written so far."""
        if not self.marks.exists():
            return []
        lines = self.marks.read_text().split("\n")[:-1]
        return [tuple(int(field) for field in line.split()) for line in lines]


def mark(*numbers: int) -> None:
    """Append one line to the marks file; a line this short is written whole, whichever processes write at once."""
    handle = os.open(os.environ["BENCH_MARKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(handle, (" ".join(map(str, numbers)) + "\n").encode())
    finally:
        os.close(handle)


def module_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module with this interpreter."""
    return [sys.executable, "-m", module, *arguments]


def django_database(url: str) -> dict[str, object]:
    """Return Django's ``DATABASES`` entry for a PostgreSQL or SQLite URL."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": unquote(parts.path)}
    query = parse_qs(parts.query)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": query.get("host", [parts.hostname or ""])[0],
        "PORT": str(parts.port or ""),
    }
