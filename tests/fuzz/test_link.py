"""The WebSocket under arbitrary bytes, and the connection under any order of events."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import math
import re

from hypothesis import example, given
from hypothesis import strategies as st
from inputs import broken, frames, fuzzing, tried

from atom_saas_sync.core.connection import Command, ConnectionRules, ConnectionState
from atom_saas_sync.core.incoming.messages import Malformed, Message, parse_frame
from atom_saas_sync.errors import WebSocketClosed
from atom_saas_sync.marketplace.websocket import open_link

TOKEN = "at_saas_fuzz_0004"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def frame(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    """Return a frame as servers send it."""
    first = bytes([(0x80 if final else 0) | opcode])
    if len(payload) < 126:
        return first + bytes([len(payload)]) + payload
    return first + b"\x7e" + len(payload).to_bytes(2) + payload


def _closing(code: int, reason: bytes) -> bytes:
    return frame(8, code.to_bytes(2) + reason[:120])


def _control(opcode: int, payload: bytes, flags: int, announced: int) -> bytes:
    """Return a control frame with these flags (final, reserved, masked), and maybe another length than it has."""
    size = len(payload) if announced < 0 else announced
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2)
    return bytes([(flags & 0xF0) | opcode]) + bytes([length[0] | (flags & 1) << 7]) + length[1:] + payload


_FLAGS = st.sampled_from([0x80, 0x80, 0x80, 0x00, 0xC0, 0x90, 0xF0, 0x81])
_controls = st.builds(
    _control,
    st.sampled_from([8, 9, 9, 10, 11, 15]),
    st.one_of(st.binary(max_size=125), st.binary(min_size=126, max_size=300), st.just(TOKEN.encode())),
    _FLAGS,
    st.sampled_from([-1, -1, -1, 0, 1, 125, 126, 65535]),
)
_control_streams = st.lists(
    st.one_of(
        _controls,
        st.tuples(_controls, st.integers(1, 200)).map(lambda many: many[0] * many[1]),
        st.builds(frame, st.sampled_from([0, 1]), st.binary(max_size=20), final=st.booleans()),
    ),
    max_size=8,
).map(b"".join)


@fuzzing(60)
@given(_control_streams)
@example(_control(9, b"x" * 125, 0x80, -1) * 5000)
@example(frame(1, b"{", final=False) + _control(9, b"", 0x80, -1) + _control(8, b"\x03", 0x80, -1))
def test_control_frames(stream: bytes) -> None:
    tried["WebSocket control frames"] += 1
    check_end(asyncio.run(listen_to(None, stream)))


_texts = frames().map(lambda text: frame(1, text.encode(errors="replace")[:60_000]))
_frames = st.one_of(
    _texts,
    _texts,
    st.builds(frame, st.integers(0, 15), st.binary(max_size=130), final=st.booleans()),
    st.builds(_closing, st.sampled_from([1000, 1001, 1005, 1008, 4401, 0, 65535]), st.binary(max_size=130)),
    st.just(_closing(1008, f"no {TOKEN}\x1b[2J".encode())),
    st.just(b"\x81\x7f" + b"\xff" * 8),
    st.just(b"\x81\x7f" + (2**20 + 1).to_bytes(8)),
)
_streams = st.lists(_frames, max_size=6).map(b"".join)


def handshake(accept: bytes) -> bytes:
    head = (b"HTTP/1.1 101 Go", b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Accept: " + accept)
    return b"\r\n".join([*head, b"", b""])


async def listen_to(opening: bytes | None, stream: bytes) -> WebSocketClosed:
    """Connect to a server that answers the handshake with `opening`, or correctly, and then sends the stream; return
    the end.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        key = re.search(rb"(?i)sec-websocket-key: (\S+)", asked)
        assert key is not None
        right = handshake(base64.b64encode(hashlib.sha1(key[1] + _GUID).digest()))
        writer.write((right if opening is None else opening) + stream)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        try:
            link = await open_link(f"ws://127.0.0.1:{port}/ws", TOKEN, on_frame=lambda: None, handshake_seconds=5)
            while True:
                assert isinstance(parse_frame(await link.receive()), Message | Malformed)
        except WebSocketClosed as ended:
            return ended


