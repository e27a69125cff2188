"""The HTTP client (marketplace-api.md, section 3): one door for every request, with pacing, retries and limits."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import httpx
import tenacity

from atom_saas_sync import __version__
from atom_saas_sync.core.incoming import (
    is_utf8,
    parse_categories,
    parse_conflict,
    parse_receipt,
    parse_skill_page,
    parse_skill_ratings,
    read_skill,
)
from atom_saas_sync.core.outgoing import list_query, path_segment, rating_body, rating_headers
from atom_saas_sync.errors import (
    ApiError,
    BadResponse,
    ConnectionFailed,
    DeadlineReached,
    MarketplaceError,
    MarketplaceTimeout,
    RateLimited,
    TokenRefused,
)
from atom_saas_sync.marketplace.bodies import read_body
from atom_saas_sync.marketplace.dates import http_date
from atom_saas_sync.marketplace.dialects import Dialect
from atom_saas_sync.marketplace.time_limits import TimeLimit, TimeLimits
from atom_saas_sync.marketplace.tls import cause_of, http_client
from atom_saas_sync.model import (
    Category,
    InvalidItem,
    ListedPage,
    OutgoingRating,
    RatingConflict,
    RatingReceipt,
    ShownRatings,
    SkillVersion,
)

RETRIES = 3
LONGEST_RETRY_AFTER = 120.0
LONGEST_WAIT_FOR_BUDGET = 61.0  # a minute, and the second in which the oldest request was counted
MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_REDIRECTS = 5
MAX_CONNECTIONS = 10

_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_DEADLINE = "the deadline ended the run while it waited for the marketplace"
_CANNOT_UPDATE = frozenset({404, 405, 501})

log = logging.getLogger(__name__)
Parsed = TypeVar("Parsed")


class Clock(Protocol):
    """Time, handed in. `sleep` may raise Interrupted."""

    def now(self) -> datetime:
        """Return the aware wall-clock time."""

    def monotonic(self) -> float:
        """Return seconds that only grow."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class Budget(Protocol):
    """The requests that all processes together may still send."""

    def take(self, now: datetime) -> float:
        """Take one request and return 0.0, or return the seconds until one is free."""

    def learn(self, now: datetime, *, limit: int, remaining: int | None, reset_seconds: float | None) -> None:
        """Replace the default limits by what the marketplace said."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A good answer: 2xx, or 304 with an empty body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def not_modified(self) -> bool:
        """Tell whether what we have is still what they have."""
        return self.status == httpx.codes.NOT_MODIFIED

    @property
    def etag(self) -> str | None:
        """Return the validator for the next conditional request; none that could not be sent as it came."""
        etag = self.headers.get("etag")
        return etag if etag and etag.isascii() else None


class Statistics:
    """What went over the wire, counted by all threads of a run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.requests = 0
        self.not_modified = 0
        self.bytes_received = 0
        self.clock_skew_seconds: float | None = None
        self._by_endpoint: Counter[tuple[str, str]] = Counter()

    def count(self, endpoint: str, code: str, received: int) -> None:
        """Count one request; `code` is the HTTP status or the kind of error."""
        with self._lock:
            self.requests += 1
            self.bytes_received += received
            self.not_modified += code == "304"
            self._by_endpoint[endpoint, code] += 1

    def drain(self) -> dict[tuple[str, str], int]:
        """Return the requests by (endpoint, code) since the last call."""
        with self._lock:
            drained = dict(self._by_endpoint)
            self._by_endpoint.clear()
        return drained


