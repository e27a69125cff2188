"""The sandbox as a whole: a real server over real sockets in a thread of its own (architecture, decision 10)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from atom_saas_sync.errors import UsageError
from atom_saas_sync.sandbox.catalogue import Catalogue, FileCatalogue, GeneratedCatalogue, Json
from atom_saas_sync.sandbox.faults import Fault, Faults
from atom_saas_sync.sandbox.journal import Journal, LoggedRequest
from atom_saas_sync.sandbox.market import Market
from atom_saas_sync.sandbox.sending import Receive, Scope, Send
from atom_saas_sync.sandbox.state import MAX_PAGE_SIZE, State

DEFAULT_TOKEN = "at_saas_sandbox"  # noqa: S105 - the sandbox's own, said to everyone
DEFAULT_RATE_LIMIT = 100_000


class Sandbox:
    """A local marketplace.

    >>> with Sandbox(skills=10) as sandbox:  # doctest: +SKIP
    ...     print(sandbox.url, sandbox.ws_url, sandbox.token)

    `stop()` and `start()` again on the same port is an outage; what was stored survives it.
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
    ) -> None:
        if catalogue is None:
            catalogue = GeneratedCatalogue(skills, seed)
        elif isinstance(catalogue, Path):
            catalogue = FileCatalogue(catalogue)
        self.state = State(catalogue)
        self.journal = Journal()
        self.host = host
        self.port = port
        self._faults = Faults()
        self._market = Market(
            self.state,
            self.journal,
            self._faults,
            self._publish,
            token=token,
            rate_limit=rate_limit,
            latency=latency,
        )
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    # Running

    @property
    def url(self) -> str:
        """Base URL of the `v1` and `plain` dialects; for `mothership` append `/api/v1/marketplace`, or not."""
        return f"http://{self._url_host()}:{self.port}"

    @property
    def ws_url(self) -> str:
        """The WebSocket URL of the `v1` and `plain` dialects."""
        return f"ws://{self._url_host()}:{self.port}/ws"

    @property
    def token(self) -> str:
        """The token that is accepted; may be set to another at any time."""
        return self._market.token

    @token.setter
    def token(self, token: str) -> None:
        self._market.token = token

    def start(self) -> Self:
        """Listen; returns when the first connection can be made."""
        if self._thread is not None:
            raise UsageError("this sandbox runs already")
        listener = _listen(self.host, self.port)
        self.port = listener.getsockname()[1]
        self._server = _Server(self._app, self.journal)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="sandbox", daemon=True)
        self._thread.start()
        self._server.ready.wait()
        return self

    def stop(self) -> None:
        """Break all connections, also hung ones, and release the port; at once."""
        if self._thread is None or self._server is None:
            return
        self._server.stop()
        self._thread.join()
        self._thread = self._server = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # Content

    def skill_ids(self) -> list[str]:
        """Return all ids in the order of the list."""
        return self.state.ids()

    def skill(self, skill_id: str) -> Json:
        """Return a copy of a skill."""
        return self.state.skill(skill_id)

    def put_skill(self, skill: Json, *, position: int | None = None) -> Json:
        """Add or replace a skill."""
        return self.state.put_skill(skill, position=position)

    def patch_skill(self, skill_id: str, fields: Json, *, touch: bool = True) -> Json:
        """Change some fields of a skill; `updated_at` moves on unless `touch` is false."""
        return self.state.patch_skill(skill_id, fields, touch=touch)

    def delete_skill(self, skill_id: str) -> None:
        """Remove a skill."""
        self.state.delete_skill(skill_id)

    def put_category(self, name: str, **fields: object) -> Json:
        """Add a category or change its fields."""
        return self.state.put_category(name, **fields)

    def warm(self, page_size: int = MAX_PAGE_SIZE) -> int:
        """Encode all pages now, so that benchmarks do not wait for the sandbox."""
        return self.state.warm(page_size)

    def add_rating(
        self,
        skill_id: str,
        user_id: str,
        stars: int,
        comment: str | None = None,
        *,
        created_at: str | None = None,
        updated_at: str | None = None,
    ) -> Json:
        """Store or replace a user's rating, as if that user had sent it to the marketplace."""
        return self.state.add_rating(skill_id, user_id, stars, comment, created_at=created_at, updated_at=updated_at)

    def ratings(self) -> list[Json]:
        """Return all ratings that were sent or added."""
        return self.state.ratings()

    # Faults

    def fault(self, kind: str | Fault, **fields: Any) -> int:  # noqa: ANN401 - the fields of Fault
        """Switch a fault on: `fault("error", endpoint="list", status=503, times=2)`. Return its number."""
        return self._faults.add(kind if isinstance(kind, Fault) else Fault(kind, **fields))

    def clear_faults(self, number: int | None = None) -> None:
        """Switch one fault off, or all."""
        self._faults.clear(number)

    def faults(self) -> dict[int, tuple[Fault, int]]:
        """Return the faults that are on, by number, with how often each has struck."""
        return self._faults.listing()

    def set_rate_limit(self, limit: int) -> None:
        """Change the requests that are free in a minute, and begin a new minute."""
        self._market.limiter.limit = limit
        self._market.limiter.reset()

    def set_clock_offset(self, seconds: float) -> None:
        """Shift the sandbox's clock: the `Date` header and all times that it writes."""
        self.state.clock_offset = seconds

    def set_latency(self, seconds: float) -> None:
        """Wait that long before each answer."""
        self._market.latency = seconds

    def reset(self) -> None:
        """Forget all changes, ratings, faults and logs; connections stay."""
        self.state.reset()
        self._faults.clear()
        self.journal.reset()
        self._market.limiter.reset()

    # What happened

    def requests(self, endpoint: str | None = None) -> list[LoggedRequest]:
        """Return the log of requests, of one endpoint (list, skill, categories, ratings, health) or of all."""
        return self.journal.requests(endpoint)

    def wait_for(self, condition: Callable[[], bool], timeout: float = 5.0) -> bool:
        """Wait until something that the sandbox sees makes the condition true; False if that takes too long."""
        return self.journal.wait_for(condition, timeout)

    # Inside

    def _publish(self, kind: str, data: Json) -> None:
        pass

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._market(scope, receive, send)
        except Exception:
            traceback.print_exc()  # uvicorn's log is silent, and a bug of the sandbox must not be
            raise

    def _url_host(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


class _Server(uvicorn.Server):
    """Uvicorn without its polling: ready and stop are events, and stop waits for nobody."""

    def __init__(self, app: Any, journal: Journal) -> None:  # noqa: ANN401 - any ASGI application
        super().__init__(
            uvicorn.Config(
                app,
                interface="asgi3",
                http=_http_protocol(journal),
                ws="websockets-sansio",
                ws_ping_interval=None,  # the contract's own ping is a message
                ws_per_message_deflate=False,
                loop="asyncio",
                lifespan="off",
                log_config=None,
                log_level="critical",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,  # ours can be shifted
                timeout_keep_alive=60,
            )
        )
        self.ready = threading.Event()
        self.event_loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End the server from another thread."""
        assert self.event_loop is not None
        self.event_loop.call_soon_threadsafe(self._stopping.set)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.event_loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        await self._stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)  # the connections learn that they are lost before their tasks are cancelled
        tasks = list(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _http_protocol(journal: Journal) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol, which besides counts connections and lends the application its transport."""

    class Protocol(H11Protocol):
        counted = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.app_state = {**self.app_state, "transport": transport}
            self.counted = True
            journal.connection_opened()

        def connection_lost(self, exc: Exception | None) -> None:
            self._uncount()
            with contextlib.suppress(Exception):  # an abort in the middle of an answer is what faults are for
                super().connection_lost(exc)

        def handle_websocket_upgrade(self, event: Any) -> None:  # noqa: ANN401 - h11's, which is not our dependency
            self._uncount()
            super().handle_websocket_upgrade(event)

        def _uncount(self) -> None:
            if self.counted:
                self.counted = False
                journal.connection_closed()

    return Protocol


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol named: only then asyncio switches Nagle's delays (40 ms an answer) off.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # An outage ends on the same port, whatever connections the operating system still remembers.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise UsageError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return listener
