"""A server whose responses a test writes byte by byte."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress


class RawServer:
    """Answers each request with the bytes in `answer`, and closes the connection.

    `answer` may also be a function of the request's head. `heads` has the received requests.
    """

    def __init__(self) -> None:
        self.answer: bytes | Callable[[bytes], bytes] = b""
        self.heads: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(60)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                connection.settimeout(5)
                head = _read_request(connection)
                self.heads.append(head)
                answer = self.answer
                connection.sendall(answer(head) if callable(answer) else answer)


def _read_request(connection: socket.socket) -> bytes:
    head, _, body = _until(connection, b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            missing = int(line.split(b":")[1]) - len(body)
            while missing > 0 and (chunk := connection.recv(missing)):
                missing -= len(chunk)
    return head


def _until(connection: socket.socket, mark: bytes) -> tuple[bytes, bytes, bytes]:
    received = b""
    while mark not in received and (chunk := connection.recv(65536)):
        received += chunk
    return received.partition(mark)
