"""Parse the texts of variables. Each parser raises ValueError; an InvalidValue has a reason."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

from atom_saas_sync.config.secrets import Secret
from atom_saas_sync.core.location import Location

if TYPE_CHECKING:
    from atom_saas_sync.core.server_address import ServerAddress

_TOKEN_FORMS = (
    re.compile(r"at_saas_[!-~]+"),
    re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-4[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}"),
    re.compile(r"eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+"),
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_HEADER_TEXT = re.compile(r"[!-~]([ -~]{0,254}[!-~])?")
_HOST = re.compile(
    r"(?=.{1,253}\.?$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*\.?"
)
_NUMBER_OR_SHARE = re.compile(r"[0-9]{1,9}|[0-9]{1,3}(\.[0-9]{1,12})?%")
# A server in a form that is not a URL: libpq's `host=… password=…`, or a URL whose beginning is wrong or missing.
_ADDRESS = re.compile(r"(?:^|\s)(?:host|hostaddr|port|dbname|user|password|service|sslmode)\s*=|[^/\s]:[^/\s]*@")
_WHOLE = 100
_NUMBER = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,12})?")
TRUE, _FALSE = frozenset({"true", "1", "yes", "on"}), frozenset({"false", "0", "no", "off"})
ADMIN_TOKEN_LEAST = 16


class InvalidValue(ValueError):
    """An invalid value with a specific reason, which does not repeat the value."""


def boolean(text: str) -> bool:
    """Read true, 1, yes, on, false, 0, no or off, in any case."""
    lowered = text.lower()
    if lowered not in TRUE | _FALSE:
        raise ValueError
    return lowered in TRUE


def number(low: float, high: float, kind: Callable[[str], Any] = int) -> Callable[[str], Any]:
    """Return a reader of decimal numbers in a range; `kind` is int or float."""

    def read(text: str) -> Any:  # noqa: ANN401 - int or float
        if not _NUMBER.fullmatch(text):
            raise ValueError  # float() and int() accept too much: 1_0, nan, digits of other scripts
        value = kind(text)
        if not low <= value <= high:
            raise ValueError
        return value

    return read


def one_of(*choices: str) -> Callable[[str], str]:
    """Return a parser for one of these words."""

    def read(text: str) -> str:
        if text not in choices:
            raise ValueError
        return text

    return read


def _url_parts(text: str, *schemes: str) -> SplitResult:
    parts = urlsplit(text)
    if parts.scheme not in schemes or not parts.hostname or "#" in text or re.search(r"\s", text):
        raise ValueError
    if "@" in parts.netloc:
        raise InvalidValue("a user or password in it would be shown")
    if _CONTROL.search(text):
        raise InvalidValue("it has control characters")
    if "[" in parts.netloc:
        if "%" in parts.hostname:
            raise InvalidValue("HTTP clients do not support the zone of a link-local address")
        ipaddress.IPv6Address(parts.hostname)
    elif not _HOST.fullmatch(parts.hostname):
        raise InvalidValue("the host is not a valid ASCII name")
    _ = parts.port  # raises ValueError for an invalid port
    return parts


def _with_plain_scheme(text: str, parts: SplitResult) -> str:
    """Return the URL with its scheme in lower case: HTTPS:// must not pass anywhere for something else than https."""
    return parts.scheme + text[len(parts.scheme) :]


def api_url(text: str) -> str:
    """Read an http(s) URL, to which the paths of the dialect are appended."""
    parts = _url_parts(text, "http", "https")
    if "?" in text:
        raise InvalidValue("the paths of the API are appended to it, so it cannot have a query")
    return _with_plain_scheme(text, parts).rstrip("/")


def ws_url(text: str) -> str:
    """Read a ws(s) URL, to which the token is added."""
    parts = _url_parts(text, "ws", "wss")
    if any(name == "token" for name, _ in parse_qsl(parts.query, keep_blank_values=True)):
        raise InvalidValue("the token is added when connecting")
    return _with_plain_scheme(text, parts)


def header_text(text: str) -> str:
    """Parse a text that is allowed in an HTTP header."""
    if not _HEADER_TEXT.fullmatch(text):
        raise ValueError
    return text


def path(text: str) -> Path:
    """Read the path of a file."""
    if not text or _CONTROL.search(text):
        raise ValueError
    os.fsencode(text)  # raises ValueError for names that the locale's encoding cannot represent
    return Path(text)


def age(text: str) -> str:
    """Check a minimum age, such as 72h. It stays a text, which is what `config show` shows."""
    from atom_saas_sync.core.durations import read_age

    read_age(text)
    return text


def number_or_share(text: str) -> str:
    """Check a number, such as 20, or a share, such as 5%. It stays a text."""
    if not _NUMBER_OR_SHARE.fullmatch(text) or (text.endswith("%") and float(text[:-1]) > _WHOLE):
        raise ValueError
    return text


def command(text: str) -> str:
    """Check a command line, which is split like a shell does. It stays a text."""
    import shlex

    if _CONTROL.search(text) or not any(shlex.split(text)[:1]):
        raise ValueError
    return text


def token(text: str) -> Secret:
    """Read a token of the marketplace."""
    if not any(form.fullmatch(text) for form in _TOKEN_FORMS):
        raise ValueError
    return Secret(text)


def admin_token(text: str) -> Secret:
    """Read a token for the admin API."""
    if len(text) < ADMIN_TOKEN_LEAST:
        raise InvalidValue("a shorter one could be guessed")
    return Secret(header_text(text))


def database(text: str) -> Location:
    """Read the address or path of a database."""
    if text.lower().startswith("postgres") and (address := _server(text)):
        return address
    scheme, separator, rest = text.partition("://")
    if separator:
        if scheme != "sqlite":
            raise InvalidValue("only SQLite and PostgreSQL are supported")
        if not rest.startswith("/"):
            raise InvalidValue("the path follows three slashes, or four if it is absolute")
        if "?" in rest:
            raise InvalidValue("it cannot have a query")
        text = rest[1:]
    elif text.startswith(("sqlite:", "file:")):
        raise InvalidValue("a URL begins with sqlite:///")
    elif _ADDRESS.search(text):
        raise InvalidValue("a server is named by a URL, which begins with postgresql://")
    if text == ":memory:":
        raise InvalidValue("a database in memory would be lost after each command")
    if text.startswith("~"):
        raise InvalidValue("~ is only expanded by shells; write the full path")
    return path(text)


def _server(text: str) -> ServerAddress | None:
    """Read the address of a database on a server; None if a text is not meant as one."""
    from atom_saas_sync.core.server_address import is_server_url, read_server_address

    if not is_server_url(text):
        return None
    try:
        return read_server_address(text)
    except ValueError as error:
        raise InvalidValue(str(error)) from None
