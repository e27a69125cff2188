"""The URL of a PostgreSQL server: read and checked here, because libpq's own messages repeat parts of a bad one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote_to_bytes

SCHEMA = "atom_sync"
"""Where our tables stand if the URL names no other schema."""

_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
_TEXT_KEYS = ("host", "user", "dbname", "sslrootcert", "sslcert", "sslkey", "application_name")
_KEYS = (*_TEXT_KEYS, "port", "schema", "sslmode", "connect_timeout")
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_LOOPBACK = ("localhost", "127.0.0.1", "::1", "")
_LAST_PORT = 65535
_LONGEST_TIMEOUT = 600
_LONGEST_NAME = 63
# What RFC 3986 allows unencoded in a user name and a password; a colon separates them.
_PLAIN = r"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})"
_USER = re.compile(rf"({_PLAIN}*)(?::((?:{_PLAIN}|:)*))?")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+(?:%25[A-Za-z0-9._~-]+)?\]|(?:[A-Za-z0-9._~-]|%[0-9A-Fa-f]{2})*)(?::(\d*))?")
_ENCODED = re.compile(r"(?:[^%\x00-\x20\x7f]|%[0-9A-Fa-f]{2})*")
_MEANT = re.compile(r"postgres[a-z0-9+]*:", re.IGNORECASE)
_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_KEY = re.compile(r"[a-z_]{1,30}")


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """The location of a PostgreSQL database, and how to connect. Empty strings mean libpq's defaults."""

    host: str = ""
    """A name, an address, or the directory of a Unix socket; several, separated by commas, are tried in turn."""
    port: str = ""
    user: str = ""
    database: str = ""
    schema: str = SCHEMA
    password: str | None = field(default=None, repr=False)
    options: Mapping[str, str] = field(default_factory=dict)
    """sslmode, sslrootcert, sslcert, sslkey, connect_timeout and application_name, as far as the URL has them."""
    program: str = field(default="", repr=False, compare=False)
    """What the server's list of sessions calls this one, if the URL does not say it."""
    this_host: str = field(default="", repr=False, compare=False)
    """What this host is called among those that share the database; empty for the system's own name."""
    backups: str = field(default="", repr=False, compare=False)
    """The directory on this host for backups without a name."""

    @property
    def is_local(self) -> bool:
        """Tell whether nothing leaves this machine on the way: a Unix socket, or loopback."""
        return all(each.startswith("/") or each in _LOOPBACK for each in self.host.split(","))

    @property
    def sslmode(self) -> str:
        """Return the effective mode: connections to other machines are encrypted unless the URL says otherwise."""
        return self.options.get("sslmode") or ("prefer" if self.is_local else "require")

    @property
    def shown(self) -> str:
        """Return the URL without its password."""
        return self._url("")

    def reveal(self) -> str:
        """Return the URL with its password, for a child process of ours."""
        return self._url("" if self.password is None else f":{quote(self.password, safe='')}")

    def _url(self, password: str) -> str:
        is_socket = self.host.startswith("/")
        places = "" if is_socket else ",".join(_joined(*place) for place in _places(self.host, self.port))
        query = {"host": self.host, "port": self.port} if is_socket else {}
        if self.schema != SCHEMA:
            query["schema"] = self.schema
        query |= self.options
        text = "&".join(f"{name}={quote(value, safe='/,:')}" for name, value in query.items() if value)
        user = f"{quote(self.user, safe='')}{password}@" if self.user or password else ""
        return f"postgresql://{user}{places}/{quote(self.database, safe='')}{'?' if text else ''}{text}"

    def __str__(self) -> str:
        return self.shown


