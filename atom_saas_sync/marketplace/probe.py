"""Single requests, made to find out what is wrong: no retries, every failure with its own words (`doctor`)."""

from __future__ import annotations

import socket
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from atom_saas_sync.errors import ConnectionFailed, MarketplaceTimeout, RateLimited
from atom_saas_sync.marketplace.dates import http_date
from atom_saas_sync.marketplace.dialects import Dialect
from atom_saas_sync.marketplace.tls import cause_of, http_client

_MOST_SECONDS = 10.0


class Probe:
    """Asks the marketplace one thing at a time."""

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
        """`take` takes a request from the budget and returns 0, or returns the seconds until one is free."""
        self._api_url = api_url
        self._ws_url = ws_url
        self._token = token
        self._headers = {name: value.format(token=token, instance=instance_id) for name, value in dialect.headers}
        self._dialect = dialect
        self._timeout = min(timeout_seconds, _MOST_SECONDS)
        self._ca_file = ca_file
        self._take = take
        self._now = now

    def look_up(self, url: str) -> int:
        """Return how many addresses the host of `url` has. Raises ConnectionFailed."""
        host = urlsplit(url).hostname or ""
        try:
            return len(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
        except OSError as error:
            raise ConnectionFailed(f"the name {host} is not known here: {error.strerror}") from error

    def health(self) -> tuple[int, float | None]:
        """Return the status of the health route, and the seconds that the marketplace's clock is ahead of ours.

        Raises ConnectionFailed, MarketplaceTimeout, RateLimited.
        """
        response = self._get(self._api_url + self._dialect.health_path)
        return response.status_code, self._skew(response)

    def skills(self) -> int:
        """Return the status of the list of skills, asked for with the token.

        Raises ConnectionFailed, MarketplaceTimeout, RateLimited.
        """
        url = f"{self._api_url}{self._dialect.skills_path}?page=1&page_size=1"
        return self._get(url, self._headers).status_code

    def websocket(self) -> None:
        """Connect as `watch` does, and close the connection at once.

        Raises LinkEnded, RateLimited.
        """
        import asyncio

        from atom_saas_sync.marketplace.websocket import open_link

        async def connect() -> None:
            link = await open_link(self._ws_url, self._token, on_frame=lambda: None, ca_file=self._ca_file)
            link.abort()

        self._take_request()
        asyncio.run(connect())

    def _get(self, url: str, headers: dict[str, str] | None = None) -> httpx.Response:
        """Make one request, read nothing of the body, and follow no redirect: the token stays with its origin."""
        self._take_request()
        host = urlsplit(url).hostname
        try:
            with (
                http_client(url, self._ca_file, timeout=self._timeout) as client,
                client.stream("GET", url, headers=headers) as response,
            ):
                return response
        except httpx.TimeoutException as error:
            raise MarketplaceTimeout(f"{host} gave no answer within {self._timeout:.0f} s") from error
        except UnicodeError as error:
            raise ConnectionFailed(f"{host} redirects to no valid address") from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise ConnectionFailed(f"no connection to {host}: {cause_of(error) or type(error).__name__}") from error

    def _take_request(self) -> None:
        wait = self._take()
        if wait > 0:
            raise RateLimited(f"no request is free for {wait:.0f} s: the marketplace's limits are used up")

    def _skew(self, response: httpx.Response) -> float | None:
        theirs = http_date(response.headers.get("date"))
        return None if theirs is None else (theirs - self._now()).total_seconds()
