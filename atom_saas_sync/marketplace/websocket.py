"""The WebSocket connection (marketplace-api.md, section 4): one door for its frames, and how each connection ended.

On the library's asyncio side, because one loop then can wait for frames, timers, signals and threads alike, and give a
handshake up that hangs. What decides is core/realtime.py; nothing here connects again by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import cast
from urllib.parse import quote, urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidProxy, InvalidStatus, InvalidURI

from atom_saas_sync import __version__
from atom_saas_sync.characters import without_hidden
from atom_saas_sync.core.incoming.limits import MAX_FRAME_BYTES
from atom_saas_sync.errors import LinkEnded
from atom_saas_sync.marketplace.proxies import proxy_for
from atom_saas_sync.marketplace.tls import cause_of, tls_context

HANDSHAKE_SECONDS = 15.0
SEND_SECONDS = 10.0
"""Time limit for sending one message: a peer that reads nothing for that long is disconnected."""

_NEXT_ADDRESS_SECONDS = 0.25
"""Delay before the next address of a host is tried in parallel, as RFC 8305 recommends: IPv6 may be broken."""

_MOST_UNREAD_BYTES = 1024 * 1024
_UNREAD = "the marketplace does not read what is sent to it"
_CLOSE_SECONDS = 1.0
_QUEUED_FRAMES = 8
_MASK = "********"

_TOKEN_CODES = frozenset({1008, 4401})
# The codes with which our side ends a connection because of a frame that must not be.
_BAD_FRAME_CODES = frozenset({1002, 1007, 1009})


class _NeverRedirected(connect):
    """The library's opening handshake, without its redirects: the token would go wherever they point."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class _Connection(ClientConnection):
    """The library's connection, which reports incoming data and limits outgoing data.

    The library answers each protocol ping at once, even if the answers are never read.
    """

    heard: Callable[[], None]
    unread = False

    def data_received(self, data: bytes) -> None:
        self.heard()
        super().data_received(data)
        if self.transport.get_write_buffer_size() > _MOST_UNREAD_BYTES:
            self.give_up()

    def give_up(self) -> None:
        """Break a connection whose peer does not read."""
        self.unread = True
        self.transport.abort()


class Link:
    """An open connection."""

    def __init__(self, connection: _Connection, token: str) -> None:
        """Speak over a connection that was opened with this token."""
        self._connection = connection
        self._token = token

    async def receive(self) -> str | bytes:
        """Return the next frame: a text, or bytes. Raises LinkEnded."""
        try:
            return await self._connection.recv()
        except ConnectionClosed as closed:
            raise self._ended(closed) from None

    async def send(self, text: str) -> None:
        """Send a text. Raises LinkEnded, also if it takes longer than SEND_SECONDS."""
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self._connection.send(text)
        except TimeoutError:
            self._connection.give_up()
            raise LinkEnded(_UNREAD) from None
        except ConnectionClosed as closed:
            raise self._ended(closed) from None

    async def close(self, reason: str = "") -> None:
        """Say goodbye in the orderly way, and wait a moment for the answer."""
        await self._connection.close(1001, reason)

    def abort(self) -> None:
        """Break the connection at once: the other side does not answer any more."""
        self._connection.transport.abort()

    def _ended(self, closed: ConnectionClosed) -> LinkEnded:
        return LinkEnded(_UNREAD) if self._connection.unread else _ended(closed, self._token)


async def open_link(
    url: str,
    token: str,
    *,
    on_frame: Callable[[], None],
    ca_file: Path | None = None,
    handshake_seconds: float = HANDSHAKE_SECONDS,
) -> Link:
    """Connect, through the proxy that proxies.py chooses. `on_frame` is called whenever data arrives.

    Raises LinkEnded, whose `token_refused` says whether the token was to blame, and ConfigError if the authorities or
    the proxy's address can't be used.
    """

    class Connection(_Connection):
        heard = staticmethod(on_frame)

    # Hundreds of certificates come from the disk, for which the event loop does not wait.
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
        happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS,
    )
    try:
        return Link(cast("_Connection", await attempt), token)
    except InvalidStatus as error:
        status = error.response.status_code
        if status in {401, 403}:
            raise LinkEnded(f"the marketplace refused the token ({status})", token_refused=True) from None
        if 300 <= status < 400:  # noqa: PLR2004 - redirects
            raise LinkEnded(f"the handshake was redirected ({status}), which is never followed") from None
        raise LinkEnded(f"the handshake was answered with {status}") from None
    except TimeoutError:
        raise LinkEnded(f"no handshake with {target} within {handshake_seconds:g} s") from None
    except (InvalidURI, InvalidProxy, UnicodeError):
        # Their texts contain the token or the proxy's password.
        raise LinkEnded(f"ATOM_SAAS_WS_URL is not a valid address{f' for {proxy}' if proxy else ''}") from None
    except ImportError:
        raise LinkEnded(f"{proxy}: a SOCKS proxy needs the package python-socks") from None
    except (InvalidHandshake, OSError) as error:
        # The library's words repeat headers of the answer, which may be anything.
        raise LinkEnded(
            f"cannot connect to {target}: {_plain(cause_of(error) or str(error) or type(error).__name__, token)}"
        ) from None


def _ended(closed: ConnectionClosed, token: str) -> LinkEnded:
    """Say how a connection ended. Reasons that the other side gives may be anything: they are cut and made harmless.

    They are kept for others to see, so they must not hold the token either.
    """
    received, sent = closed.rcvd, closed.sent
    if sent is not None and sent.code in _BAD_FRAME_CODES and (received is None or not closed.rcvd_then_sent):
        return LinkEnded(f"closed with {sent.code}: {_BAD_FRAMES[sent.code]}", bad_frame=True)
    if received is None:
        return LinkEnded("the connection broke")
    told = f": {_plain(received.reason, token)}" if received.reason else ""
    return LinkEnded(
        f"closed by the marketplace with {received.code}{told}", token_refused=received.code in _TOKEN_CODES
    )


_BAD_FRAMES = {1002: "a frame against the protocol", 1007: "a text that is no UTF-8", 1009: "a frame over 1 MiB"}


def _plain(text: str, token: str) -> str:
    """Return what can be shown of a text, masked and cut. Masked first, a token that was broken up would be whole."""
    shown = without_hidden(text)
    return shown.replace(token, _MASK).replace(quote(token, safe=""), _MASK)[:120]
