"""``demo --serve``: the admin on this machine, beside the worker, until Ctrl-C."""

from __future__ import annotations

import secrets
import socket
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final

from django.contrib.auth import get_user_model

from demo.children import Child
from demo.errors import DemoError
from demo.waiting import pause

HOST: Final = "127.0.0.1"
FIRST_PORT: Final = 8000
PORTS_TRIED: Final = 50
START_SECONDS: Final = 60
USER: Final = "demo"


class Web(Child):
    """Django's development server."""

    def __init__(self, port: int | None, log: Path) -> None:
        """Start it and wait until it answers."""
        self.port = _free_port(port)
        super().__init__("web server", ["runserver", f"{HOST}:{self.port}", "--noreload"], log)
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.stop()
            raise

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            self.check()
            if time.monotonic() > deadline:
                raise DemoError(f"The web server does not answer after {START_SECONDS} s.")
            pause(0.1)

    @property
    def address(self) -> str:
        """Where the admin is."""
        return f"http://{HOST}:{self.port}/admin/"

    def _answers(self) -> bool:
        connection = HTTPConnection(HOST, self.port, timeout=5)
        try:
            connection.request("GET", "/admin/login/")
            return connection.getresponse().status == 200  # noqa: PLR2004 - OK
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()


def make_superuser() -> str:
    """Make the demo's superuser, or give the one of an earlier demo a new password; return the password."""
    password = secrets.token_urlsafe(9)
    user, _created = get_user_model().objects.update_or_create(
        username=USER, defaults={"is_staff": True, "is_superuser": True, "is_active": True}
    )
    user.set_password(password)
    user.save()
    return password


def _free_port(wanted: int | None) -> int:
    ports = range(FIRST_PORT, FIRST_PORT + PORTS_TRIED) if wanted is None else [wanted]
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise DemoError(f"Port {ports[0]} is in use: choose another one with --port.")
