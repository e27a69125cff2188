"""The WebSocket connection (marketplace-api.md, section 4): sending, receiving, and the reason why it ended.

It uses asyncio, so that one loop can wait for frames, timers, signals and threads, and abort a handshake that hangs.
Decisions are made in core/connection.py; nothing here reconnects on its own.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import cast
from urllib.parse import quote, urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidProxy, InvalidStatus, InvalidURI
from websockets.frames import Frame, Opcode
from websockets.protocol import Event

from atom_saas_sync import __version__
from atom_saas_sync.characters import without_hidden
from atom_saas_sync.core.incoming.limits import MAX_FRAME_BYTES
from atom_saas_sync.errors import WebSocketClosed
from atom_saas_sync.marketplace.proxies import proxy_for
from atom_saas_sync.marketplace.tls import cause_of, tls_context

HANDSHAKE_SECONDS = 15.0
SEND_SECONDS = 10.0
"""Time limit for sending one message; a peer that reads nothing for that long is disconnected."""

_NEXT_ADDRESS_SECONDS = 0.25
"""Delay before the next address of a host is tried in parallel, as RFC 8305 recommends: IPv6 may be broken."""

MOST_CONTROL_FRAMES = 1_000
_CONTROL_SECONDS = 10.0
"""So many pings and pongs of the protocol may arrive in that time. Servers send one in some seconds, and the library
handles each at once, past every other limit."""

_FLOODED = "the marketplace floods the connection with pings or pongs"
_MOST_UNREAD_BYTES = 1024 * 1024
_UNREAD = "the marketplace does not read what is sent to it"
_CLOSE_SECONDS = 1.0
_QUEUED_FRAMES = 8
_MASK = "********"

_TOKEN_CODES = frozenset({1008, 4401})
_LONGEST_STATUS = len("HTTP/1.1 401 ")
_REFUSAL = re.compile(rb"HTTP/1\.[01] (401|403)\b")
# Close codes that our side sends because of an invalid frame.
_BAD_FRAME_CODES = frozenset({1002, 1007, 1009})


class _NeverRedirected(connect):
    """The library's opening handshake without redirects: the token would be sent to their targets."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class _Connection(ClientConnection):
    """The library's connection, which reports incoming data and limits outgoing data.

    The library replies to each protocol ping at once, even if the replies are never read.
    """

    heard: Callable[[], None]
    answer: bytearray
    """The beginning of what arrives: the status of the handshake's response. The library tells it after the body."""
    broken_because: str | None = None
    _control_frames = 0
    _counted_since = 0.0

    def data_received(self, data: bytes) -> None:
        self.heard()
        if len(self.answer) < _LONGEST_STATUS:
            self.answer.extend(data[:_LONGEST_STATUS])
        super().data_received(data)
        if self.transport.get_write_buffer_size() > _MOST_UNREAD_BYTES:
            self.give_up()

    def give_up(self) -> None:
        """Break a connection whose peer does not read."""
        self._break(_UNREAD)

    def process_event(self, event: Event) -> None:
        if isinstance(event, Frame) and event.opcode in {Opcode.PING, Opcode.PONG}:
            now = self.loop.time()
            if now - self._counted_since > _CONTROL_SECONDS:
                self._counted_since, self._control_frames = now, 0
            self._control_frames += 1
            if self._control_frames > MOST_CONTROL_FRAMES and self.broken_because is None:
                self._break(_FLOODED)
        super().process_event(event)

    def _break(self, reason: str) -> None:
        self.broken_because = self.broken_because or reason
        self.transport.abort()


class WebSocketConnection:
    """An open connection."""

    def __init__(self, connection: _Connection, token: str) -> None:
        """Use a connection that was opened with this token."""
        self._connection = connection
        self._token = token

    async def receive(self) -> str | bytes:
        """Return the next frame, as text or bytes. Raises WebSocketClosed."""
        try:
            return await self._connection.recv()
        except ConnectionClosed as closed:
            raise self._ended(closed) from None

    async def send(self, text: str) -> None:
        """Send a text. Raises WebSocketClosed, also after SEND_SECONDS."""
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self._connection.send(text)
        except TimeoutError:
            self._connection.give_up()
            raise WebSocketClosed(_UNREAD) from None
        except ConnectionClosed as closed:
            raise self._ended(closed) from None

    async def close(self, reason: str = "") -> None:
        """Close the connection properly, and wait briefly for the peer's reply."""
        await self._connection.close(1001, reason)

    def abort(self) -> None:
        """Abort the connection, because the peer no longer responds."""
        self._connection.transport.abort()

    def _ended(self, closed: ConnectionClosed) -> WebSocketClosed:
        why = self._connection.broken_because
        return _ended(closed, self._token) if why is None else WebSocketClosed(why)