class MarketplaceClient:
    """Speaks one dialect to one marketplace. Threads may share it; every method raises MarketplaceError."""

    def __init__(
        self,
        *,
        base_url: str,
        token: str,
        instance_id: str,
        dialect: Dialect,
        timeout_seconds: float,
        clock: Clock,
        budget: Budget,
        random: Callable[[], float],
        deadline: float | None = None,
        ca_file: Path | None = None,
    ) -> None:
        """Make a client. Raises ConfigError if the address or the proxy that the environment names cannot be used.

        `deadline` is the moment on the monotonic clock at which DeadlineReached ends all waiting; `random` gives
        numbers from 0 to 1 for the jitter.
        """
        self._base_url = base_url.rstrip("/")
        self._dialect = dialect
        self._timeout = timeout_seconds
        self._clock = clock
        self._budget = budget
        self._random = random
        self._deadline = deadline
        self._refused: TokenRefused | None = None
        self.statistics = Statistics()
        self._limits = TimeLimits()
        headers = {name: value.format(token=token, instance=instance_id) for name, value in dialect.headers}
        self._http = http_client(
            base_url,
            ca_file,
            headers={
                **headers,
                "Accept": "application/json",
                "Accept-Encoding": "gzip, zstd",
                "User-Agent": f"atom-sync/{__version__}",
            },
            timeout=timeout_seconds,
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS),
        )

    def close(self) -> None:
        """Close all connections."""
        self._http.close()
        self._limits.close()

    def list_skills(self, page: int, page_size: int, etag: str | None = None) -> ListedPage:
        """Fetch one page of the list; unchanged since `etag` if the server says so."""
        try:
            answer, parsed = self._get(
                "skills",
                self._dialect.skills_path,
                list_query(page, page_size),
                etag,
                partial(parse_skill_page, page=page, page_size=page_size),
            )
        except ApiError as error:
            if error.status == httpx.codes.NOT_FOUND:
                raise BadResponse(
                    f"the marketplace has no list of skills at {self._base_url}{self._dialect.skills_path} (404)",
                    hint="check ATOM_SAAS_API_URL and ATOM_SAAS_API_DIALECT",
                ) from error
            raise
        return ListedPage(page=parsed, etag=answer.etag or (etag if answer.not_modified else None))

    def list_key(self, page_size: int) -> str:
        """Return the name of the list, to which a page's number is added: what validators and pages belong to."""
        return f"{self._base_url}{self._dialect.skills_path}?page_size={page_size}&page="

    def resource_of_categories(self) -> str:
        """Return the name under which the validator of the categories is stored."""
        return f"{self._base_url}{self._dialect.categories_path}"

    def get_skill(self, skill_id: str) -> SkillVersion | InvalidItem | None:
        """Fetch one skill; None if the marketplace has none of that id (404)."""
        try:
            _, parsed = self._get("skill", self._dialect.skill_path(skill_id), {}, None, read_skill)
        except ApiError as error:
            if error.status == httpx.codes.NOT_FOUND:
                return None
            raise
        return parsed

    def list_categories(
        self, etag: str | None = None
    ) -> tuple[tuple[list[Category], list[InvalidItem]] | None, str | None]:
        """Fetch the categories and the validator; None in place of them if they are unchanged since `etag`."""
        try:
            answer, parsed = self._get("categories", self._dialect.categories_path, {}, etag, parse_categories)
        except ApiError as error:
            if error.status == httpx.codes.NOT_FOUND:
                raise BadResponse(
                    f"the marketplace has no categories at {self._base_url}{self._dialect.categories_path} (404)",
                    hint="check ATOM_SAAS_API_URL and ATOM_SAAS_API_DIALECT",
                ) from error
            raise
        return parsed, answer.etag or (etag if answer.not_modified else None)

    # Ratings

    def send_rating(self, rating: OutgoingRating, key: str) -> RatingReceipt | RatingConflict:
        """Send a user's first rating of a skill; a conflict if the marketplace has one already.

        `key` lets the marketplace know a repeated request from a new one: store it before the first.
        """

        def attempt() -> RatingReceipt | RatingConflict:
            answer = self._send(
                "ratings",
                "POST",
                self._dialect.rating_path_for(rating.skill_id),
                headers=rating_headers(key),
                body=rating_body(rating),
                accepted=frozenset({httpx.codes.CONFLICT}),
            )
            if answer.status == httpx.codes.CONFLICT:
                return RatingConflict(parse_conflict(answer.body, skill_id=rating.skill_id, user_id=rating.user_id))
            return parse_receipt(answer.body)

        return self.retrying(attempt)

    def update_rating(self, rating: OutgoingRating, rating_id: str, key: str) -> RatingReceipt | None:
        """Put a newer rating in the place of one that the marketplace has; None if it can't update ratings."""
        path = f"{self._dialect.rating_path_for(rating.skill_id)}/{path_segment(rating_id)}"

        def attempt() -> RatingReceipt | None:
            answer = self._send(
                "ratings",
                "PUT",
                path,
                headers=rating_headers(key),
                body=rating_body(rating),
                accepted=_CANNOT_UPDATE,
            )
            return None if answer.status in _CANNOT_UPDATE else parse_receipt(answer.body, known_id=rating_id)

        return self.retrying(attempt)

    def resource_of_ratings(self) -> str:
        """Return the name of this marketplace's ratings; with a skill's id behind it, that of the skill's."""
        return f"ratings at {self._base_url}{self._dialect.skills_path} of "

    def ratings_of(self, skill_id: str, etag: str | None = None) -> ShownRatings:
        """Fetch the ratings of one skill; none if the marketplace has no such skill."""
        try:
            answer, parsed = self._get("skill", self._dialect.skill_path(skill_id), {}, etag, parse_skill_ratings)
        except ApiError as error:
            if error.status == httpx.codes.NOT_FOUND:
                return ShownRatings((), None)
            raise
        return ShownRatings(parsed, answer.etag or (etag if answer.not_modified else None))

    # Inside

    def _get(
        self,
        endpoint: str,
        path: str,
        params: Mapping[str, str],
        etag: str | None,
        parse: Callable[[bytes], Parsed],
    ) -> tuple[Answer, Parsed | None]:
        headers = {"If-None-Match": etag} if etag else {}
        attempts = 0

        def attempt() -> tuple[Answer, Parsed | None]:
            nonlocal attempts
            attempts += 1
            answer = self._send(endpoint, "GET", path, params=params, headers=headers)
            # Probably damaged on its way; if it stays so, only the item that it is in is unusable.
            if attempts <= RETRIES and not is_utf8(answer.body):
                raise BadResponse(f"GET {path}: the body is not valid UTF-8")
            return answer, None if answer.not_modified else parse(answer.body)

        return self.retrying(attempt)

    def retrying(self, attempt: Callable[[], Parsed]) -> Parsed:
        """Call `attempt` until it succeeds, fails for good, or has failed once more than RETRIES times."""
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(RETRIES + 1),
            retry=tenacity.retry_if_exception(_is_transient),
            wait=self._wait_before_retry,
            sleep=self._sleep,
            before_sleep=self._before_retry,
            reraise=True,
        )
        return retrying(attempt)

    def _before_retry(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        wait = state.next_action.sleep if state.next_action else 0.0
        if self._deadline is not None and self._clock.monotonic() + wait > self._deadline:
            raise DeadlineReached(f"{_DEADLINE}: {error}")
        log.info("%s; trying again in %.1f s (%d of %d)", error, wait, state.attempt_number, RETRIES)

    def _wait_before_retry(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        retry_after = getattr(error, "retry_after", None)
        if retry_after is not None:
            return min(float(retry_after), LONGEST_RETRY_AFTER)
        pause = float(2 ** (state.attempt_number - 1))
        return pause * (0.75 + self._random() / 2)

    def _sleep(self, seconds: float) -> None:
        if self._deadline is not None and self._clock.monotonic() + seconds > self._deadline:
            raise DeadlineReached(_DEADLINE)
        self._clock.sleep(seconds)

    def _wait_for_budget(self) -> None:
        while (wait := self._budget.take(self._clock.now())) > 0:
            if wait > LONGEST_WAIT_FOR_BUDGET:
                raise RateLimited(
                    f"the request budget is used up; the next request is free in {wait:.0f} s",
                    hint="try again later; the run goes on from where it stopped",
                )
            self._sleep(wait)

    def _send(
        self,
        endpoint: str,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        accepted: frozenset[int] = frozenset(),
    ) -> Answer:
        """Send a request, following redirects; answers with a status of `accepted` are answers, no errors."""
        url = httpx.URL(f"{self._base_url}{path}", params=params or None)
        for _ in range(MAX_REDIRECTS + 1):
            self._wait_for_budget()
            if self._refused is not None:  # by an answer to another thread, or before a retry
                raise TokenRefused(self._refused.message, hint=self._refused.hint)
            answer = self._exchange(
                endpoint, self._http.build_request(method, url, headers=headers, content=body), accepted
            )
            if answer.status not in _REDIRECTS:
                return answer
            url = self._redirect_target(method, url, answer)
        raise _permanent(BadResponse(f"{method} {path}: more than {MAX_REDIRECTS} redirects"))

    def _redirect_target(self, method: str, url: httpx.URL, answer: Answer) -> httpx.URL:
        try:
            target = url.join(answer.headers.get("location", ""))
            elsewhere = (target.scheme, target.host, target.port) != (url.scheme, url.host, url.port)
        except (httpx.InvalidURL, UnicodeError) as error:
            raise _permanent(BadResponse(f"{method} {url.path}: redirected to no valid address")) from error
        if elsewhere:
            raise _permanent(
                BadResponse(
                    f"{method} {url.path}: redirected to another origin, which the token must not reach",
                    hint="check ATOM_SAAS_API_URL",
                )
            )
        if method != "GET" and answer.status not in {307, 308}:
            raise _permanent(BadResponse(f"{method} {url.path}: redirected with status {answer.status}"))
        return target

    def _exchange(self, endpoint: str, request: httpx.Request, accepted: frozenset[int]) -> Answer:
        """Send one request, read the whole answer, and raise what an error answer means."""
        started = self._clock.monotonic()
        seconds = self._timeout
        if self._deadline is not None:
            if started >= self._deadline:  # nothing new is sent, and no time-out blames the marketplace
                raise DeadlineReached(_DEADLINE)
            seconds = max(0.001, min(seconds, self._deadline - started))
        request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), seconds)
        what = f"{request.method} {request.url.path}"
        code, received = "error", 0
        try:
            with self._streaming(request, what, seconds) as response:
                code = str(response.status_code)
                self._note_headers(response)
                body = read_body(response, limit=MAX_BODY_BYTES, what=what)
                received = response.num_bytes_downloaded
        except MarketplaceError as error:
            code = code if code != "error" else error.kind
            if (
                isinstance(error, MarketplaceTimeout)
                and self._deadline is not None
                and self._clock.monotonic() >= self._deadline
            ):
                raise DeadlineReached(_DEADLINE) from error
            raise
        finally:
            self.statistics.count(endpoint, code, received)
            _log_request(request, code, received, self._clock.monotonic() - started)
        if response.status_code not in accepted:
            try:
                _raise_for_status(response, what, http_date(response.headers.get("date")) or self._clock.now())
            except TokenRefused as error:
                self._refused = error
                raise
        return Answer(response.status_code, response.headers, body)

    @contextmanager
    def _streaming(self, request: httpx.Request, what: str, seconds: float) -> Iterator[httpx.Response]:
        """Open the response, with one limit on the whole exchange."""
        limit: TimeLimit | None = None
        try:
            response = self._http.send(request, stream=True)
            limit = self._limits.begin(seconds, response.extensions["network_stream"].get_extra_info("socket"))
            try:
                yield response
                if limit.expired:  # a body without a length just seems to end there
                    raise _timed_out(what, seconds)
            finally:
                self._limits.end(limit)
                response.close()
        except UnicodeError as error:
            # Our own address was looked at before. Though it follows no redirect, httpx reads where it leads.
            raise _permanent(BadResponse(f"{what}: redirected to no valid address")) from error
        except httpx.TimeoutException as error:
            raise _timed_out(what, seconds) from error
        except httpx.TransportError as error:
            if limit is not None and limit.expired:
                raise _timed_out(what, seconds) from error
            if limit is not None and isinstance(error, httpx.ReadError | httpx.RemoteProtocolError):
                raise BadResponse(f"{what}: the answer was cut short") from error
            raise _not_connected(what, error) from error

    def _note_headers(self, response: httpx.Response) -> None:
        headers = response.headers
        now = self._clock.now()
        their_now = http_date(headers.get("date")) or now
        if self.statistics.clock_skew_seconds is None and "date" in headers:
            self.statistics.clock_skew_seconds = (their_now - now).total_seconds()
        limit = _first_integer(headers, "x-ratelimit-limit", "ratelimit-limit")
        if limit is not None and limit > 0:
            reset = _first_integer(headers, "x-ratelimit-reset", "ratelimit-reset")
            is_moment = reset is not None and reset > 1_000_000_000  # noqa: PLR2004 - an epoch time, no duration
            self._budget.learn(
                now,
                limit=limit,
                remaining=_first_integer(headers, "x-ratelimit-remaining", "ratelimit-remaining"),
                reset_seconds=None if reset is None else float(reset - their_now.timestamp() if is_moment else reset),
            )


