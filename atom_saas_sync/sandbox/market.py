"""The marketplace's HTTP: all three dialects at once (contract, sections 2 and 3).

Plain ASGI and not a framework's routing, because ids are percent-encoded path segments (`%2F`, `%2E%2E`) that only
the raw path still tells apart, and because faults need the connection itself.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qs, unquote

from atom_saas_sync import __version__
from atom_saas_sync.core.times import format_time
from atom_saas_sync.sandbox.encoding import Encoded, to_json
from atom_saas_sync.sandbox.journal import Journal, LoggedRequest
from atom_saas_sync.sandbox.state import MAX_PAGE_SIZE, State

Scope = Any
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

MOTHERSHIP_BASE = ["api", "v1", "marketplace"]


@dataclass(frozen=True, slots=True)
class Route:
    """What a path means: the endpoint, and whose token header counts."""

    endpoint: str  # list, skill, categories, ratings, health
    dialect: str
    skill_id: str = ""
    rating_id: str = ""


@dataclass(slots=True)
class Request:
    """The parts of a request that the answers depend on."""

    route: Route
    method: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""


@dataclass(slots=True)
class Answer:
    """What will be sent, before compression and faults."""

    status: int
    content: Encoded
    headers: list[tuple[str, str]] = field(default_factory=list)


def problem(status: int, message: str, *headers: tuple[str, str], **fields: object) -> Answer:
    """Return an error answer with a JSON body."""
    return Answer(status, Encoded(to_json({"success": False, "error": message, **fields})), list(headers))


def find_route(raw_path: str) -> Route | None:
    """Return what the path means, or None. Segments are decoded one by one, so `%2F` stays inside an id."""
    segments = [unquote(segment) for segment in raw_path.split("/")[1:]]
    if segments[:3] == MOTHERSHIP_BASE:
        segments = segments[3:]  # the mothership's base URL has a path of its own
    match segments:
        case ["health"]:
            return Route("health", "v1")
        case ["api", "v1", *rest]:
            return _find_plain("v1", rest)
        case ["skills", "marketplace", "skills", *rest] if rest:
            return _find_mothership(rest)
        case ["skills", "marketplace", "skills"]:
            return Route("list", "mothership")
        case ["skills", "marketplace", "categories"]:
            return Route("categories", "mothership")
        case _:
            return _find_plain("plain", segments)


def _find_plain(dialect: str, segments: list[str]) -> Route | None:
    match segments:
        case ["skills"]:
            return Route("list", dialect)
        case ["skills", skill_id]:
            return Route("skill", dialect, skill_id)
        case ["categories"]:
            return Route("categories", dialect)
        case ["ratings"]:
            return Route("ratings", dialect)
        case ["ratings", rating_id]:
            return Route("ratings", dialect, rating_id=rating_id)
        case _:
            return None


def _find_mothership(segments: list[str]) -> Route | None:
    match segments:
        case [skill_id]:
            return Route("skill", "mothership", skill_id)
        case [skill_id, "rate"]:
            return Route("ratings", "mothership", skill_id)
        case [skill_id, "rate", rating_id]:
            return Route("ratings", "mothership", skill_id, rating_id)
        case _:
            return None


class RateLimiter:
    """A budget of requests in each minute, as one instance's token has it (contract, "Errors and limits")."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._window = 0.0
        self._used = 0

    def take(self) -> tuple[bool, int, int]:
        """Use one request; return whether it was free, how many remain, and the seconds until the budget is new."""
        now = time.monotonic()
        if now - self._window >= 60:  # noqa: PLR2004 - a minute
            self._window, self._used = now, 0
        self._used += 1
        seconds = max(1, round(self._window + 60 - now))
        return self._used <= self.limit, max(0, self.limit - self._used), seconds

    def reset(self) -> None:
        """Begin a new minute."""
        self._window = 0.0


