"""The sandbox: a server on real sockets in its own thread (architecture, decision 10)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import traceback
from pathlib import Path
from typing import Any, Self

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from atom_saas_sync.errors import UsageError
from atom_saas_sync.sandbox.catalogue import Catalogue, GeneratedCatalogue
from atom_saas_sync.sandbox.control import control_app
from atom_saas_sync.sandbox.journal import Journal
from atom_saas_sync.sandbox.marketplace import Marketplace
from atom_saas_sync.sandbox.sending import Receive, Scope, Send
from atom_saas_sync.sandbox.websocket import Hub

DEFAULT_TOKEN = "at_saas_sandbox"  # noqa: S105 - the sandbox's own, said to everyone
DEFAULT_RATE_LIMIT = 100_000


class Sandbox(Marketplace):
    """A mock marketplace on this machine.

    >>> with Sandbox(skills=10) as sandbox:  # doctest: +SKIP
    ...     print(sandbox.url, sandbox.ws_url, sandbox.token)

    `stop()` followed by `start()` on the same port is an outage; stored data survives it.
    """

    def __init__(
        self,
        *,
        skills: int = 5000,
        seed: int = 1,
        catalogue: Path | Catalogue | None = None,
        token: str = DEFAULT_TOKEN,
        host: str = "127.0.0.1",
        port: int = 0,
        rate_limit: int = DEFAULT_RATE_LIMIT,
        latency: float = 0.0,
        bandwidth: float = 0.0,
        ping_interval: float = 30.0,
    ) -> None:
        super().__init__(
            GeneratedCatalogue(skills, seed) if catalogue is None else catalogue,
            token=token,
            host=host,
            port=port,
            rate_limit=rate_limit,
            latency=latency,
            bandwidth=bandwidth,
            ping_interval=ping_interval,
        )
        self._control = control_app(self)
        self._server: _Server | None = None

    # Running

    def start(self) -> Self:
        """Listen; return when clients can connect."""
        if self._thread is not None:
            raise UsageError("this sandbox runs already")
        listener = _listen(self.host, self.port)
        self.port = listener.getsockname()[1]
        self._server = _Server(self._app, self.journal, self._hub)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="sandbox", daemon=True)
        self._thread.start()
        self._server.ready.wait()
        return self

    def stop(self) -> None:
        """Break all connections, including hung ones, and release the port immediately."""
        if self._thread is None or self._server is None:
            return
        self._server.stop()
        self._thread.join()
        self._thread = self._server = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _event_loop(self) -> asyncio.AbstractEventLoop:
        if self._server is None or self._server.event_loop is None:
            return super()._event_loop()
        return self._server.event_loop

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["type"] == "websocket":
                await self._hub(scope, receive, send)
            elif scope["path"].startswith("/_sandbox/"):
                await self._control(scope, receive, send)
            else:
                await self._market(scope, receive, send)
        except ClientDisconnected:
            pass
        except Exception:
            traceback.print_exc()  # uvicorn's log is off, but a bug of the sandbox must be visible
            raise


class _Server(uvicorn.Server):
    """Uvicorn with events instead of polling for ready and stop; stop waits for no client."""

    def __init__(self, app: Any, journal: Journal, hub: Hub) -> None:  # noqa: ANN401 - any ASGI application
        super().__init__(
            uvicorn.Config(
                app,
                interface="asgi3",
                http=_http_protocol(journal),
                ws=_ws_protocol(hub),
                ws_ping_interval=None,  # the contract's ping is a message of its own
                ws_per_message_deflate=False,
                loop="asyncio",
                lifespan="off",
                log_config=None,
                log_level="critical",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,  # the sandbox's clock can be shifted
                timeout_keep_alive=60,
            )
        )
        self.ready = threading.Event()
        self.event_loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Stop the server from another thread."""
        assert self.event_loop is not None
        self.event_loop.call_soon_threadsafe(self._stopping.set)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.event_loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        await self._stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        for server in self.servers:
            for listening in server.sockets:
                loop.remove_reader(listening)
        await asyncio.sleep(0)  # what was accepted joins its server, which it cannot do once that is closed
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for _ in range(2):  # connections appear here one turn of the loop after they have joined
            for connection in list(self.server_state.connections):
                connection.transport.abort()
            await asyncio.sleep(0)  # connections are marked as lost before their tasks are cancelled
        tasks = list(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _http_protocol(journal: Journal) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol, extended to count connections and give the application its transport."""

    class Protocol(H11Protocol):
        counted = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.app_state = {**self.app_state, "transport": transport}
            self.counted = True
            journal.connection_opened()

        def connection_lost(self, exc: Exception | None) -> None:
            self._uncount()
            with contextlib.suppress(Exception):  # faults abort responses on purpose
                super().connection_lost(exc)

        def handle_websocket_upgrade(self, event: Any) -> None:  # noqa: ANN401 - h11's, which is not our dependency
            self._uncount()
            super().handle_websocket_upgrade(event)

        def _uncount(self) -> None:
            if self.counted:
                self.counted = False
                journal.connection_closed()

    return Protocol


def _ws_protocol(hub: Hub) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol, extended not to answer pings while the hub is silent."""

    class Protocol(WebSocketsSansIOProtocol):
        def handle_ping(self) -> None:
            if hub.silent:
                self.conn.data_to_send()  # consumes the pong and discards it
            else:
                super().handle_ping()

    return Protocol


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With an explicit protocol; otherwise asyncio keeps Nagle's algorithm, which delays responses by 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # An outage must end on the same port, even if old connections are in TIME_WAIT.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise UsageError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return listener