def quoted(name: str) -> str:
    """Return a name of a role, schema or database as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def is_server_url(text: str) -> bool:
    """Tell whether a text is meant as the URL of a PostgreSQL server, right or wrong."""
    return _MEANT.match(text) is not None


def read_server_address(text: str) -> ServerAddress:
    """Read a URL. Raises ValueError, which never repeats what could be a part of a password."""
    scheme, separator, rest = text.partition("://")
    if scheme.lower() not in _SCHEMES or not separator:
        raise ValueError("a PostgreSQL URL begins with postgresql://")
    authority, path, query = _split(rest)
    user, password, host, port = _read_authority(authority)
    found = _read_query(query)
    options = {name: found[name] for name in ("sslmode", "sslrootcert", "sslcert", "sslkey") if found.get(name)}
    options |= {name: found[name] for name in ("connect_timeout", "application_name") if found.get(name)}
    address = ServerAddress(
        host=found.get("host") or host,
        port=_ports(found.get("port") or port),
        user=found.get("user") or user,
        database=found.get("dbname") or _decoded(path, "the name of the database"),
        schema=found.get("schema") or SCHEMA,
        password=password,
        options=options,
    )
    _check(address)
    return address


def _split(rest: str) -> tuple[str, str, str]:
    """Return what stands before the path, the path and the query."""
    if "#" in rest:
        raise ValueError("# is written as %23")
    before, _, query = rest.partition("?")
    authority, _, path = before.partition("/")
    if "@" in path or "@" in query:  # it ended a password that holds / or ?
        raise ValueError("in a user name and a password / is written as %2F, ? as %3F; elsewhere @ as %40")
    if "/" in path:
        raise ValueError("only the name of a database follows the host; / in a name is written as %2F")
    return authority, path, query


def _read_authority(authority: str) -> tuple[str, str | None, str, str]:
    who, _, where = authority.rpartition("@")
    found = _USER.fullmatch(who)
    if not found:
        raise ValueError(
            "a character of the user name or the password is not percent-encoded (a space is %20, @ is %40, % is %25)"
        )
    user = _decoded(found[1], "the user name")
    password = None if not found[2] else _decoded(found[2], "the password", any_character=True)
    hosts, ports = [], []
    for place in where.split(","):
        # Without @ all of it could be a user name and a password.
        if not (read := _HOST.fullmatch(place)):
            raise ValueError("invalid host or port: expected user:password@host:port/name")
        hosts.append(_decoded(read[1].strip("[]"), "the host"))
        ports.append(read[2] or "")
    return user, password, ",".join(hosts), ",".join(ports) if any(ports) else ""


def _read_query(query: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in filter(None, query.split("&")):
        key, separator, value = pair.partition("=")
        if key not in _KEYS:
            what = repr(key) if _KEY.fullmatch(key) and separator else "after ?"
            hint = (
                "a password belongs before @, or in ATOM_SAAS_DATABASE_PASSWORD_FILE"
                if key == "password"
                else f"expected one of {', '.join(sorted(_KEYS))}"
            )
            raise ValueError(f"unknown parameter {what}: {hint}")
        if key in found:
            raise ValueError(f"{key} is given twice")
        found[key] = _decoded(value, key)
    return found


def _decoded(text: str, what: str, *, any_character: bool = False) -> str:
    """Return a text without its percent-encoding."""
    if not _ENCODED.fullmatch(text):
        raise ValueError(f"{what} contains a character that is not percent-encoded (a space is %20, % is %25)")
    try:
        decoded = unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise ValueError(f"{what} is not UTF-8") from None
    if "\0" in decoded or (not any_character and not decoded.isprintable()):
        raise ValueError(f"{what} contains a control character")
    return decoded


def _ports(text: str) -> str:
    for port in filter(None, text.split(",")):
        if not (port.isascii() and port.isdecimal() and 0 < int(port[:6]) <= _LAST_PORT):
            raise ValueError(f"a port is a whole number from 1 to {_LAST_PORT}")
    return text


def _check(address: ServerAddress) -> None:
    options, hosts, ports = address.options, address.host.split(","), address.port.split(",")
    if len(ports) not in {1, len(hosts)}:
        raise ValueError("the numbers of hosts and ports differ")
    if not _IDENTIFIER.fullmatch(address.schema):
        raise ValueError("a schema name has up to 63 lower-case letters, digits and _")
    if address.schema in {"public", "information_schema"} or address.schema.startswith("pg_"):
        raise ValueError(f"the schema {address.schema} is reserved; use a schema of atom-sync's own")
    mode = options.get("sslmode", "require")
    if mode not in _SSL_MODES:
        raise ValueError(f"sslmode is one of {', '.join(_SSL_MODES)}")
    if options.get("sslrootcert") == "system" and mode != "verify-full":
        raise ValueError("sslrootcert=system needs sslmode=verify-full")
    timeout = options.get("connect_timeout", "1")
    if not (timeout.isascii() and timeout.isdecimal() and 0 < int(timeout[:6]) <= _LONGEST_TIMEOUT):
        raise ValueError(f"connect_timeout is a whole number of seconds from 1 to {_LONGEST_TIMEOUT}")
    name = options.get("application_name", "")
    if not name.isascii() or len(name) > _LONGEST_NAME:
        raise ValueError(f"application_name has at most {_LONGEST_NAME} ASCII characters")


def _places(hosts: str, ports: str) -> list[tuple[str, str]]:
    each_host, each_port = hosts.split(","), ports.split(",")
    if len(each_port) == 1:
        each_port *= len(each_host)
    return list(zip(each_host, each_port, strict=True))


def _joined(host: str, port: str) -> str:
    name = f"[{quote(host, safe=':')}]" if ":" in host else quote(host, safe="")
    return f"{name}:{port}" if port else name
