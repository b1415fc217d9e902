"""Signals of the operating system: the handler sets events and does nothing else."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable


def on_stop(stop: Callable[[], None]) -> None:
    """Call ``stop`` at SIGTERM, SIGINT and SIGHUP. Outside the main thread nothing is installed."""
    if threading.current_thread() is not threading.main_thread():
        return

    def handle(_number: int, _frame: object) -> None:
        stop()

    for name in ("SIGTERM", "SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), handle)
