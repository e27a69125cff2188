"""A marketplace whose responses a test writes byte by byte; by default it lists three skills and no categories."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

SKILLS = [{"skill_id": f"skill-{number}", "name": f"Skill {number}", "version": "1.0.0"} for number in range(3)]
PAGE = {"skills": SKILLS, "page": 1, "page_size": 1000, "total": len(SKILLS), "total_pages": 1}


@dataclass(frozen=True)
class Request:
    """A received request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


Handler = Callable[[Request, socket.socket], bytes | None]


def answer(body: Any = b"", status: int = 200, **headers: str) -> bytes:
    """Return the bytes of an answer; `_` in a header's name stands for `-`."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"HTTP/1.1 {status} Said", *(f"{name}: {value}" for name, value in named.items())]
    if status not in {204, 304}:
        lines.append(f"Content-Length: {len(data)}")
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + data


@dataclass
class ScriptedMarket:
    """Answers with the result of the handler for the path's prefix; a handler may also write to the socket."""

    handlers: dict[str, Handler] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def variables(self) -> dict[str, str]:
        """Return the settings of a machine that uses this marketplace."""
        return {"ATOM_SAAS_API_URL": self.url, "ATOM_SAAS_WS_URL": self.url.replace("http", "ws", 1) + "/ws"}

    def on(self, beginning: str, handler: Handler | bytes) -> None:
        """Set the response to requests with this path prefix."""
        said = handler
        self.handlers[beginning] = (lambda _request, _connection: said) if isinstance(said, bytes) else said

    def asked(self, beginning: str) -> list[Request]:
        """Return the requests with this path prefix."""
        return [each for each in self.requests if each.path.startswith(beginning)]

    def serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(10)
            request = _read(connection)
            if request is None:
                return
            self.requests.append(request)
            beginning = max((each for each in self.handlers if request.path.startswith(each)), key=len)
            said = self.handlers[beginning](request, connection)
            if said is not None:
                connection.sendall(said)


def _read(connection: socket.socket) -> Request | None:
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = connection.recv(65536)
        if not chunk:
            return None
        received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(65536)
    method, path, _ = first.split(" ", 2)
    return Request(method, path, headers, body)


@contextmanager
def scripted_market() -> Iterator[ScriptedMarket]:
    """Run it during the block."""
    market = ScriptedMarket()
    market.on("/", answer({"status": "healthy"}))
    market.on("/api/v1/categories", answer({"categories": []}))
    market.on("/api/v1/skills", answer(PAGE))
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        market.port = listener.getsockname()[1]

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=market.serve, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield market
        finally:
            market.over.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
