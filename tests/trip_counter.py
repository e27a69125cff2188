"""A proxy between a command and a PostgreSQL server that counts round trips."""

from __future__ import annotations

import socket
import struct
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

_SOCKET = ".s.PGSQL.5432"
_QUERY, _PARSE, _BIND, _SYNC, _FLUSH = b"Q", b"P", b"B", b"S", b"H"

Trip = list[str]
"""The statements that were sent together before the client waited."""


class Trips:
    """The round trips of each connection, without those for connecting."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connections: list[list[Trip]] = []

    def forget(self) -> None:
        """Reset the counts."""
        for each in self.connections:
            each.clear()

    def all(self) -> list[Trip]:
        return [trip for each in self.connections for trip in each]

    def transactions(self, begin: str) -> list[list[Trip]]:
        """Return the round trips of each transaction that begins with these words."""
        found: list[list[Trip]] = []
        for trips in self.connections:
            is_open = False
            for trip in trips:
                if trip and trip[0].startswith(begin):
                    found.append([])
                    is_open = True
                if is_open:
                    found[-1].append(trip)
                is_open = is_open and not {"COMMIT", "ROLLBACK"}.intersection(trip)
        return found


@contextmanager
def counted(url: str) -> Iterator[Trips]:
    """Yield the URL of a socket that forwards to the server of `url`, and its traffic."""
    (target,) = parse_qs(urlsplit(url).query)["host"]
    with tempfile.TemporaryDirectory(prefix="trips", dir="/tmp") as name:
        trips = Trips(url.replace(target, name))
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"{name}/{_SOCKET}")
        listener.listen()
        ends: list[socket.socket] = []
        threads = [threading.Thread(target=_accept, args=(listener, Path(target) / _SOCKET, trips, ends))]
        threads[0].start()
        try:
            yield trips
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            threads[0].join(timeout=60)
            listener.close()
            for each in ends:
                each.close()


def _accept(listener: socket.socket, target: Path, trips: Trips, ends: list[socket.socket]) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        server = socket.socket(socket.AF_UNIX)
        server.connect(str(target))
        ends += client, server
        of_connection: list[Trip] = []
        trips.connections.append(of_connection)
        threading.Thread(target=_pump, args=(server, client, None), daemon=True).start()
        threading.Thread(target=_pump, args=(client, server, of_connection), daemon=True).start()


def _pump(source: socket.socket, drain: socket.socket, trips: list[Trip] | None) -> None:
    """Forward everything until the end; record the round trips."""
    reader = None if trips is None else _Reader(trips)
    with suppress(OSError):
        while data := source.recv(1 << 16):
            if reader is not None:
                reader.read(data)
            drain.sendall(data)
        drain.shutdown(socket.SHUT_WR)


class _Reader:
    """Splits a client's bytes into messages."""

    def __init__(self, trips: list[Trip]) -> None:
        self._trips = trips
        self._buffer = b""
        self._has_begun = False
        self._trip: Trip = []
        self._prepared: dict[bytes, str] = {}

    def read(self, data: bytes) -> None:
        self._buffer += data
        while True:
            kind_bytes = 1 if self._has_begun else 0  # the first message has no type byte
            if len(self._buffer) < kind_bytes + 4:
                return
            end = kind_bytes + struct.unpack_from("!i", self._buffer, kind_bytes)[0]
            if len(self._buffer) < end:
                return
            message, self._buffer = self._buffer[:end], self._buffer[end:]
            if self._has_begun:
                self._take(message[:1], message[5:])
            self._has_begun = True

    def _take(self, kind: bytes, body: bytes) -> None:
        if kind == _QUERY:
            self._trip.append(_words(body))
        elif kind == _PARSE:
            name, text = body.split(b"\0")[:2]
            self._prepared[name] = _words(text)
        elif kind == _BIND:
            self._trip.append(self._prepared.get(body.split(b"\0")[1], "?"))
        if kind in {_QUERY, _SYNC} or (kind == _FLUSH and self._trip):  # an empty flush waits for nothing
            self._trips.append(self._trip)
            self._trip = []


def _words(text: bytes) -> str:
    return " ".join(text.rstrip(b"\0").decode().split())
