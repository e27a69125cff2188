"""Serving the application until a signal says stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from atom_saas_sync.errors import AtomSyncError

_KEEP_ALIVE_SECONDS = 5
_GRACE_SECONDS = 10
_MOST_CONNECTIONS = 200
_MAX_HEADER_BYTES = 16 * 1024
_HEADER_SECONDS = 10.0
"""How long a client may take for the head of a request: who opens connections and says nothing keeps others out."""

_log = logging.getLogger(__name__)


class _Impatient(H11Protocol):
    """Ends a connection on which no whole request has come for a while; uvicorn itself does that only after one."""

    _giving_up: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._giving_up is not None:
            self._giving_up.cancel()

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:  # a request is being answered
            if self._giving_up is not None:
                self._giving_up.cancel()
                self._giving_up = None
        elif self._giving_up is None:
            self._giving_up = self.loop.call_later(_HEADER_SECONDS, self.transport.close)


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does, and outlive SIGHUP, which means "reload" for other services."""
        reason = "ignored SIGHUP: restart `serve-health` to apply a changed configuration"
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _log.info, reason)
        await super().startup(sockets)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes any that is free. Raises AtomSyncError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.create_server((str(address[0]), port), family=family, backlog=128)
    except OSError as error:
        raise AtomSyncError(
            f"cannot listen on {host} port {port}: {error.strerror}",
            hint="another program may have the port (`ss -ltnp` names it); --port takes another, 0 any free one",
        ) from error
    # Inherited by its connections. Without it, each answer on a connection that is kept waits 40 ms for the client.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def serve(app: ASGIApp, listener: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM; the requests in progress are answered first. SIGHUP changes nothing."""
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
        limit_concurrency=_MOST_CONNECTIONS,
        h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
    )
    server = _Server(config)

    def stop(*_: object) -> None:
        server.should_exit = True

    # When it has stopped, uvicorn raises the signal again; by default that would end us with 143 in place of 0.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    server.run(sockets=[listener])
