"""A proxy before the database of a test, so that one process loses it while others do not.

It forwards bytes between TCP connections on the loopback and the server, can cut them all, refuse new ones, and
come back on the same port. It can also keep the answer to one COMMIT for itself.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Self
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from tests.databases import database_url

PORTS: Final = {"postgresql": 5432, "mariadb": 3306}


class Proxy:
    """Forwards to the database of the default connection; a context manager, down until ``open``."""

    def __init__(self) -> None:
        """Reserve a port."""
        self._url = urlsplit(database_url())
        self._folder = dict(parse_qsl(self._url.query)).get("host")
        self._reserved = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.port = self._reserved.getsockname()[1]
        self._reserved.close()
        self._server: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._lost: set[socket.socket] = set()
        self._guard = threading.Lock()
        self._marker: bytes | None = None
        self.kept_an_answer = threading.Event()
        """Set when the server has answered a COMMIT that nobody will hear of."""

    def keep_answer_to_commit(self, marker: bytes) -> None:
        """Break the first connection that sends ``marker`` and then COMMIT, once the server has done that."""
        self._marker = marker

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """End."""
        self.close()

    @property
    def url(self) -> str:
        """The database as a process reaches it through here."""
        user = self._url.netloc.rpartition("@")[0]
        return urlunsplit((self._url.scheme, f"{user}@127.0.0.1:{self.port}", self._url.path, "", ""))

    def open(self) -> None:
        """Take connections."""
        self._server = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=[self._server], daemon=True).start()

    def swallow(self) -> None:
        """Lose without a word what comes on the present connections, as a firewall does; new ones work."""
        with self._guard:
            self._lost = set(self._open)

    def close(self) -> None:
        """Cut every connection and refuse new ones."""
        with self._guard:
            server, self._server = self._server, None
        if server is not None:
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()
        with self._guard:
            cut, self._open = self._open, set()
        for one in cut:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                client, _address = server.accept()
                upstream = self._connect()
            except OSError:
                return
            with self._guard:
                if self._server is not server:
                    # Cut between the accepting and here: nobody would close these.
                    client.close()
                    upstream.close()
                    return
                self._open |= {client, upstream}
            committing = threading.Event()
            for pump in (self._requests, self._answers):
                threading.Thread(target=pump, args=[client, upstream, committing], daemon=True).start()

    def _requests(self, client: socket.socket, upstream: socket.socket, committing: threading.Event) -> None:
        marked = False

        def look(data: bytes) -> bool:
            nonlocal marked
            marked = marked or (self._marker is not None and self._marker in data)
            if marked and b"COMMIT" in data and not self.kept_an_answer.is_set():
                committing.set()
            return True

        self._pump(client, upstream, look)

    def _answers(self, client: socket.socket, upstream: socket.socket, committing: threading.Event) -> None:
        def look(_data: bytes) -> bool:
            if not committing.is_set() or self.kept_an_answer.is_set():
                return True
            self.kept_an_answer.set()
            return False

        self._pump(upstream, client, look)

    def _connect(self) -> socket.socket:
        port = self._url.port or PORTS.get(self._url.scheme, 0)
        if self._folder is None:
            return socket.create_connection((self._url.hostname or "127.0.0.1", port))
        upstream = socket.socket(socket.AF_UNIX)
        upstream.connect(str(Path(self._folder) / f".s.PGSQL.{port}"))
        return upstream

    def _pump(self, source: socket.socket, target: socket.socket, look: Callable[[bytes], bool]) -> None:
        """Forward until one side ends, or ``look`` says that the data is not to be forwarded."""
        with suppress(OSError):
            while (data := source.recv(65_536)) and look(data):
                if source not in self._lost:
                    target.sendall(data)
        if source in self._lost:
            # That one side has ended is lost as well: a server ends a transaction that is idle for too long.
            return
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
