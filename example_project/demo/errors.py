"""What ends a demo early. The command turns each into one line and an exit code."""

from __future__ import annotations


class DemoError(Exception):
    """The demo cannot go on; the message is for the user and says what to do."""


class Interrupted(Exception):
    """The user (or the system) asked for the end by a signal."""

    def __init__(self, number: int) -> None:
        """Take the signal's number."""
        super().__init__(f"signal {number}")
        self.number = number


def first_line(error: BaseException) -> str:
    """Return an error as one line; database drivers like to write several."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}…"  # noqa: PLR2004 - a line
