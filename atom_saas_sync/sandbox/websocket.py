"""The marketplace's WebSocket: listeners, messages to them, and malformed streams of frames.

(Contract, section 4.) Frames are built by hand: floods must be as fast as the socket accepts them, and no library sends
malformed frames.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from urllib.parse import parse_qs, quote

from atom_saas_sync.sandbox.catalogue import Json
from atom_saas_sync.sandbox.encoding import to_json
from atom_saas_sync.sandbox.faults import Faults, Strikes, write_deep
from atom_saas_sync.sandbox.journal import Journal, LoggedRequest
from atom_saas_sync.sandbox.sending import REDIRECTED, Receive, Scope, Send, drop
from atom_saas_sync.times import format_time

PATHS = ("/ws", "/api/ws/satellite/connect")
MAX_MESSAGE = 1024 * 1024

_TEXT, _BINARY = 1, 2
_CHUNK = 64 * 1024


def frame(payload: bytes, opcode: int = _TEXT) -> bytes:
    """Return one whole, unmasked frame (RFC 6455, 5.2)."""
    first, length = 0x80 | opcode, len(payload)
    if length < 126:  # noqa: PLR2004 - the three forms of a length
        return struct.pack("!BB", first, length) + payload
    if length < 65536:  # noqa: PLR2004
        return struct.pack("!BBH", first, 126, length) + payload
    return struct.pack("!BBQ", first, 127, length) + payload


def _padded(size: int) -> bytes:
    """Return a valid skill_update of exactly that many bytes."""
    start, end = b'{"type":"skill_update","data":{"skill_id":"padded","name":"padded","code":"', b'"}}'
    return start + b"#" * (size - len(start) - len(end)) + end


def bad_frames() -> dict[str, bytes]:
    """Return frames by name that are malformed, or valid edge cases (`largest` and `unknown_type`)."""
    return {
        "binary": frame(b'{"type":"skill_update","data":{"skill_id":"a","name":"a"}}', _BINARY),
        "not_json": frame(b'{"type":"skill_update","data":{'),
        "empty": frame(b""),
        "not_object": frame(b'["skill_update"]'),
        "no_type": frame(b'{"data":{"skill_id":"a","name":"a"}}'),
        "type_number": frame(b'{"type":7,"data":{}}'),
        "no_data": frame(b'{"type":"skill_update"}'),
        "data_list": frame(b'{"type":"skill_update","data":["a"]}'),
        "no_id": frame(b'{"type":"skill_update","data":{"name":"a"}}'),
        "no_name": frame(b'{"type":"skill_update","data":{"skill_id":"a"}}'),
        "id_dotdot": frame(b'{"type":"skill_delete","data":{"skill_id":".."}}'),
        "rating_nine": frame(b'{"type":"rating_update","data":{"skill_id":"a","rating":9}}'),
        "surrogates": frame(b'{"type":"skill_update","data":{"skill_id":"a\\ud800","name":"\\udfff"}}'),
        "deep": frame(write_deep(b'{"type":"skill_update","data":{"skill_id":"a","name":"a","x":"@@deep@@"}}')),
        "bad_utf8": frame(b'{"type":"skill_update","data":{"skill_id":"a","name":"\xff\xfe"}}'),
        "reserved": frame(b"{}", 3),
        "oversized": frame(_padded(MAX_MESSAGE + 1)),
        "huge": frame(_padded(2 * MAX_MESSAGE)),
        "huge_binary": frame(bytes(2 * MAX_MESSAGE), _BINARY),
        "largest": frame(_padded(MAX_MESSAGE)),
        "unknown_type": frame(b'{"type":"weather_report","data":{"sky":"blue"}}'),
    }


class _Listener:
    """One connected client."""

    def __init__(self, transport: asyncio.Transport, send: Send) -> None:
        self.transport = transport
        self._send = send
        self._closing = False

    def write(self, frames: bytes) -> bool:
        """Write whole frames to the socket; return False if the connection is closed."""
        if self._closing or self.transport.is_closing():
            return False
        self.transport.write(frames)
        return True

    async def drain(self) -> None:
        """Wait until the socket accepts more data, or is closed."""
        if (protocol := self.transport.get_protocol()) is not None:
            writable: asyncio.Event = protocol.writable  # type: ignore[attr-defined]
            await writable.wait()

    async def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake."""
        self._closing = True
        with contextlib.suppress(Exception):  # the client may have disconnected in the meantime
            await self._send({"type": "websocket.close", "code": code, "reason": reason})


