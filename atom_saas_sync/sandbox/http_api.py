"""The marketplace's HTTP API in all three dialects (contract, sections 2 and 3).

Plain ASGI instead of a framework's router: ids are percent-encoded path segments (`%2F`, `%2E%2E`) that only the raw
path preserves, and faults need access to the connection.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import format_datetime
from urllib.parse import parse_qs, unquote

from atom_saas_sync import __version__
from atom_saas_sync.sandbox.catalogue import Json
from atom_saas_sync.sandbox.encoding import Encoded, to_json
from atom_saas_sync.sandbox.faults import Faults, Strikes, spoil, write_deep
from atom_saas_sync.sandbox.journal import Journal, LoggedRequest
from atom_saas_sync.sandbox.sending import MAX_BODY, REDIRECTED, Link, Receive, Scope, Send, Sender, read_body
from atom_saas_sync.sandbox.state import MAX_PAGE_SIZE, State
from atom_saas_sync.times import format_time

_CONTENT = {"wrong_form", "empty_list", "total", "total_pages", "invalid_items", "broken_items", "no_rating_id"} | {
    *("conflict_form", "old_ids", "other_list"),
}

MOTHERSHIP_BASE = ["api", "v1", "marketplace"]


@dataclass(frozen=True, slots=True)
class Route:
    """The endpoint and the dialect's token header that belong to a path."""

    endpoint: str  # list, skill, categories, ratings, health
    dialect: str
    skill_id: str = ""
    rating_id: str = ""


@dataclass(slots=True)
class Request:
    """The parts of a request that determine the response."""

    route: Route
    method: str
    query: dict[str, str]
    headers: dict[str, str]
    page_cap: int = MAX_PAGE_SIZE
    body: bytes = b""


@dataclass(slots=True)
class Answer:
    """A response before compression and faults."""

    status: int
    content: Encoded
    headers: list[tuple[str, str]] = field(default_factory=list)


def problem(status: int, message: str, /, *headers: tuple[str, str], **fields: object) -> Answer:
    """Return an error response with a JSON body."""
    return Answer(status, Encoded(to_json({"success": False, "error": message, **fields})), list(headers))


