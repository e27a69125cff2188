"""Single requests for diagnosis (`doctor`): no retries, and a specific message for each failure."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from atom_saas_sync.errors import (
    BadResponse,
    ConnectionFailed,
    Interrupted,
    MarketplaceError,
    MarketplaceTimeout,
    RateLimited,
    WebSocketClosed,
)
from atom_saas_sync.marketplace.bodies import read_courtesy
from atom_saas_sync.marketplace.connections import Connections, log_request
from atom_saas_sync.marketplace.dialects import Dialect
from atom_saas_sync.marketplace.heads import http_date, redirect_target

_log = logging.getLogger(__name__)

_MOST_SECONDS = 10.0
_HTTP_REQUESTS = 2  # the health route and the list; the WebSocket has a connection of its own


class Probe:
    """Sends diagnostic requests to the marketplace. After `look_up`, threads may share it."""

    def __init__(
        self,
        *,
        api_url: str,
        ws_url: str,
        token: str,
        instance_id: str,
        dialect: Dialect,
        timeout_seconds: float,
        ca_file: Path | None,
        take: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        """`take` takes a request from the budget and returns 0, or returns the seconds until one is available."""
        self._api_url = api_url
        self._ws_url = ws_url
        self._token = token
        self._headers = {name: value.format(token=token, instance=instance_id) for name, value in dialect.headers}
        self._dialect = dialect
        self._timeout = min(timeout_seconds, _MOST_SECONDS)
        self._ca_file = ca_file
        self._take = take
        self._now = now
        self._connections: Connections | None = None
        self._cuts: list[Callable[[int], object]] = []
        self._stopped_by = 0

    def close(self) -> None:
        """Close all connections."""
        if self._connections is not None:
            self._connections.close()

    def look_up(self) -> int:
        """Return the number of addresses of the marketplace's host.

        Raises ConfigError, ConnectionFailed, MarketplaceTimeout, Interrupted.
        """
        connections = self._opened()
        with self._cut_by(connections.stop):
            return connections.look_up(self._timeout)

    def health(self) -> tuple[int, float | None]:
        """Return the status of the health route, and by how many seconds the marketplace's clock is ahead of ours.

        Raises ConnectionFailed, MarketplaceTimeout, RateLimited.
        """
        response = self._get(self._api_url + self._dialect.health_path)
        return response.status_code, self._skew(response)

    def skills(self) -> int:
        """Return the status of the list of skills, requested with the token.

        Raises ConnectionFailed, MarketplaceTimeout, RateLimited.
        """
        url = f"{self._api_url}{self._dialect.skills_path}?page=1&page_size=1"
        return self._get(url, self._headers).status_code

    def websocket(self) -> None:
        """Connect as `watch` does, then close the connection.

        Raises WebSocketClosed, RateLimited.
        """
        import asyncio

        from atom_saas_sync.marketplace.websocket import open_link

        async def connect() -> None:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            assert task is not None, "it runs as one"
            with self._cut_by(lambda _number: loop.call_soon_threadsafe(task.cancel)):
                link = await open_link(self._ws_url, self._token, on_frame=lambda: None, ca_file=self._ca_file)
                _log.debug("WebSocket %s: connected", urlsplit(self._ws_url).hostname)
                link.abort()

        self._take_request()
        try:
            asyncio.run(connect())
        except WebSocketClosed as error:
            _log.debug("WebSocket %s: %s", urlsplit(self._ws_url).hostname, error.message)
            raise
        except asyncio.CancelledError:
            raise Interrupted(self._stopped_by) from None

    def stop(self, signal_number: int) -> None:
        """Abort all current and future requests with Interrupted. A signal handler may call it."""
        self._stopped_by = signal_number
        for cut in tuple(self._cuts):
            cut(signal_number)

    def _get(self, url: str, headers: dict[str, str] | None = None) -> httpx.Response:
        """Send one request. Follows no redirect, so that the token stays with its origin."""
        self._take_request()
        request = httpx.Request("GET", url, headers=headers)
        connections, response = self._opened(), None
        began, code = time.monotonic(), ""
        try:
            with (
                self._cut_by(connections.stop),
                connections.exchange(request, f"GET {urlsplit(url).path}", self._timeout) as response,
            ):
                code = str(response.status_code)
                _check_redirect(request, response)
                read_courtesy(response)  # only so that the connection can be used again
        except MarketplaceError as error:
            code = code or error.kind
            if response is None or not isinstance(error, BadResponse | MarketplaceTimeout):
                raise
        finally:
            received = 0 if response is None else response.num_bytes_downloaded
            log_request(_log, request, code or "error", received, time.monotonic() - began)
        return response

    def _opened(self) -> Connections:
        if self._connections is None:
            self._connections = Connections(self._api_url, self._ca_file, most=_HTTP_REQUESTS)
        return self._connections

    @contextmanager
    def _cut_by(self, cut: Callable[[int], object]) -> Iterator[None]:
        self._cuts.append(cut)
        try:
            if self._stopped_by:
                cut(self._stopped_by)
            yield
        finally:
            self._cuts.remove(cut)

    def _take_request(self) -> None:
        wait = self._take()
        if wait > 0:
            raise RateLimited(f"no request is available for {wait:.0f} s: the rate limit is used up")

    def _skew(self, response: httpx.Response) -> float | None:
        theirs = http_date(response.headers.get("date"))
        return None if theirs is None else (theirs - self._now()).total_seconds()


def _check_redirect(request: httpx.Request, response: httpx.Response) -> None:
    if response.has_redirect_location and redirect_target(request.url, response.headers) is None:
        raise ConnectionFailed(f"{request.url.host} redirects to an invalid address")