def _log_request(request: httpx.Request, code: str, received: int, seconds: float) -> None:
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


def _timed_out(what: str, seconds: float) -> MarketplaceTimeout:
    return MarketplaceTimeout(
        f"{what}: no whole answer within {seconds:.0f} s", hint="raise ATOM_SAAS_API_TIMEOUT_SECONDS if this is usual"
    )


def _not_connected(what: str, error: httpx.TransportError) -> ConnectionFailed:
    cause = cause_of(error) or str(error) or type(error).__name__
    if isinstance(error, httpx.RemoteProtocolError) and "disconnected" not in cause:
        cause = "the answer is no valid HTTP"  # the parser's own words repeat the bytes, which may hold the token
    hint = "check ATOM_SAAS_API_URL, DNS, firewall and proxy"
    if cause.startswith("TLS"):
        hint = "check ATOM_SAAS_API_URL and this machine's clock; for a private authority, set ATOM_SAAS_CA_FILE"
    return ConnectionFailed(f"{what}: {cause}", hint=hint)


def _rating_headers(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key, "Content-Type": "application/json"}


def _first_integer(headers: Mapping[str, str], *names: str) -> int | None:
    for name in names:
        head = headers.get(name, "").split(",")[0].split(";")[0].strip()
        if head.isascii() and head.isdigit():
            return int(head[:18])
    return None


