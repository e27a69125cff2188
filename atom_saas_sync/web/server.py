"""Serving the application until a signal stops it."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import struct
from collections import Counter
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from atom_saas_sync.errors import AtomSyncError
from atom_saas_sync.usecases.limited_log import LimitedLog

_KEEP_ALIVE_SECONDS = 5
_GRACE_SECONDS = 10
_MAX_HEADER_BYTES = 16 * 1024
_SEND_BUFFER_BYTES = 128 * 1024
"""Kernel buffer for each connection: by default, unread responses may take megabytes."""

_HEADER_SECONDS = 10.0
"""How long a client may take for the head of a request: silent connections must not lock out other clients."""

_READING_SECONDS = 10.0
"""How long a client may pause reading a response."""

_LOOK_SECONDS = 1.0
_MOST_CONNECTIONS = 200
_MOST_OF_AN_ADDRESS = 20
"""Beyond this, connections from one address that wait for their client are closed after a second.

New connections are still accepted: a probe may come from the same address as the slow ones.
"""

_NO_LINGER = struct.pack("ii", 1, 0)

_log = logging.getLogger(__name__)
_closed = LimitedLog(_log, logging.WARNING, "closed %d more connections within a second", most=1)


class _Impatient(H11Protocol):
    """Closes connections that wait too long for their client; uvicorn does that only between requests."""

    _next_look: asyncio.TimerHandle
    waits_since = 0.0
    _last_request: object = None
    _last_unsent = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.waits_since = self.loop.time()
        self._next_look = self.loop.call_later(_LOOK_SECONDS, self._look)
        self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._next_look.cancel()

    @property
    def address(self) -> str:
        """Return the client's address without the port."""
        return self.client[0] if self.client else "-"

    @property
    def waits(self) -> bool:
        """Tell whether the client has to act: to read, or to send a request."""
        answered = self.cycle is None or self.cycle.response_complete
        return answered or self.transport.get_write_buffer_size() > 0

    def _look(self) -> None:
        """Check for progress since the last check, and close connections whose client does nothing."""
        _closed.log_suppressed()
        self._next_look = self.loop.call_later(_LOOK_SECONDS, self._look)
        unsent, unsent_before = self.transport.get_write_buffer_size(), self._last_unsent
        request, request_before = self.cycle, self._last_request
        self._last_unsent, self._last_request = unsent, request
        reads = unsent < unsent_before if unsent_before else unsent > 0
        asks = unsent == 0 and request is not request_before
        if reads or asks or not self.waits:
            self.waits_since = self.loop.time()
            return
        if self.loop.time() - self.waits_since >= (_READING_SECONDS if unsent else _HEADER_SECONDS):
            if unsent:
                self.send_away("it does not read the response")
            else:
                self.transport.close()
        elif sum(each.address == self.address for each in self._others()) >= _MOST_OF_AN_ADDRESS:
            self.send_away(f"the address has more than {_MOST_OF_AN_ADDRESS}")

    def _make_room(self) -> None:
        """If there are too many waiting connections, close the oldest one of the address that has the most."""
        others = self._others()
        waiting = [each for each in others if each.waits]
        if len(others) >= _MOST_CONNECTIONS and waiting:
            ((address, _),) = Counter(each.address for each in waiting).most_common(1)
            oldest = min((each for each in waiting if each.address == address), key=lambda each: each.waits_since)
            oldest.send_away(f"there are more than {_MOST_CONNECTIONS}")

    def _others(self) -> list[_Impatient]:
        return [
            each
            for each in self.connections
            if isinstance(each, _Impatient) and each is not self and not each.transport.is_closing()
        ]

    def send_away(self, reason: str) -> None:
        """Abort the connection: unsent data would wait for the client."""
        _closed.say("closed a connection of %s: %s", self.address, reason)
        # Otherwise the kernel would keep unsent data for minutes.
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.transport.abort()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_signal: Callable[[int, FrameType | None], None]) -> None:
        super().__init__(config)
        self._on_signal = on_signal

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop as uvicorn does, and report the signal."""
        self._on_signal(sig, frame)
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does, and ignore SIGHUP, which means "reload" for other services."""
        reason = "ignored SIGHUP: restart `serve-health` to apply a changed configuration"
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _log.info, reason)
        await super().startup(sockets)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 means any free port. Raises AtomSyncError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.create_server((str(address[0]), port), family=family, backlog=128)
    except OSError as error:
        # `create_server` appends the address to the system's message.
        reason = str(error.strerror).partition(" (while attempting")[0]
        raise AtomSyncError(
            f"cannot listen on {host} port {port}: {reason}",
            hint="another program may use the port (`ss -ltnp` shows it); choose another with --port (0: any)",
        ) from error
    # Inherited by its connections. Without it, each response on a kept-alive connection waits 40 ms for the client.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    return listener


def serve(
    app: ASGIApp, listener: socket.socket, on_signal: Callable[[int, FrameType | None], None] = lambda *_: None
) -> None:
    """Serve until SIGINT or SIGTERM, which `on_signal` is told, then finish the requests in progress.

    SIGHUP is ignored.
    """
    config = uvicorn.Config(
        app,
        http=_Impatient,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        limit_concurrency=_MOST_CONNECTIONS + 1,  # if none of them waits for its client
        h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
    )
    server = _Server(config, on_signal)

    def stop(*_: object) -> None:
        server.should_exit = True

    # After stopping, uvicorn raises the signal again; by default we would exit with 143 instead of 0.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    server.run(sockets=[listener])
