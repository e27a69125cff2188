"""A link to a server for tests, which can stop to forward."""

from __future__ import annotations

import socket
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

_SOCKET = ".s.PGSQL.5432"


class StuckLink:
    """A proxy that accepts connections to a server, and forwards until it is stuck; later connections are forwarded."""

    def __init__(self, url: str) -> None:
        self._place = tempfile.TemporaryDirectory(prefix="link", dir="/tmp")
        before, _, server = url.partition("?host=")
        directory, separator, rest = server.partition("&")
        self.url = f"{before}?host={self._place.name}{separator}{rest}"
        self._server = str(Path(directory) / _SOCKET)
        self._listener = socket.socket(socket.AF_UNIX)
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._stuck: set[int] = set()

    def __enter__(self) -> Self:
        self._listener.bind(str(Path(self._place.name) / _SOCKET))
        self._listener.listen(16)
        self._start(self._accept)
        return self

    def __exit__(self, *_error: object) -> None:
        for each in (self._listener, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for each in (self._listener, *self._open):
            each.close()
        self._place.cleanup()

    def get_stuck(self) -> None:
        """Forward nothing more on the connections that are open now, and leave them open."""
        self._stuck = {each.fileno() for each in self._open}

    def _start(self, work: object, *arguments: socket.socket) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._server)
            self._open += [client, server]
            self._start(self._forward, client, server)
            self._start(self._forward, server, client)

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if source.fileno() not in self._stuck:
                    target.sendall(data)
        if source.fileno() not in self._stuck:
            with suppress(OSError):
                target.shutdown(socket.SHUT_RDWR)
