"""Middleware for every route: size limits, the admin token, security headers, the access log."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Mapping
from ipaddress import ip_address

from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 1024 * 1024
_MAX_TARGET_BYTES = 2048
_MAX_HEADER_BYTES = 16 * 1024
ADMIN_PREFIX = "/api/admin"

_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
_CLOSED_POLICY = b"default-src 'none'; frame-ancestors 'none'"
# Probes and scrapes arrive every few seconds; they are logged only if something is wrong.
_QUIET = ("/health/", "/metrics/")
_ERROR = 400
_BODY_SECONDS = 10.0
_UNAUTHORIZED = 401
_HOST = re.compile(r"(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[^\s\[\]:]*))(?::\d*)?")
_NAME_WITHOUT_DOT = re.compile(r"[a-z0-9_-]*")
_LONGEST_METHOD = 20  # in the log; names of methods are shorter
# For wrong tokens: an address gets at most 40 tries a second over all its connections, and locks out no other address.
_DELAY_SECONDS = 0.25
MOST_WRONG_TOKENS = 10

_log = logging.getLogger(__name__)


class Guard:
    """ASGI middleware around the whole application. `admin_token` None closes the admin API to everybody."""

    def __init__(self, app: ASGIApp, *, admin_token: str | None) -> None:
        self._app = app
        self._admin_token = admin_token
        self._waiting: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse requests that must not pass, and forward the rest to the application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        status = 500

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": _with_security(message.get("headers", []))}
            await send(message)

        try:
            refused = _refusal_of_host(scope) or self._refusal(scope)
            if refused is not None and refused[0] == _UNAUTHORIZED and _tries(scope):
                refused = await self._delayed(_client_of(scope), refused)
            if refused is not None:
                await _answer(send_guarded, *refused)
            else:
                await self._app(scope, _limited(receive), send_guarded)
        finally:
            _write_log_line(scope, status, time.monotonic() - started)

    def _refusal(self, scope: Scope) -> tuple[int, str, str] | None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if b"transfer-encoding" in headers and (b"content-length" in headers or scope["http_version"] == "1.0"):
            return 400, "bad_request", "the request declares the length of its body in two ways"
        if len(scope["raw_path"]) + len(scope["query_string"]) > _MAX_TARGET_BYTES:
            return 414, "uri_too_long", f"the request target is longer than {_MAX_TARGET_BYTES} bytes"
        if sum(len(name) + len(value) for name, value in scope["headers"]) > _MAX_HEADER_BYTES:
            return 431, "headers_too_large", f"the request headers are longer than {_MAX_HEADER_BYTES} bytes"
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            return 413, "too_large", str(TooLarge())
        if scope["path"] == ADMIN_PREFIX or scope["path"].startswith(f"{ADMIN_PREFIX}/"):
            return self._refusal_of_admin(_client_of(scope), headers)
        return None

    async def _delayed(self, client: str, refused: tuple[int, str, str]) -> tuple[int, str, str]:
        """Delay the response to a wrong token, so that nobody can try many."""
        self._waiting[client] += 1
        try:
            await asyncio.sleep(_DELAY_SECONDS)
        finally:
            self._waiting[client] -= 1
            if not self._waiting[client]:
                del self._waiting[client]
        return refused

    def _refusal_of_admin(self, client: str, headers: Mapping[bytes, bytes]) -> tuple[int, str, str] | None:
        if self._admin_token is None:
            return 403, "forbidden", "the admin API is closed: no ATOM_SYNC_ADMIN_TOKEN is set"
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        if self._waiting[client] >= MOST_WRONG_TOKENS:
            # Not compared: a fast response would reveal a correct token to a client that does not wait.
            return 429, "too_many_tries", "too many wrong admin tokens are being tried; try again in a second"
        # Compared in constant time, so that the duration does not reveal how much of a token is right.
        right = hmac.compare_digest(token.strip(), self._admin_token.encode())
        if scheme.lower() != b"bearer" or not right:
            return 401, "unauthorized", "send `Authorization: Bearer` with the admin token"
        return None


def _client_of(scope: Scope) -> str:
    return str(scope["client"][0]) if scope.get("client") else "-"


def _tries(scope: Scope) -> bool:
    """Tell whether the request contains a token; without one, the response reveals nothing."""
    return any(name == b"authorization" for name, _ in scope["headers"])


def _refusal_of_host(scope: Scope) -> tuple[int, str, str] | None:
    if _is_foreign(scope, dict(scope["headers"]).get(b"host", b"")):
        return 421, "wrong_host", "use localhost or the IP address of this server, not another name"
    return None


def _is_foreign(scope: Scope, host: bytes) -> bool:
    """Tell whether the Host is a domain that was pointed at our loopback address (DNS rebinding).

    Names without a dot are not such domains: they belong to this machine or its network.
    """
    server = scope.get("server")
    if server is None or not _is_loopback(server[0]):
        return False
    found = _HOST.fullmatch(host.decode("ascii", "replace").lower())
    if found is None:
        return True
    name = found["v6"] or found["name"]
    return not (_NAME_WITHOUT_DOT.fullmatch(name) or name.endswith(".localhost") or _is_address(name))


def _is_loopback(address: str) -> bool:
    return _is_address(address) and ip_address(address).is_loopback


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


class TooLarge(Exception):
    """A body without a declared length exceeds the limit. The application answers 413."""

    def __str__(self) -> str:
        return f"the request body may have at most {MAX_BODY_BYTES} bytes"


class TooSlow(Exception):
    """A body did not arrive completely in time. The application answers 408."""

    def __str__(self) -> str:
        return f"the request body must arrive within {_BODY_SECONDS:.0f} s"


class Gone(Exception):
    """The client left, or sent something that is not HTTP, before its body was complete. Nobody reads the answer."""

    def __str__(self) -> str:
        return "the request body is not complete"


def _limited(receive: Receive) -> Receive:
    received, whole = 0, False
    deadline = asyncio.get_running_loop().time() + _BODY_SECONDS

    async def receive_limited() -> Message:
        nonlocal received, whole
        try:
            async with asyncio.timeout_at(None if whole else deadline):
                message = await receive()
        except TimeoutError:
            raise TooSlow from None
        if message["type"] == "http.disconnect" and not whole:
            raise Gone
        received += len(message.get("body", b""))
        whole = whole or not message.get("more_body", False)
        if received > MAX_BODY_BYTES:
            raise TooLarge
        return message

    return receive_limited


def _with_security(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    given = {name.lower() for name, _ in headers}
    added = [*_HEADERS, (b"content-security-policy", _CLOSED_POLICY)]
    return [*headers, *((name, value) for name, value in added if name not in given)]


async def _answer(send: Send, status: int, kind: str, message: str) -> None:
    body = json.dumps({"success": False, "error": {"type": kind, "message": message, "hint": None}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 400:  # noqa: PLR2004 - the start of the next request is unknown
        headers.append((b"connection", b"close"))
    if status == 401:  # noqa: PLR2004 - its own header
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _write_log_line(scope: Scope, status: int, seconds: float) -> None:
    """Write an access log line; never the query or a header, which may contain secrets."""
    path = scope["raw_path"].decode("ascii", errors="replace")[:200]
    quiet = status < _ERROR and scope["path"].startswith(_QUIET)
    _log.log(
        logging.DEBUG if quiet else logging.INFO,
        "%s %s %s %d %.0f ms",
        _client_of(scope),
        scope["method"][:_LONGEST_METHOD],
        path,
        status,
        seconds * 1000,
    )
