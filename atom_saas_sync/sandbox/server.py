"""The sandbox as a whole: a real server over real sockets in a thread of its own (architecture, decision 10)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from atom_saas_sync.errors import UsageError
from atom_saas_sync.sandbox.catalogue import Catalogue, FileCatalogue, GeneratedCatalogue, Json
from atom_saas_sync.sandbox.control import control_app
from atom_saas_sync.sandbox.encoding import to_json
from atom_saas_sync.sandbox.faults import Fault, Faults
from atom_saas_sync.sandbox.journal import Journal, LoggedRequest
from atom_saas_sync.sandbox.market import Market
from atom_saas_sync.sandbox.sending import Receive, Scope, Send
from atom_saas_sync.sandbox.state import MAX_PAGE_SIZE, State
from atom_saas_sync.sandbox.websocket import Hub, bad_frames, frame

T = TypeVar("T")

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
        ping_interval: float = 30.0,
    ) -> None:
        if catalogue is None:
            catalogue = GeneratedCatalogue(skills, seed)
        elif isinstance(catalogue, Path):
            catalogue = FileCatalogue(catalogue)
        self.state: State = State(catalogue)
        self.journal: Journal = Journal()
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
        self._hub = Hub(
            self.journal,
            self._faults,
            token=lambda: self.token,
            now=self.state.now,
            message_time=self.state.message_time,
            ping=ping_interval,
        )
        self._control = control_app(self)
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
        self._server = _Server(self._app, self.journal, self._hub)
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

    def put_skill(self, skill: Json, *, position: int | None = None, push: bool = True) -> Json:
        """Add a skill (at the end of the list, or at `position`) or replace the one with its id."""
        stored = self.state.put_skill(skill, position=position)
        return self._told("skill_update", stored, push=push)

    def patch_skill(self, skill_id: str, fields: Json, *, touch: bool = True, push: bool = True) -> Json:
        """Change some fields of a skill; `updated_at` moves on unless `touch` is false."""
        return self._told("skill_update", self.state.patch_skill(skill_id, fields, touch=touch), push=push)

    def delete_skill(self, skill_id: str, *, push: bool = True) -> None:
        """Remove a skill."""
        self.state.delete_skill(skill_id)
        self._told("skill_delete", {"skill_id": skill_id}, push=push)

    def put_category(self, name: str, *, push: bool = True, **fields: Any) -> Json:  # noqa: ANN401 - JSON
        """Add a category or change its fields."""
        return self._told("category_update", self.state.put_category(name, **fields), push=push)

    def warm(self, page_size: int = MAX_PAGE_SIZE) -> int:
        """Encode all pages now, so that benchmarks do not wait for the sandbox. Return how many there are."""
        return self.state.warm(page_size)

    def add_rating(
        self,
        skill_id: str,
        user_id: str,
        rating: int,
        comment: str | None = None,
        *,
        created_at: str | None = None,
        updated_at: str | None = None,
        push: bool = True,
    ) -> Json:
        """Store or replace a user's rating, as if that user had sent it to the marketplace."""
        times = {"created_at": created_at, "updated_at": updated_at}
        stored = self.state.add_rating(skill_id, user_id, rating, comment, **times)
        skill = self.state.skill(skill_id)
        news = {key: skill[key] for key in ("skill_id", "average_rating", "rating_count")} | {"rating": rating}
        self._told("rating_update", news, push=push)
        return stored

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
        self._hub.silent = False
        self._hub.received.clear()

    # WebSocket

    def push(self, message: Json | str | bytes) -> int:
        """Send a message to all listeners: a document as JSON, a text as it is, bytes as a binary frame.

        Return how many listeners there were.
        """
        if isinstance(message, bytes):
            return self._in_loop(self._hub.write, frame(message, opcode=2))
        text = message.encode() if isinstance(message, str) else to_json(message)
        return self._in_loop(self._hub.write, frame(text))

    def push_bad(self, name: str) -> int:
        """Send one of the malformed frames of `websocket.bad_frames`. KeyError if there is none of that name."""
        return self._in_loop(self._hub.write, bad_frames()[name])

    def flood(self, count: int, *, whole: bool = True, text: bool = True, timeout: float = 60.0) -> Json:
        """Change `count` skills (round and round) and push each change, as fast as the sockets take it.

        All is encoded before the first byte goes out. With `whole=False` messages carry only the changed fields;
        with `text=False` the description stays.
        Return the messages, the bytes, and the seconds that the sending alone took.
        """
        if not self.state.total:
            raise UsageError("there is no skill to update")
        keys = ("skill_id", "name", "description", "version", "updated_at")
        skills = self.state.touch_many(count, text=text)
        frames = [
            self._hub.message("skill_update", skill if whole else {key: skill[key] for key in keys}) for skill in skills
        ]
        start = time.perf_counter()
        sent = asyncio.run_coroutine_threadsafe(self._hub.flood(frames), self._loop()).result(timeout)
        return {"messages": count, "bytes": sent, "seconds": round(time.perf_counter() - start, 6)}

    def stream(self, texts: Sequence[str], per_second: float | None = None) -> list[float]:
        """Push texts at a steady rate, or as fast as the sockets take them; all are framed before the first goes out.

        Return when each was sent (time.monotonic, the same for all processes of a machine); at full speed, when the
        first and the last were.
        """
        frames = [frame(text.encode()) for text in texts]
        if per_second is not None:
            return asyncio.run_coroutine_threadsafe(self._hub.stream(frames, per_second), self._loop()).result()
        began = time.monotonic()
        asyncio.run_coroutine_threadsafe(self._hub.flood(frames), self._loop()).result()
        return [began, time.monotonic()]

    def silence(self, on: bool = True) -> None:
        """Send nothing more to listeners, not even pongs, but keep the connections."""
        self._hub.silent = on

    def close_ws(self, code: int = 1000, reason: str = "") -> None:
        """Close all WebSocket connections with that code."""
        self._in_loop(self._hub.close, code, reason)

    def drop_ws(self, *, reset: bool = False) -> None:
        """Break all WebSocket connections."""
        self._in_loop(lambda: self._hub.drop(reset=reset))

    def ws_messages(self) -> list[str | bytes]:
        """Return what clients sent over the WebSocket."""
        return list(self._hub.received)

    def wait_for_listeners(self, count: int, timeout: float = 60.0) -> bool:
        """Wait until that many WebSocket connections are open; False if it takes too long."""
        return self.wait_for(lambda: self.journal.counters["ws_open"] == count, timeout)

    # What happened

    def counters(self) -> dict[str, int]:
        """Return the counters: requests, connections (all, open, most at once), and those of the WebSocket."""
        return dict(self.journal.counters)

    def summary(self) -> Json:
        """Return what the sandbox is and holds."""
        return {
            "sandbox": True,
            "url": self.url,
            "ws_url": self.ws_url,
            "skills": self.state.total,
            "ratings": len(self.ratings()),
            "faults": len(self.faults()),
            "counters": self.counters(),
        }

    def requests(self, endpoint: str | None = None) -> list[LoggedRequest]:
        """Return the log of requests, of one endpoint (list, skill, categories, ratings, health) or of all."""
        return self.journal.requests(endpoint)

    def wait_for(self, condition: Callable[[], bool], timeout: float = 60.0) -> bool:
        """Wait until something that the sandbox sees makes the condition true; False if that takes too long."""
        return self.journal.wait_for(condition, timeout)

    # Inside

    def _told(self, kind: str, data: Json, *, push: bool) -> Json:
        if push and self._thread is not None:
            self._publish(kind, data)
        return data

    def _publish(self, kind: str, data: Json) -> None:
        self._in_loop(self._hub.write, self._hub.message(kind, data))

    def _loop(self) -> asyncio.AbstractEventLoop:
        if self._server is None or self._server.event_loop is None:
            raise UsageError("this sandbox does not run")
        return self._server.event_loop

    def _in_loop(self, function: Callable[..., T], *arguments: Any) -> T:  # noqa: ANN401 - hands through
        """Run a function in the server's thread and return what it returns."""
        loop = self._loop()
        if threading.current_thread() is self._thread:
            return function(*arguments)

        async def call() -> T:
            return function(*arguments)

        return asyncio.run_coroutine_threadsafe(call(), loop).result(10)

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
            traceback.print_exc()  # uvicorn's log is silent, and a bug of the sandbox must not be
            raise

    def _url_host(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


class _Server(uvicorn.Server):
    """Uvicorn without its polling: ready and stop are events, and stop waits for nobody."""

    def __init__(self, app: Any, journal: Journal, hub: Hub) -> None:  # noqa: ANN401 - any ASGI application
        super().__init__(
            uvicorn.Config(
                app,
                interface="asgi3",
                http=_http_protocol(journal),
                ws=_ws_protocol(hub),
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


def _ws_protocol(hub: Hub) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol, which besides does not answer pings while the hub is silent."""

    class Protocol(WebSocketsSansIOProtocol):
        def handle_ping(self) -> None:
            if hub.silent:
                self.conn.data_to_send()  # takes the pong that waits there, and forgets it
            else:
                super().handle_ping()

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
