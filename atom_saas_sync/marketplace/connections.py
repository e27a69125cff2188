"""Connections to one marketplace, with a time limit for each whole exchange and a way to abort all of them at once.

httpcore limits single operations only, and a slow response can take any number of them. So this is a network backend
that gives each operation the remaining time of its exchange.
"""

from __future__ import annotations

import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from itertools import chain, zip_longest
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

import httpcore
import httpx

from atom_saas_sync.characters import without_hidden
from atom_saas_sync.errors import BadResponse, ConfigError, ConnectionFailed, Interrupted, MarketplaceTimeout, TlsFailed
from atom_saas_sync.marketplace.allocation import return_large_blocks
from atom_saas_sync.marketplace.proxies import Proxy, proxy_for
from atom_saas_sync.marketplace.tls import cause_of, is_of_tls, tls_context

MOST_INTERIM_ANSWERS = 8
ERROR_BODY_SECONDS = 2.0
_KEPT_SECONDS = 5.0
_CHECKED_SECONDS = 0.2
_NEXT_ADDRESS_SECONDS = 0.25  # RFC 8305, section 5

_FINAL_ANSWER = re.compile(rb"HTTP/1\.[01] [2-9]")
_INTERIM_ANSWER = re.compile(rb"^HTTP/1\.[01] 1(?!01)\d\d[^\n]*\n", re.MULTILINE)

Found = TypeVar("Found")


class _Exchange:
    """The remaining time of one exchange, and the interim (1xx) responses received in it."""

    def __init__(self, seconds: float, what: str) -> None:
        self.ends = time.monotonic() + seconds
        self._what = what
        self._interim = 0
        self._line = b""
        self._head_is_here = False

    def seconds_left(self) -> float:
        left = self.ends - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the time of the whole exchange is over")
        return left

    def count_interim(self, data: bytes) -> None:
        """Count the 1xx responses, which httpcore skips without limit."""
        if self._head_is_here:
            return
        data = self._line + data
        if _FINAL_ANSWER.match(data):
            self._head_is_here = True
            return
        self._interim += len(_INTERIM_ANSWER.findall(data))
        if self._interim > MOST_INTERIM_ANSWERS:
            raise BadResponse(f"{self._what}: more than {MOST_INTERIM_ANSWERS} interim responses (1xx)")
        self._line = data.rpartition(b"\n")[2]


class _Stream(httpcore.NetworkStream):
    """A connection whose operations are limited by the exchange of their thread."""

    def __init__(self, inner: httpcore.NetworkStream, network: _Network, handle: socket.socket) -> None:
        self._inner = inner
        self._network = network
        self._handle = handle
        network.streams[handle] = self

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - the exchange's counts
        exchange = self._network.exchange
        data = self._inner.read(max_bytes, exchange.seconds_left())
        exchange.count_interim(data)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002 - likewise
        self._inner.write(buffer, self._network.exchange.seconds_left())

    def close(self) -> None:
        self._network.streams.pop(self._handle, None)
        self._handle.close()
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002 - likewise
    ) -> httpcore.NetworkStream:
        try:
            inner = self._inner.start_tls(ssl_context, server_hostname, self._network.exchange.seconds_left())
        except BaseException:
            self.close()
            raise
        return _Stream(inner, self._network, self._handle)

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - httpcore's
        return self._inner.get_extra_info(info)


class _Network(httpcore.NetworkBackend):
    """A network backend for httpcore. Threads may share it; each has one exchange at a time."""

    def __init__(self) -> None:
        self._inner = httpcore.SyncBackend()
        self._of_thread = threading.local()
        self.streams: dict[socket.socket, _Stream] = {}
        self.stopped_by: int | None = None
        self._closed = False

    @property
    def exchange(self) -> _Exchange:
        """Return the exchange of this thread."""
        exchange: _Exchange = self._of_thread.exchange
        return exchange

    @exchange.setter
    def exchange(self, exchange: _Exchange) -> None:
        self._of_thread.exchange = exchange

    def check(self) -> None:
        """Raise Interrupted if everything was stopped."""
        if self.stopped_by is not None:
            raise Interrupted(self.stopped_by)

    def stop(self, signal_number: int) -> None:
        """Abort all current and future connections. Takes no lock, because a signal handler calls it."""
        self.stopped_by = signal_number
        for handle in tuple(self.streams):
            with suppress(OSError):
                handle.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close every connection, even one still being opened by another thread, which the pool does not know yet."""
        self._closed = True
        for stream in tuple(self.streams.values()):
            stream.close()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - the exchange's counts
        local_address: str | None = None,  # noqa: ARG002 - never asked for
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address that responds; a silent one delays the next by a quarter of a second."""
        addresses = self.look_up(host, port)
        seconds = self.exchange.seconds_left()

        def attempt(address: str) -> Callable[[], httpcore.NetworkStream]:
            return lambda: self._inner.connect_tcp(address, port, seconds, None, socket_options)

        inner = self._first_of([attempt(address) for address in addresses], give_up=lambda late: late.close())
        # A separate handle, because under TLS another object takes over the connection.
        handle = inner.get_extra_info("socket").dup()
        stream = _Stream(inner, self, handle)
        if len(self.streams) > 1:
            return_large_blocks()
        if self._closed or self.stopped_by is not None:
            stream.close()
            self.check()
            raise httpcore.ConnectError("the connections have been closed meanwhile")
        return stream

    def look_up(self, host: str, port: int | None) -> list[str]:
        """Return the host's addresses, alternating between the two families. Raises httpcore's errors."""
        found = self._first_of([lambda: _ask_for(host, port)])
        families: dict[int, list[str]] = {}
        for family, _, _, _, address in found:
            families.setdefault(family, []).append(str(address[0]))
        return [each for each in chain.from_iterable(zip_longest(*families.values())) if each is not None]

    def _first_of(
        self, tasks: list[Callable[[], Found]], give_up: Callable[[Found], object] = lambda _found: None
    ) -> Found:
        """Return the first result. Uses threads, because a blocked lookup or connect cannot be cancelled."""
        race = _Race(give_up)
        waiting = list(tasks)
        failure: Exception = httpcore.ConnectError("the name has no address")
        try:
            while waiting or race.running:
                self.check()
                if waiting:
                    race.start(waiting.pop(0))
                try:
                    return race.result(min(_NEXT_ADDRESS_SECONDS, self.exchange.seconds_left()))
                except Empty:
                    continue
                except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                    failure = error
        finally:
            race.end()
        raise failure