async def open_link(
    url: str,
    token: str,
    *,
    on_frame: Callable[[], None],
    ca_file: Path | None = None,
    handshake_seconds: float = HANDSHAKE_SECONDS,
) -> WebSocketConnection:
    """Connect, through the proxy that proxies.py selects. `on_frame` is called whenever data arrives.

    Raises WebSocketClosed, whose `token_refused` tells whether the token was the reason, and ConfigError if the
    authorities or the proxy's address are not usable.
    """

    class Connection(_Connection):
        heard = staticmethod(on_frame)
        answer = bytearray()

    # Hundreds of certificates are read from the disk; the event loop must not block on that.
    context = await asyncio.to_thread(tls_context, ca_file) if url.startswith("wss:") else None
    proxy = proxy_for(url)
    target = f"{urlsplit(url).hostname} through {proxy}" if proxy else urlsplit(url).hostname
    separator = "&" if urlsplit(url).query else "?"
    attempt = _NeverRedirected(
        f"{url}{separator}token={quote(token, safe='')}",
        create_connection=Connection,
        ssl=context,
        proxy=proxy.url if proxy else None,
        user_agent_header=f"atom-sync/{__version__}",
        compression=None,
        open_timeout=handshake_seconds,
        ping_interval=None,  # the contract's own heartbeat is a message
        close_timeout=_CLOSE_SECONDS,
        max_size=MAX_FRAME_BYTES,
        max_queue=_QUEUED_FRAMES,
        # A single address needs no race; asyncio leaves the socket of a cancelled one to the garbage collector.
        happy_eyeballs_delay=None if _is_address(urlsplit(url).hostname or "") else _NEXT_ADDRESS_SECONDS,
    )
    try:
        return WebSocketConnection(cast("_Connection", await attempt), token)
    except InvalidStatus as error:
        _raise_if_refused(Connection.answer)
        status = error.response.status_code
        if 300 <= status < 400:  # noqa: PLR2004 - redirects
            raise WebSocketClosed(f"the handshake was redirected ({status}), which is never followed") from None
        raise WebSocketClosed(f"the handshake was answered with {status}") from None
    except TimeoutError:
        _raise_if_refused(Connection.answer)
        raise WebSocketClosed(f"no handshake with {target} within {handshake_seconds:g} s") from None
    except (InvalidURI, InvalidProxy, UnicodeError):
        # Their messages contain the token or the proxy's password.
        raise WebSocketClosed(f"ATOM_SAAS_WS_URL is not a valid address{f' for {proxy}' if proxy else ''}") from None
    except ImportError:
        raise WebSocketClosed(f"{proxy}: a SOCKS proxy needs the package python-socks") from None
    except (InvalidHandshake, OSError) as error:
        _raise_if_refused(Connection.answer)
        # The library's message repeats response headers, which may contain anything.
        raise WebSocketClosed(
            f"cannot connect to {target}: {_plain(cause_of(error) or str(error) or type(error).__name__, token)}"
        ) from None


def _raise_if_refused(answer: bytearray) -> None:
    """Raise WebSocketClosed if the handshake was refused because of the token, even if its body could not be read."""
    if found := _REFUSAL.match(answer):
        raise WebSocketClosed(f"the marketplace refused the token ({found[1].decode()})", token_refused=True) from None


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _ended(closed: ConnectionClosed, token: str) -> WebSocketClosed:
    """Describe how a connection ended. The peer's reason may contain anything, so it is cut and made printable.

    It is stored and shown, so it must not contain the token either.
    """
    received, sent = closed.rcvd, closed.sent
    if sent is not None and sent.code in _BAD_FRAME_CODES and (received is None or not closed.rcvd_then_sent):
        return WebSocketClosed(f"closed with {sent.code}: {_BAD_FRAMES[sent.code]}", bad_frame=True)
    if received is None:
        return WebSocketClosed("the connection broke")
    told = f": {_plain(received.reason, token)}" if received.reason else ""
    return WebSocketClosed(
        f"closed by the marketplace with {received.code}{told}", token_refused=received.code in _TOKEN_CODES
    )


_BAD_FRAMES = {
    1002: "a frame that violates the protocol",
    1007: "a text that is not UTF-8",
    1009: f"a frame over {MAX_FRAME_BYTES // 1024**2} MiB",
}


def _plain(text: str, token: str) -> str:
    """Return a printable, masked and cut form of a text. Mask last: cleaning can join the parts of a token."""
    shown = without_hidden(text)
    return shown.replace(token, _MASK).replace(quote(token, safe=""), _MASK)[:120]
