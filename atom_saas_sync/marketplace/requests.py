"""Single requests: rate limiting, retries, redirects, time limits, error responses (marketplace-api.md, section 3)."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import httpx
from msgspec import Struct

from atom_saas_sync import __version__
from atom_saas_sync.core.incoming.bodies import check_memory, is_utf8
from atom_saas_sync.core.incoming.errors import error_words
from atom_saas_sync.errors import (
    ApiError,
    AtomSyncError,
    BadResponse,
    DeadlineReached,
    MarketplaceError,
    MarketplaceTimeout,
    NoRoom,
    RateLimited,
    TokenRefused,
    TooLarge,
)
from atom_saas_sync.marketplace.bodies import read_body, read_courtesy
from atom_saas_sync.marketplace.connections import Connections, log_request
from atom_saas_sync.marketplace.heads import http_date, rate_limit, redirect_target, retry_after, usable_etag
from atom_saas_sync.marketplace.words import plain

if TYPE_CHECKING:
    import tenacity

RETRIES = 3
LONGEST_RETRY_AFTER = 120.0
LONGEST_WAIT_FOR_BUDGET = 61.0  # one minute, plus the second in which the oldest request was counted
MAX_BODY_BYTES = 16 * 1024 * 1024
MAX_REDIRECTS = 5
MAX_CONNECTIONS = 10

_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_DEADLINE = "the deadline passed while the run waited for the marketplace"
_TOO_LARGE_A_HEAD = frozenset({400, 413, 431})
_PAGE_OF_HTML = b"<"

log = logging.getLogger(__name__)
Parsed = TypeVar("Parsed")


class Clock(Protocol):
    """An injected clock. `sleep` may raise Interrupted."""

    def now(self) -> datetime:
        """Return the aware wall-clock time."""

    def monotonic(self) -> float:
        """Return the monotonic time in seconds."""

    def sleep(self, seconds: float, over: threading.Event | None = None) -> None:
        """Wait, until `over` is set at most."""


class Budget(Protocol):
    """The requests that all processes together may still send."""

    def take(self, now: datetime) -> float:
        """Take one request and return 0.0, or return the seconds until one is available."""

    def learn(self, now: datetime, *, limit: int, remaining: int | None, reset_seconds: float | None) -> None:
        """Replace the default limits with those that the marketplace declared."""


class Answer(Struct, frozen=True):
    """A successful response: 2xx, or 304 with an empty body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def not_modified(self) -> bool:
        """Tell whether our copy is still current (304)."""
        return self.status == httpx.codes.NOT_MODIFIED

    @property
    def etag(self) -> str | None:
        """Return the validator for the next conditional request; None if it cannot be sent."""
        return usable_etag(self.headers.get("etag"))


class Statistics:
    """Traffic counters, shared by all threads of a run."""

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