def _ask_for(host: str, port: int | None) -> list[Any]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(str(error)) from error


class _Race(Generic[Found]):
    """Tasks whose first result counts. Later results are discarded."""

    def __init__(self, give_up: Callable[[Found], object]) -> None:
        self.running = 0
        self._give_up = give_up
        self._arrived: SimpleQueue[tuple[Found | None, Exception | None]] = SimpleQueue()
        self._turn = threading.Lock()
        self._over = False

    def start(self, task: Callable[[], Found]) -> None:
        self.running += 1
        threading.Thread(target=self._run, args=(task,), name="connect", daemon=True).start()

    def result(self, seconds: float) -> Found:
        """Return the next result, or raise the error of that task; Empty if there is none in time."""
        found, failure = self._arrived.get(timeout=seconds)
        self.running -= 1
        if found is not None:
            return found
        assert failure is not None, "it is one or the other"
        raise failure

    def end(self) -> None:
        with self._turn:
            self._over = True
        while not self._arrived.empty():
            self._give_up_late(self._arrived.get()[0])

    def _run(self, task: Callable[[], Found]) -> None:
        found, failure = None, None
        try:
            found = task()
        except Exception as error:  # noqa: BLE001 - raised again in the waiting thread
            failure = error
        with self._turn:
            if not self._over:
                self._arrived.put((found, failure))
                return
        self._give_up_late(found)

    def _give_up_late(self, found: Found | None) -> None:
        if found is not None:
            self._give_up(found)


class _Body(httpx.SyncByteStream):
    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        yield from self._chunks