class Hub:
    """All listeners. Methods run in the server's event loop unless they say otherwise."""

    def __init__(
        self,
        journal: Journal,
        faults: Faults,
        *,
        token: Callable[[], str],
        now: Callable[[], datetime],
        message_time: Callable[[], datetime],
        ping: float,
    ) -> None:
        self._journal = journal
        self._faults = faults
        self._token = token
        self._now = now
        self._message_time = message_time
        self._ping = ping
        self._listeners: list[_Listener] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.received: list[str | bytes] = []
        self.silent = False
        journal.counters |= dict.fromkeys(("ws_connections", "ws_open", "ws_refused", "ws_received"), 0)

    # Clients

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one client from its handshake to its end."""
        path = scope["raw_path"].decode("ascii")
        query = parse_qs(scope["query_string"].decode("ascii", "replace"))
        given = query.pop("token", [""])[-1]
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        # The query contains the token, so only the rest of it is logged.
        shown = "&".join(f"{quote(name)}={quote(value)}" for name, values in query.items() for value in values)
        entry = self._journal.begin(LoggedRequest("GET", path, shown, "ws", headers))
        strikes = self._faults.take("ws", "GET")
        await receive()
        await asyncio.sleep(strikes.delay())
        transport: asyncio.Transport = scope["state"]["transport"]
        if fault := strikes.get("drop"):
            drop(transport, reset=fault.value == "reset")
        elif strikes.get("hang"):
            await _until_disconnected(receive)
        elif refusal := self._refusal(scope, strikes, given):
            entry.status, more = refusal
            self._count("ws_refused")
            await send({"type": "websocket.http.response.start", "status": entry.status, "headers": more})
            await send({"type": "websocket.http.response.body", "body": b"refused\n"})
        else:
            entry.status = 101
            await send({"type": "websocket.accept"})
            listener = _Listener(transport, send)
            if fault := strikes.get("accept_close"):
                self._count("ws_connections")
                await listener.close(fault.status, "a fault of the sandbox")
                await _until_disconnected(receive)
            else:
                await self._listen(listener, receive)

    def _refusal(self, scope: Scope, strikes: Strikes, given: str) -> tuple[int, list[tuple[bytes, bytes]]] | None:
        path = scope["raw_path"].decode("ascii")
        if fault := strikes.get("error"):
            headers = fault.retry_after_header(self._now())
            return fault.status, [(name.encode(), value.encode()) for name, value in headers]
        if (fault := strikes.get("redirect")) and not path.startswith(REDIRECTED):
            origin = fault.location.rstrip("/")
            if not origin and fault.value == "other":
                origin = f"ws://localhost:{scope['server'][1]}"
            target = f"{origin}{REDIRECTED}{path}?{scope['query_string'].decode('ascii', 'replace')}"
            return fault.status, [(b"location", target.encode())]
        if path.removeprefix(REDIRECTED) not in PATHS:
            return 404, []
        if not hmac.compare_digest(given.encode(), self._token().encode()):
            return 401, []
        return None

    async def _listen(self, listener: _Listener, receive: Receive) -> None:
        self._listeners.append(listener)
        self._count("ws_connections")
        self._count("ws_open")
        pinging = asyncio.create_task(self._keep_pinging(listener))
        try:
            while (event := await receive())["type"] == "websocket.receive":
                message = event.get("text") if event.get("text") is not None else event["bytes"]
                self.received.append(message)
                self._count("ws_received")
                if _is_ping(message) and not self.silent:
                    listener.write(self.message("pong"))
        finally:
            pinging.cancel()
            self._listeners.remove(listener)
            self._count("ws_open", -1)

    async def _keep_pinging(self, listener: _Listener) -> None:
        while True:
            await asyncio.sleep(self._ping)
            if not self.silent:
                listener.write(self.message("ping"))

    def _count(self, name: str, by: int = 1) -> None:
        self._journal.counters[name] += by
        self._journal.notify()

    # Sending

    def message(self, kind: str, data: Json | None = None) -> bytes:
        """Return the frame of one message of the contract. Thread-safe."""
        document = {
            "type": kind,
            **({} if data is None else {"data": data}),
            "timestamp": format_time(self._message_time()),
        }
        return frame(to_json(document))

    def write(self, frames: bytes) -> int:
        """Send frames to all listeners; return their number, 0 while the hub is silent."""
        return 0 if self.silent else sum(listener.write(frames) for listener in self._listeners)

    async def flood(self, frames: Iterable[bytes]) -> int:
        """Send frames as fast as the sockets accept them; return the bytes sent to each listener."""
        sent, chunk, listeners = 0, bytearray(), list(self._listeners)

        async def flush() -> None:
            for listener in listeners:
                listener.write(bytes(chunk))
                await listener.drain()
            chunk.clear()

        for one in frames:
            chunk += one
            sent += len(one)
            if len(chunk) >= _CHUNK:
                await flush()
        await flush()
        return sent

    async def stream(self, frames: Sequence[bytes], per_second: float) -> list[float]:
        """Send frames at a steady rate; return when each was written to the socket (time.monotonic)."""
        sent: list[float] = []
        began = time.monotonic()
        while len(sent) < len(frames):
            due = int((time.monotonic() - began) * per_second) + 1 - len(sent)
            for one in frames[len(sent) : len(sent) + due]:
                sent.append(time.monotonic())
                self.write(one)
            await asyncio.sleep(max(0.0, began + len(sent) / per_second - time.monotonic()))
        return sent

    def close(self, code: int, reason: str) -> None:
        """Close all connections with a closing handshake."""
        for listener in self._listeners:
            task = asyncio.get_running_loop().create_task(listener.close(code, reason))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def drop(self, *, reset: bool) -> None:
        """Break all connections."""
        for listener in self._listeners:
            drop(listener.transport, reset=reset)


async def _until_disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "websocket.disconnect":
        pass


def _is_ping(message: str | bytes) -> bool:
    try:
        document = json.loads(message)
    except ValueError:
        return False
    return isinstance(document, dict) and document.get("type") == "ping"