def _permanent(error: MarketplaceError) -> MarketplaceError:
    error.transient = False
    return error


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, MarketplaceError) and error.transient


def _raise_for_status(response: httpx.Response, what: str, now: datetime) -> None:
    """Raise what an error answer means (marketplace-api.md, "Errors and limits")."""
    status = response.status_code
    if status < httpx.codes.BAD_REQUEST:
        if status == httpx.codes.NOT_MODIFIED or status in _REDIRECTS or response.is_success:
            return
        raise _permanent(BadResponse(f"{what}: unexpected status {status}"))
    if status in {401, 403}:
        raise TokenRefused(
            f"{what}: the marketplace refused the token ({status})",
            hint="check ATOM_SAAS_API_TOKEN; get a new one in the dashboard, under settings, API tokens",
        )
    message = f"{what}: the marketplace answered {status}"
    error: MarketplaceError
    if status == httpx.codes.TOO_MANY_REQUESTS:
        error = RateLimited(message, hint="try again later; the run goes on from where it stopped")
        error.transient = True
    elif status in _RETRIED:
        error = ApiError(message, status=status, hint="the marketplace has trouble; try again later")
    else:
        error = ApiError(message, status=status, permanent=True)
    error.retry_after = _retry_after(response.headers.get("retry-after"), now)
    raise error


def _retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds that `Retry-After`, in either form, asks for."""
    if value is None:
        return None
    if value.isascii() and value.strip().isdigit():
        return float(value)
    moment = http_date(value)
    return None if moment is None else max(0.0, (moment - now).total_seconds())
