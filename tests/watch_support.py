"""Run the real `watch` against a sandbox, and observe it from outside."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from conftest import Machine, wait_until
from loaded_command import Forked

from atom_saas_sync.sandbox import Sandbox

PATIENCE = 60.0
"""How long to wait for an expected event; only a failing test waits this long."""

STOP_PATIENCE = 30.0
"""Well below the minute for which `watch` retries a write: stopping must not wait for that."""


def tables_exist(machine: Machine) -> bool:
    return machine.database.exists()


def websocket_state(machine: Machine) -> dict[str, Any]:
    names = (
        "connected, ws_url, last_connected_at, last_message_at, disconnect_reason, reconnect_attempts, "
        "consecutive_failures, fallback_to_polling, fallback_started_at, next_ws_attempt_at, websocket_enabled, "
        "pid, started_at, stopped_at, heartbeat_at"
    )
    (row,) = machine.sql(f"SELECT {names} FROM websocket_state")
    return dict(zip(names.split(", "), row, strict=True))


def runs(machine: Machine) -> list[tuple[str, str]]:
    return [tuple(row) for row in machine.sql("SELECT kind, status FROM sync_run ORDER BY id")]


def counter(machine: Machine, name: str, **labels: str) -> float:
    rows = machine.sql(
        "SELECT value FROM counter WHERE name = ? AND labels = ?", name, json.dumps(labels, sort_keys=True)
    )
    return rows[0][0] if rows else 0.0


def messages(machine: Machine, kind: str) -> float:
    return counter(machine, "atom_saas_websocket_messages_total", type=kind)


def wait_for_state(machine: Machine, **wanted: Any) -> dict[str, Any]:
    def reached() -> bool:
        state = websocket_state(machine)
        return all(state[name] == value for name, value in wanted.items())

    wait_until(lambda: tables_exist(machine) and reached(), PATIENCE)
    return websocket_state(machine)


def successes(machine: Machine) -> int:
    return int(machine.sql("SELECT count(*) FROM sync_run WHERE kind = 'skills' AND status = 'success'")[0][0])


def wait_for_catch_up(machine: Machine, number: int = 1) -> None:
    wait_until(lambda: tables_exist(machine) and successes(machine) >= number, PATIENCE)


@contextmanager
def watching(machine: Machine, *arguments: str, first: str = "", **variables: str) -> Iterator[Forked]:
    """Run `watch` until it is connected and has caught up; after the block it must stop cleanly when told to."""
    before = successes(machine) if tables_exist(machine) else 0
    with machine.started("watch", *arguments, first=first, **variables) as process:
        wait_for_state(machine, connected=1, pid=process.pid)
        wait_for_catch_up(machine, before + 1)
        yield process
        if process.poll() is None:
            stop(process)


def stop(process: Forked) -> str:
    """Stop it; return its log."""
    process.send_signal(signal.SIGTERM)
    _, logged = process.communicate(timeout=STOP_PATIENCE)
    assert process.returncode == 0, logged
    assert "Traceback" not in logged, logged
    return logged


def told(sandbox: Sandbox, number: int = 1) -> None:
    assert sandbox.wait_for_listeners(number, PATIENCE)


def text_frame(text: bytes) -> bytes:
    """Return a WebSocket message in the form of a server."""
    length = bytes([len(text)]) if len(text) < 126 else b"\x7f" + len(text).to_bytes(8, "big")
    return b"\x81" + length + text


def ping_frame() -> bytes:
    """Return the largest ping of the WebSocket protocol itself."""
    return b"\x89\x7d" + bytes(125)


@contextmanager
def deaf_flood(frame: bytes) -> Iterator[int]:
    """Run a WebSocket server that sends `frame` again and again and reads nothing after the handshake."""
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            with connection, suppress(OSError):
                connection.settimeout(PATIENCE)
                key = re.search(rb"Sec-WebSocket-Key: (\S+)", connection.recv(65536))
                assert key is not None
                accept = base64.b64encode(hashlib.sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
                connection.sendall(
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
                )
                burst = frame * (1 + 60_000 // len(frame))
                while not over.is_set():
                    connection.sendall(burst)

    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0.05)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            thread.join()


def plain(machine: Machine) -> dict[str, Any]:
    """Return everything stored from the marketplace: skills, their digests, categories."""
    return {
        "skills": machine.cached(),
        "digests": dict(machine.sql("SELECT skill_id, hex(content_digest) FROM skill_base")),
        "categories": {
            name: json.loads(text)
            for name, text in machine.sql("SELECT category_name, category_data FROM category_cache")
        },
    }
