"""Single requests for diagnosis (`doctor`): no retries, and a specific message for each failure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from atom_saas_sync.errors import ConnectionFailed, Interrupted, RateLimited
from atom_saas_sync.marketplace.connections import Connections
from atom_saas_sync.marketplace.dialects import Dialect
from atom_saas_sync.marketplace.heads import http_date, redirect_target

_MOST_SECONDS = 10.0


class Probe:
    """Sends diagnostic requests to the marketplace, one at a time."""

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
        self._cut: Callable[[int], object] | None = None
        self._stopped_by = 0

    def look_up(self, url: str) -> int:
        """Return the number of addresses of `url`. Raises ConnectionFailed, MarketplaceTimeout, Interrupted."""
        with self._connected(url) as connections:
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
                link.abort()

        self._take_request()
        try:
            asyncio.run(connect())
        except asyncio.CancelledError:
            raise Interrupted(self._stopped_by) from None

    def stop(self, signal_number: int) -> None:
        """Abort all current and future requests with Interrupted. A signal handler may call it."""
        self._stopped_by = signal_number
        if self._cut is not None:
            self._cut(signal_number)

    def _get(self, url: str, headers: dict[str, str] | None = None) -> httpx.Response:
        """Send one request. Does not read the body and follows no redirect, so that the token stays with its origin."""
        self._take_request()
        request = httpx.Request("GET", url, headers=headers)
        with (
            self._connected(url) as connections,
            connections.exchange(request, f"GET {urlsplit(url).path}", self._timeout) as response,
        ):
            if response.has_redirect_location and redirect_target(request.url, response.headers) is None:
                raise ConnectionFailed(f"{request.url.host} redirects to an invalid address")
            return response

    @contextmanager
    def _connected(self, url: str) -> Iterator[Connections]:
        connections = Connections(url, self._ca_file, most=1)
        try:
            with self._cut_by(connections.stop):
                yield connections
        finally:
            connections.close()

    @contextmanager
    def _cut_by(self, cut: Callable[[int], object]) -> Iterator[None]:
        self._cut = cut
        try:
            if self._stopped_by:
                cut(self._stopped_by)
            yield
        finally:
            self._cut = None

    def _take_request(self) -> None:
        wait = self._take()
        if wait > 0:
            raise RateLimited(f"no request is available for {wait:.0f} s: the rate limit is used up")

    def _skew(self, response: httpx.Response) -> float | None:
        theirs = http_date(response.headers.get("date"))
        return None if theirs is None else (theirs - self._now()).total_seconds()