def check_end(ended: WebSocketClosed) -> None:
    assert ended.message.isprintable()
    assert len(ended.message) < 250
    assert TOKEN not in ended.message


@fuzzing(100)
@given(st.one_of(_streams, broken(_streams), st.binary(max_size=100)))
def test_any_bytes_after_the_handshake(stream: bytes) -> None:
    tried["bytes after a WebSocket's handshake"] += 1
    check_end(asyncio.run(listen_to(None, stream)))


@fuzzing(40)
@given(st.one_of(broken(st.just(handshake(b"x" * 28))), st.binary(max_size=100)))
@example(b"HTTP/1.1 403 " + TOKEN.encode() + b"\r\n\r\n")
@example(b"HTTP/1.1 302 x\r\nLocation: //[::1\r\n\r\n")
@example(b"HTTP/1.1 " + TOKEN.encode() + b"\x1b\r\n\r\n")
@example(b"X-" + TOKEN.encode() + b" HTTP/1.1 200\r\n\r\n")
@example(handshake(TOKEN.encode()))
@example(handshake(b"x").replace(b"websocket", TOKEN.encode(), 1))
def test_any_bytes_for_a_handshake(opening: bytes) -> None:
    tried["bytes for a WebSocket's handshake"] += 1
    check_end(asyncio.run(listen_to(opening, b"")))


_rules = st.builds(
    ConnectionRules,
    heartbeat_seconds=st.sampled_from([0.001, 1.0, 30.0]),
    attempts=st.integers(0, 12),
    enabled=st.booleans(),
)
_events = st.one_of(st.sampled_from(["tick", "due", "opened", "frame", "message", "ended", "refused", "token"]), _rules)


@fuzzing(150)
@given(rules=_rules, steps=st.lists(st.tuples(_events, st.floats(0, 10_000)), max_size=60), jitter=st.floats(0, 1))
def test_the_life_of_a_connection(
    rules: ConnectionRules, steps: list[tuple[str | ConnectionRules, float]], jitter: float
) -> None:
    """Events arrive in any order that the loop allows; the connection can always recover."""
    tried["lives of a connection"] += 1
    line, now = ConnectionState(rules, lambda: jitter), 0.0
    orders = line.start(now)
    hanging_up = False
    for event, pause in steps:
        now += pause
        hanging_up = hanging_up or Command.HANG_UP in orders
        if isinstance(event, ConnectionRules):
            orders = line.new_rules(now, event)
        elif event == "due" and math.isfinite(line.due()):
            now = max(now, line.due())
            orders = line.tick(now)
            assert line.due() > now or not math.isfinite(line.due()), "it would turn without end"
        elif event == "token":
            orders = line.new_token(now)
        elif event in {"ended", "refused"} and (line.holds or hanging_up):
            orders = line.ended(now, "a reason", token_refused=event == "refused")
            hanging_up = False
        elif event == "opened" and line.holds and not line.connected:
            orders = line.opened(now)
            assert orders == [Command.PING]
        elif event in {"frame", "message"} and line.connected:
            was_failing = line.failures
            orders = []
            if event == "message":
                orders = line.message(now)
            else:
                line.frame(now)
            assert event == "frame" or line.failures == 0 <= was_failing
        else:
            orders = line.tick(now)
        check_life(line, now, orders)
    assert line.take_fallback_seconds(now) >= 0


def check_life(line: ConnectionState, now: float, orders: list[Command]) -> None:
    assert set(orders) <= set(Command) and len(orders) <= 1
    assert not (line.connected and not line.holds)
    assert min(line.failures, line.attempts, line.reconnects) >= 0
    if line.next_attempt is not None:
        assert not line.holds
        assert line.next_attempt <= now + 3600
    if not line.rules.enabled:
        assert line.fallback
        assert line.next_attempt is None or line.holds
    if line.failures >= 3:
        assert line.fallback, "three failures in a row, and nobody polls"