class Connections:
    """Connections to the origin of one URL, through a proxy if `proxy_for` says so. Threads may share them."""

    def __init__(self, url: str, ca_file: Path | None, *, most: int) -> None:
        """Keep at most `most` connections.

        Raises ConfigError if the host name, the certificate authorities or the proxy in the environment are not usable.
        """
        self._network = _Network()
        self._turns = threading.Semaphore(most)
        self._proxy = proxy_for(url)
        try:
            self._host = httpx.URL(url).host  # an xn-- name is decoded only when it is asked for
        except (httpx.InvalidURL, UnicodeError) as error:
            raise ConfigError(f"{url} has no valid host name", hint="check ATOM_SAAS_API_URL") from error
        # Creating a context takes time, and plain HTTP does not need one.
        context = tls_context(ca_file) if url.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._pool = httpcore.ConnectionPool(
            ssl_context=context,
            proxy=None if self._proxy is None else _as_httpcore(self._proxy, context),
            max_connections=most,
            max_keepalive_connections=most,
            keepalive_expiry=_KEPT_SECONDS,
            network_backend=self._network,
        )

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()
        self._network.close()

    def stop(self, signal_number: int) -> None:
        """Abort all current and future exchanges with Interrupted. A signal handler may call it."""
        self._network.stop(signal_number)

    @contextmanager
    def turn(self, check: Callable[[], None]) -> Iterator[None]:
        """Wait until a connection is free, and hold it in the block. `check` is called while waiting, and may raise."""
        while not self._turns.acquire(timeout=_CHECKED_SECONDS):
            self._network.check()
            check()
        try:
            yield
        finally:
            self._turns.release()

    def look_up(self, seconds: float) -> int:
        """Return the number of addresses of the host. Raises ConnectionFailed and MarketplaceTimeout."""
        self._network.exchange = _Exchange(seconds, self._host)
        try:
            return len(self._network.look_up(self._host, None))
        except httpcore.TimeoutException as error:
            raise MarketplaceTimeout(f"could not resolve {self._host} within {seconds:.0f} s") from error
        except httpcore.ConnectError as error:
            raise ConnectionFailed(f"could not resolve {self._host}: {cause_of(error) or error}") from error

    @contextmanager
    def exchange(self, request: httpx.Request, what: str, seconds: float) -> Iterator[httpx.Response]:
        """Send a request and yield the response; its raw body must be read within the block.

        The whole exchange, from name resolution to the last byte, takes at most `seconds`, and the body of an error
        response ERROR_BODY_SECONDS. Raises MarketplaceTimeout, ConnectionFailed, BadResponse, Interrupted.
        """
        self._network.check()
        exchange = self._network.exchange = _Exchange(seconds, what)
        status = 0
        try:
            response = self._pool.handle_request(_as_httpcore_request(request))
            status = response.status
            if status >= httpx.codes.BAD_REQUEST:
                exchange.ends = min(exchange.ends, time.monotonic() + ERROR_BODY_SECONDS)
            assert isinstance(response.stream, Iterable), "it is of the synchronous kind"
            try:
                yield httpx.Response(
                    status, headers=response.headers, stream=_Body(response.stream), extensions=response.extensions
                )
            finally:
                response.close()
        except httpcore.TimeoutException as error:
            raise MarketplaceTimeout(
                f"{what}: no complete response within {seconds:.0f} s{self._through()}",
                hint="raise ATOM_SAAS_API_TIMEOUT_SECONDS if this happens often",
            ) from error
        except _FAILURES as error:
            self._network.check()
            if status and not isinstance(error, httpcore.ProxyError):
                raise BadResponse(f"{what}: the response was truncated") from error
            raise self._failed(what, error) from error
        self._network.check()  # a body without a length merely seems to end there

    def _through(self) -> str:
        return f" through {self._proxy}" if self._proxy else ""

    def _failed(self, what: str, error: Exception) -> ConnectionFailed:
        cause = cause_of(error) or _printable(str(error)) or type(error).__name__
        if isinstance(error, httpcore.RemoteProtocolError) and "disconnected" not in cause:
            cause = "the response is not valid HTTP"  # the parser repeats the bytes, which may contain the token
        message = f"{what}: the connection to {self._host}{self._through()} failed: {cause}"
        if is_of_tls(error):
            hint = "check ATOM_SAAS_API_URL and this machine's clock; for a private authority, set ATOM_SAAS_CA_FILE"
            return TlsFailed(message, hint=hint)
        hint = "check ATOM_SAAS_API_URL, DNS and firewall"
        if self._proxy is not None:
            hint = f"check {self._proxy.variable}, or exclude {self._host} with NO_PROXY"
        return ConnectionFailed(message, hint=hint)


_FAILURES = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
)


def _printable(text: str) -> str:
    return without_hidden(text)[:120]


def _as_httpcore(proxy: Proxy, context: ssl.SSLContext) -> httpcore.Proxy:
    """Return the proxy in httpcore's form. Raises ConfigError."""
    try:
        known = httpx.Proxy(proxy.url)
    except (ValueError, UnicodeError, httpx.InvalidURL):  # their messages may contain the proxy's password
        raise ConfigError(f"{proxy.variable}: invalid proxy address") from None
    if known.url.scheme.startswith("socks") and find_spec("socksio") is None:
        raise ConfigError(
            f"{proxy.variable}: a SOCKS proxy needs the package socksio",
            hint="install it with atom-sync, use an HTTP proxy, or exclude this host with NO_PROXY",
        )
    return httpcore.Proxy(
        _as_httpcore_url(known.url),
        auth=known.raw_auth,
        ssl_context=context if known.url.scheme == "https" else None,
    )


def _as_httpcore_url(url: httpx.URL) -> httpcore.URL:
    return httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)


def _as_httpcore_request(request: httpx.Request) -> httpcore.Request:
    assert isinstance(request.stream, httpx.SyncByteStream), "it is of the synchronous kind"
    return httpcore.Request(
        request.method, _as_httpcore_url(request.url), headers=request.headers.raw, content=request.stream
    )


def log_request(log: logging.Logger, request: httpx.Request, code: str, received: int, seconds: float) -> None:
    """Log a request at level debug; `code` is the status, or the kind of the error."""
    if not log.isEnabledFor(logging.DEBUG):
        return
    path = request.url.raw_path.decode("ascii")
    cached = code == "304"
    log.debug(
        "%s %s: %s, %d bytes in %.0f ms%s",
        request.method,
        path,
        code,
        received,
        seconds * 1000,
        ", cache hit" if cached else "",
        extra={
            "method": request.method,
            "path": path,
            "status": code,
            "bytes": received,
            "milliseconds": round(seconds * 1000, 1),
            "cache_hit": cached,
        },
    )