class Requests:
    """A sender of requests to one marketplace. Threads may share it; every method raises MarketplaceError."""

    def __init__(
        self,
        *,
        base_url: str,
        token: str,
        headers: Mapping[str, str],
        timeout_seconds: float,
        clock: Clock,
        budget: Budget,
        random: Callable[[], float],
        deadline: float | None,
        ca_file: Path | None,
        connections: Connections | None = None,
    ) -> None:
        """Take the arguments of `MarketplaceClient`."""
        self.base_url = base_url.rstrip("/")
        self._timeout = timeout_seconds
        self._clock = clock
        self._budget = budget
        self._random = random
        self._deadline = deadline
        self._refused: TokenRefused | None = None
        self._refusal = threading.Event()
        self._paused = (float("-inf"), 0)
        self.statistics = Statistics()
        self._token = token
        self._headers = {
            **headers,
            "Accept": "application/json",
            "Accept-Encoding": "gzip, zstd",
            "User-Agent": f"atom-sync/{__version__}",
        }
        self._connections = connections or Connections(base_url, ca_file, most=MAX_CONNECTIONS)
        self._shares = connections is not None

    def close(self) -> None:
        """Close all connections that are not shared."""
        if not self._shares:
            self._connections.close()

    def stop(self, signal_number: int) -> None:
        """Abort all current and future requests with Interrupted. A signal handler may call it."""
        self._connections.stop(signal_number)

    def get(
        self,
        endpoint: str,
        path: str,
        params: Mapping[str, str],
        etag: str | None,
        parse: Callable[[bytes], Parsed],
        *,
        intact: bool = True,
        admit: Callable[[int], bool] | None = None,
        over: threading.Event | None = None,
    ) -> tuple[Answer, Parsed | None]:
        """Fetch and parse; None instead of the parsed value if it still matches `etag`.

        With `intact`, a body that is not UTF-8 is retried; the last one is parsed as it is. `admit` tells whether there
        is room for a body of that size; if not, this raises NoRoom, and as soon as `over` is set, instead of a pause.
        """
        condition = {"If-None-Match": etag} if etag is not None and usable_etag(etag) else {}
        attempts = 0

        def attempt() -> tuple[Answer, Parsed | None]:
            nonlocal attempts
            attempts += 1
            try:
                answer = self.send(endpoint, "GET", path, params=params, headers=condition, admit=admit, over=over)
            except ApiError as error:
                if not condition or error.status not in _TOO_LARGE_A_HEAD:
                    raise
                condition.clear()
                answer = self.send(endpoint, "GET", path, params=params, admit=admit, over=over)
            if answer.not_modified:
                if not condition:  # nobody may take it for "there is none"
                    raise BadResponse(f"GET {path}: 'not modified' (304), although the request had no condition")
                return answer, None
            # Probably damaged in transit; if it stays damaged, only the affected item is invalid.
            if intact and attempts <= RETRIES and not is_utf8(answer.body):
                raise BadResponse(f"GET {path}: the body is not valid UTF-8")
            try:
                if endpoint != "skills":  # only the changed items of a page are decoded
                    check_memory(answer.body, f"GET {path}: the response")
                return answer, parse(answer.body)
            except BadResponse as error:
                self._hint_at_a_web_page(error, answer.body)
                raise

        return self.retrying(attempt, over)

    def retrying(self, attempt: Callable[[], Parsed], over: threading.Event | None = None) -> Parsed:
        """Call `attempt` until it succeeds, fails permanently, or has failed after RETRIES retries."""
        try:
            return attempt()
        except MarketplaceError as error:
            if not _is_transient(error):
                raise
            return self._retry(attempt, error, over)

    def _retry(self, attempt: Callable[[], Parsed], failed: MarketplaceError, over: threading.Event | None) -> Parsed:
        """Retry `attempt`, whose first call ended with the error `failed`."""
        import tenacity  # only a run that retries needs it, and it takes a fiftieth of one that finds nothing new

        first = [failed]

        def again() -> Parsed:
            if first:
                raise first.pop()
            return attempt()

        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(RETRIES + 1),
            retry=tenacity.retry_if_exception(_is_transient),
            wait=self._wait_before_retry,
            sleep=partial(self._sleep, over=over),
            before_sleep=self._before_retry,
            reraise=True,
        )
        return retrying(again)

    def _before_retry(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        wait = state.next_action.sleep if state.next_action else 0.0
        if self._deadline is not None and self._clock.monotonic() + wait > self._deadline:
            raise DeadlineReached(f"{_DEADLINE}: {error}")
        log.info("%s; trying again in %.1f s (%d of %d)", error, wait, state.attempt_number, RETRIES)

    def _wait_before_retry(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = float(getattr(error, "retry_after", None) or 0)
        pause = float(2 ** (state.attempt_number - 1)) * (0.75 + self._random() / 2)
        return max(pause, min(asked, LONGEST_RETRY_AFTER))

    def _sleep(self, seconds: float, over: threading.Event | None) -> None:
        """Wait. A token that is refused meanwhile ends it with TokenRefused, and `over` with NoRoom."""
        if self._deadline is not None and self._clock.monotonic() + seconds > self._deadline:
            raise DeadlineReached(_DEADLINE)
        self._clock.sleep(seconds, over or self._refusal)
        if over is not None and over.is_set():
            raise NoRoom("it is no longer needed")
        self._raise_if_refused()

    def _pause_others(self, seconds: float | None) -> None:
        """Keep the other threads from sending while this one waits as long as the marketplace asked for."""
        end = self._clock.monotonic() + min(float(seconds or 0), LONGEST_RETRY_AFTER)
        if seconds and end > self._paused[0]:
            self._paused = (end, threading.get_ident())

    def _wait_for_pause(self, over: threading.Event | None) -> None:
        end, asked = self._paused
        wait = end - self._clock.monotonic()
        if wait > 0 and asked != threading.get_ident():
            self._sleep(wait, over)

    def _wait_for_budget(self, over: threading.Event | None) -> None:
        while (wait := self._budget.take(self._clock.now())) > 0:
            if wait > LONGEST_WAIT_FOR_BUDGET:
                raise RateLimited(
                    f"the request budget is used up; the next request is available in {wait:.0f} s",
                    hint="try again later; the next run continues where this one stopped",
                )
            self._sleep(wait, over)

    def send(
        self,
        endpoint: str,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        accepted: frozenset[int] = frozenset(),
        admit: Callable[[int], bool] | None = None,
        over: threading.Event | None = None,
    ) -> Answer:
        """Send a request, following redirects; a status in `accepted` is not an error."""
        what = f"{method} {path}"  # of the first request, so that messages contain nothing from a redirect
        url = httpx.URL(f"{self.base_url}{path}", params=params or None)
        for _ in range(MAX_REDIRECTS + 1):
            self._wait_for_pause(over)
            self._wait_for_budget(over)
            request = httpx.Request(method, url, headers={**self._headers, **(headers or {})}, content=body)
            with self._connections.turn(self._check):
                self._check()
                answer = self._exchange(endpoint, request, what, accepted, admit)
            if answer.status not in _REDIRECTS:
                return answer
            url = _redirect_target(what, url, answer)
        raise _permanent(BadResponse(f"{what}: more than {MAX_REDIRECTS} redirects"))

    def _raise_if_refused(self) -> None:
        if self._refused is not None:  # by a response to another thread, or before a retry
            raise TokenRefused(self._refused.message, hint=self._refused.hint)

    def _check(self) -> None:
        """Raise the reason why no more requests are sent, if there is one."""
        self._raise_if_refused()
        if self._deadline is not None and self._clock.monotonic() >= self._deadline:
            raise DeadlineReached(_DEADLINE)  # not blaming the marketplace for a timeout

    def _exchange(
        self,
        endpoint: str,
        request: httpx.Request,
        what: str,
        accepted: frozenset[int],
        admit: Callable[[int], bool] | None,
    ) -> Answer:
        """Send one request, read the whole response, and raise the error that an error response means."""
        started = self._clock.monotonic()
        seconds = self._timeout
        if self._deadline is not None:
            seconds = max(0.001, min(seconds, self._deadline - started))
        code, received, body = "error", 0, b""
        try:
            with self._connections.exchange(request, what, seconds) as response:
                code = str(response.status_code)
                self._note_headers(response)
                if response.is_success:
                    body = read_body(response, limit=MAX_BODY_BYTES, what=what, admit=admit)
                else:
                    body = read_courtesy(response)
                received = response.num_bytes_downloaded
        except AtomSyncError as error:
            # The status of an error response matters more than the body that explains it.
            if not isinstance(error, MarketplaceError) or not code.startswith(("3", "4", "5")):
                code = error.kind if code == "error" else code
                over = self._deadline is not None and self._clock.monotonic() >= self._deadline
                if over and isinstance(error, MarketplaceTimeout):
                    raise DeadlineReached(_DEADLINE) from error
                raise
        finally:
            self.statistics.count(endpoint, code, received)
            log_request(log, request, code, received, self._clock.monotonic() - started)
        if response.status_code not in accepted:
            words = plain(error_words(body), self._token) if response.is_error else ""
            try:
                _raise_for_status(response, what, words, http_date(response.headers.get("date")) or self._clock.now())
            except TokenRefused as error:
                self._hint_at_a_web_page(error, body)
                self._refused = error
                self._refusal.set()
                raise
            except MarketplaceError as error:
                self._pause_others(error.retry_after)
                raise
        return Answer(response.status_code, response.headers, body)

    def _hint_at_a_web_page(self, error: MarketplaceError, body: bytes) -> None:
        if body.lstrip().startswith(_PAGE_OF_HTML):
            error.hint = (
                f"{self.base_url} answers with a web page: check ATOM_SAAS_API_URL, "
                "and that no login page or proxy answers in its place"
            )

    def _note_headers(self, response: httpx.Response) -> None:
        now = self._clock.now()
        their_now = http_date(response.headers.get("date"))
        if self.statistics.clock_skew_seconds is None and their_now is not None:
            self.statistics.clock_skew_seconds = (their_now - now).total_seconds()
        declared = rate_limit(response.headers, their_now or now)
        if declared is not None:
            self._budget.learn(
                now, limit=declared.limit, remaining=declared.remaining, reset_seconds=declared.reset_seconds
            )


def _redirect_target(what: str, url: httpx.URL, answer: Answer) -> httpx.URL:
    target = redirect_target(url, answer.headers)
    if target is None:
        raise _permanent(BadResponse(f"{what}: redirected to an invalid address", hint="check ATOM_SAAS_API_URL"))
    if (target.scheme, target.host, target.port) != (url.scheme, url.host, url.port):
        raise _permanent(
            BadResponse(
                f"{what}: redirected to another origin, which the token must not reach",
                hint="check ATOM_SAAS_API_URL",
            )
        )
    if not what.startswith("GET ") and answer.status not in {307, 308}:
        raise _permanent(BadResponse(f"{what}: redirected with status {answer.status}"))
    return target


def _permanent(error: MarketplaceError) -> MarketplaceError:
    error.transient = False
    return error


def _is_transient(error: BaseException) -> bool:
    # The same request would bring the same large response a second later.
    return isinstance(error, MarketplaceError) and error.transient and not isinstance(error, TooLarge)


def _raise_for_status(response: httpx.Response, what: str, words: str, now: datetime) -> None:
    """Raise the error that a response means (marketplace-api.md, "Errors and limits"); `words` is its text."""
    status = response.status_code
    if status < httpx.codes.BAD_REQUEST:
        if status == httpx.codes.NOT_MODIFIED or status in _REDIRECTS or response.is_success:
            return
        raise _permanent(BadResponse(f"{what}: unexpected status {status}"))
    told = f': "{words}"' if words else ""
    if status in {401, 403}:
        raise TokenRefused(
            f"{what}: the marketplace refused the token ({status}){told}",
            hint="check ATOM_SAAS_API_TOKEN; get a new one in the dashboard, under settings, API tokens",
        )
    message = f"{what}: the marketplace answered {status}{told}"
    error: MarketplaceError
    if status == httpx.codes.TOO_MANY_REQUESTS:
        error = RateLimited(message, hint="try again later; the next run continues where this one stopped")
        error.transient = True
    elif status in _RETRIED:
        error = ApiError(message, status=status, hint="the marketplace is failing; try again later")
    else:
        error = ApiError(
            message, status=status, permanent=True, hint="check ATOM_SAAS_API_URL and ATOM_SAAS_API_DIALECT"
        )
    error.retry_after = retry_after(response.headers, now)
    raise error