class Market:
    """The ASGI application for everything that the contract names under HTTP."""

    def __init__(self, state: State, journal: Journal, *, token: str, rate_limit: int, latency: float = 0.0) -> None:
        self._state = state
        self._journal = journal
        self.token = token
        self.limiter = RateLimiter(rate_limit)
        self.latency = latency

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer one request."""
        raw_path = scope["raw_path"].decode("ascii")
        query = scope["query_string"].decode("ascii", "replace")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        route = find_route(raw_path)
        entry = self._journal.begin(
            LoggedRequest(scope["method"], raw_path, query, route.endpoint if route else "", headers.copy())
        )
        if self.latency:
            await asyncio.sleep(self.latency)
        free, remaining, reset = self.limiter.take()
        limits = [
            ("x-ratelimit-limit", str(self.limiter.limit)),
            ("x-ratelimit-remaining", str(remaining)),
            ("x-ratelimit-reset", str(int(self._state.now().timestamp()) + reset)),
        ]
        if not free:
            answer = problem(429, "rate limit exceeded", ("retry-after", str(reset)))
        elif route is None:
            answer = problem(404, "no such path in this sandbox")
        else:
            values = {name: found[-1] for name, found in parse_qs(query, keep_blank_values=True).items()}
            answer = self._answer(Request(route, scope["method"], values, headers))
        await self._send(answer, headers, limits, entry, send)

    def _answer(self, request: Request) -> Answer:
        route, method = request.route, request.method
        if method != "GET":
            return problem(405, f"{method} is not allowed here", ("allow", "GET"))
        if route.endpoint == "health":
            return self._health()
        if not self._is_allowed(request):
            return problem(401, "token refused", ("www-authenticate", "Bearer"))
        if route.endpoint == "list":
            return self._list(request)
        if route.endpoint == "categories":
            return Answer(200, self._state.encoded_categories(bare=route.dialect == "mothership"))
        return self._skill(route.skill_id)

    def _is_allowed(self, request: Request) -> bool:
        if request.route.dialect == "mothership":
            given = request.headers.get("x-api-token", "")
        else:
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            given = given.strip() if scheme.lower() == "bearer" else ""
        return hmac.compare_digest(given.encode(), self.token.encode())

    def _health(self) -> Answer:
        document = {
            "status": "healthy",
            "timestamp": format_time(self._state.now()),
            "version": __version__,
            "sandbox": True,
            "note": "a local sandbox, not the real marketplace",
        }
        return Answer(200, Encoded(to_json(document)))

    def _list(self, request: Request) -> Answer:
        try:
            page = int(request.query.get("page", "1"))
            page_size = int(request.query.get("page_size", "100"))
        except ValueError:
            return problem(422, "page and page_size must be whole numbers")
        if page < 1 or page_size < 1:
            return problem(422, "page and page_size count from 1")
        filters = request.query.get("query", ""), request.query.get("category", "")
        return Answer(200, self._state.encoded_page(page, min(page_size, MAX_PAGE_SIZE), *filters))

    def _skill(self, skill_id: str) -> Answer:
        try:
            return Answer(200, self._state.encoded_skill(skill_id))
        except KeyError:
            return problem(404, "no such skill")

    async def _send(
        self,
        answer: Answer,
        request_headers: dict[str, str],
        limits: list[tuple[str, str]],
        entry: LoggedRequest,
        send: Send,
    ) -> None:
        content, status = answer.content, answer.status
        headers = [
            ("date", format_datetime(self._state.now(), usegmt=True)),
            ("server", "atom-sync-sandbox"),
            *limits,
            *answer.headers,
        ]
        coding = content.choose(request_headers.get("accept-encoding", ""))
        body = b""
        if status == 200:  # noqa: PLR2004 - only whole representations have validators
            headers += [("etag", content.etag(coding)), ("vary", "Accept-Encoding"), ("cache-control", "no-cache")]
            if content.matches(request_headers.get("if-none-match", "")):
                status = 304
        if status != 304:  # noqa: PLR2004 - Not Modified has no body
            body = content.body(coding)
            headers += [("content-type", "application/json"), ("content-length", str(len(body)))]
            if coding != "identity":
                headers.append(("content-encoding", coding))
        entry.status, entry.bytes = status, len(body)
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers]
        await send({"type": "http.response.start", "status": status, "headers": encoded})
        await send({"type": "http.response.body", "body": body})
        self._journal.notify()