def find_route(raw_path: str) -> Route | None:
    """Return the route of a path, or None. Segments are decoded one by one, so `%2F` stays inside an id."""
    segments = [unquote(segment) for segment in raw_path.split("/")[1:]]
    if segments[:3] == MOTHERSHIP_BASE:
        segments = segments[3:]  # the base URL of the mothership dialect has a path
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
    """The request budget per minute of one instance's token (contract, "Errors and limits")."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._window = 0.0
        self._used = 0

    def take(self) -> tuple[bool, int, int]:
        """Consume one request; return whether it was allowed, how many remain, and the seconds until the reset."""
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
    """The ASGI application for the contract's HTTP part.

    It calls `publish(type, data)` for changes that listeners are notified of.
    """

    def __init__(
        self,
        state: State,
        journal: Journal,
        faults: Faults,
        publish: Callable[[str, Json], None],
        *,
        token: str,
        rate_limit: int,
        link: Link,
    ) -> None:
        self._state = state
        self._journal = journal
        self._faults = faults
        self._publish = publish
        self._drifted = 0
        self.token = token
        self.limiter = RateLimiter(rate_limit)
        self.link = link

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or apply a fault instead."""
        raw_path = scope["raw_path"].decode("ascii").removeprefix(REDIRECTED)
        query_string = scope["query_string"].decode("ascii", "replace")
        query = {name: found[-1] for name, found in parse_qs(query_string, keep_blank_values=True).items()}
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        route = find_route(raw_path) or Route("", "")
        request = Request(route, scope["method"], query, headers)
        entry = self._journal.begin(
            LoggedRequest(
                request.method, scope["raw_path"].decode("ascii"), query_string, route.endpoint, headers.copy()
            )
        )
        page = int(query["page"]) if query.get("page", "").isdecimal() else 1
        strikes = self._faults.take(route.endpoint, request.method, page, route.skill_id)
        if scope["raw_path"].startswith(REDIRECTED.encode()):
            strikes = Strikes(tuple(found for found in strikes.found if found[0].kind != "redirect"))
        out = Sender(scope, receive, send, strikes, self.link)
        delay = self.link.latency + strikes.delay()
        if delay:
            await asyncio.sleep(delay)
        if fault := strikes.get("drop"):
            out.drop(reset=fault.value == "reset")
        elif (fault := strikes.get("hang")) and fault.value != "body":
            await out.hang()
        else:
            request.body = await read_body(receive) if request.method in ("POST", "PUT") else b""
            limit_headers, refusal = self._use_budget(strikes)
            answer = refusal or self._fault_answer(scope, request, strikes) or self._answer(request, strikes, entry)
            answer.headers += limit_headers
            self._drift(strikes)
            if strikes.get("store_then_drop"):
                out.drop(reset=False)
            else:
                await self._send(answer, request, entry, out)
        self._journal.notify()

    def _use_budget(self, strikes: Strikes) -> tuple[list[tuple[str, str]], Answer | None]:
        free, remaining, reset = self.limiter.take()
        headers = [
            ("x-ratelimit-limit", str(self.limiter.limit)),
            ("x-ratelimit-remaining", str(remaining)),
            ("x-ratelimit-reset", str(int(self._state.now().timestamp()) + reset)),
        ]
        if fault := strikes.get("limit_headers"):
            values = {"limit": self.limiter.limit, "remaining": remaining, "reset": reset}
            unprefixed = [(f"ratelimit-{name}", str(value)) for name, value in values.items()]
            headers = unprefixed if fault.value == "ietf" else []
        return headers, None if free else problem(429, "rate limit exceeded", ("retry-after", str(reset)))

    def _fault_answer(self, scope: Scope, request: Request, strikes: Strikes) -> Answer | None:
        """Return the response that a fault substitutes for the real one."""
        if fault := strikes.get("error"):
            extra = {"status": "unhealthy"} if request.route.endpoint == "health" else {}
            headers = fault.retry_after_header(self._state.now())
            return problem(fault.status, "a fault of the sandbox", *headers, **extra)
        if fault := strikes.get("redirect"):
            target = REDIRECTED + scope["raw_path"].decode("ascii")
            if scope["query_string"]:
                target += "?" + scope["query_string"].decode("ascii")
            origin = fault.location.rstrip("/")
            if not origin and fault.value == "other":
                # The same server under another name is another origin: the log shows whether the client sent the token
                # there.
                origin = f"http://localhost:{scope['server'][1]}"
            return problem(fault.status, "elsewhere", ("location", origin + target))
        return None

    def _answer(self, request: Request, strikes: Strikes, entry: LoggedRequest) -> Answer:
        route = request.route
        allowed = {"": (), "ratings": ("PUT",) if route.rating_id else ("POST",)}.get(route.endpoint, ("GET",))
        if not allowed:
            return problem(404, "no such path in this sandbox")
        if request.method not in allowed:
            return problem(405, f"{request.method} is not allowed here", ("allow", ", ".join(allowed)))
        if route.endpoint != "health" and not self._is_allowed(request):
            return problem(401, "token refused", ("www-authenticate", "Bearer"))
        if cap := strikes.get("page_cap"):
            request.page_cap = cap.amount
        answers: dict[str, Callable[[Request], Answer]] = {
            "health": self._health,
            "list": self._list,
            "skill": self._skill,
            "categories": self._categories,
            "ratings": lambda request: self._rating(request, entry),
        }
        answer = answers[route.endpoint](request)
        if answer.status != 404 and any(fault.kind in _CONTENT for fault, _ in strikes.found):  # noqa: PLR2004 - no content
            document = spoil(json.loads(answer.content.body("identity")), strikes)
            answer.content = Encoded(write_deep(to_json(document)))
        return answer

    def _is_allowed(self, request: Request) -> bool:
        if request.route.dialect == "mothership":
            given = request.headers.get("x-api-token", "")
        else:
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            given = given.strip() if scheme.lower() == "bearer" else ""
        return hmac.compare_digest(given.encode(), self.token.encode())

    def _health(self, _request: Request) -> Answer:
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
        page_size = min(page_size, request.page_cap, MAX_PAGE_SIZE)
        filters = request.query.get("query", ""), request.query.get("category", "")
        return Answer(200, self._state.encoded_page(page, page_size, *filters))

    def _skill(self, request: Request) -> Answer:
        try:
            return Answer(200, self._state.encoded_skill(request.route.skill_id))
        except KeyError:
            return problem(404, "no such skill")

    def _categories(self, request: Request) -> Answer:
        return Answer(200, self._state.encoded_categories(bare=request.route.dialect == "mothership"))

    def _rating(self, request: Request, entry: LoggedRequest) -> Answer:
        if len(request.body) > MAX_BODY:
            return problem(413, "the body is larger than 1 MiB")
        try:
            entry.body = json.loads(request.body)
        except (ValueError, RecursionError):
            return problem(400, "the body is not JSON")
        route = request.route
        if route.rating_id:
            outcome = self._state.put_rating(route.rating_id, entry.body, route.skill_id)
        else:
            key = request.headers.get("idempotency-key", "")
            outcome = self._state.post_rating(entry.body, key, route.skill_id)
        document = outcome.document
        if outcome.stored:
            keys = ("skill_id", "rating", "average_rating", "rating_count")
            self._publish("rating_update", {key: document[key] for key in keys})
        return Answer(outcome.status, Encoded(to_json(document)))

    def _drift(self, strikes: Strikes) -> None:
        """Add or remove skills while a client reads the list."""
        fault = strikes.get("drift")
        for _ in range(fault.amount if fault else 0):
            if fault and fault.value == "remove":
                self._state.delete_skill(self._state.ids()[0])
            else:
                self._drifted += 1
                skill = {
                    "skill_id": f"drift-{self._drifted}",
                    "name": f"Drifted in {self._drifted}",
                    "version": "1.0.0",
                }
                self._state.put_skill(skill, position=0)

    async def _send(self, answer: Answer, request: Request, entry: LoggedRequest, out: Sender) -> None:
        content, status = answer.content, answer.status
        headers = [
            ("date", format_datetime(self._state.now(), usegmt=True)),
            ("server", "atom-sync-sandbox"),
            *answer.headers,
        ]
        coding = content.choose(request.headers.get("accept-encoding", ""))
        body = b""
        if status == 200 and request.method == "GET" and request.route.endpoint != "health":  # noqa: PLR2004 - cacheable
            headers += [("etag", content.etag(coding)), ("vary", "Accept-Encoding"), ("cache-control", "no-cache")]
            if content.matches(request.headers.get("if-none-match", "")):
                status = 304
        if status not in (204, 304):
            body = content.body(coding)
            headers.append(("content-type", "application/json"))
            if coding != "identity":
                headers.append(("content-encoding", coding))
        entry.status = status
        entry.bytes = await out.send(status, headers, body, content)
