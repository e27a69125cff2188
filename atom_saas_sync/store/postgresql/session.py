"""Connect, and set up the session in one round trip."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import random
from typing import Any, NamedTuple
from zlib import crc32

import psycopg
from psycopg import pq, sql

from atom_saas_sync.core.server_address import ServerAddress
from atom_saas_sync.errors import ConfigError, DatabaseError
from atom_saas_sync.store.postgresql.failures import is_overload, translated_errors, unconnected
from atom_saas_sync.store.postgresql.link import STATEMENT_SECONDS, Link
from atom_saas_sync.store.postgresql.rows import BinaryCursor, Row, register, row_factory

OLDEST = 150_000
"""The oldest version of the server that is tested, as server_version_num has it."""

_CONNECT_SECONDS = 5
_WITH_TRANSACTION_TIMEOUT = 170_000
_PAUSED_SECONDS = 60
_LONGEST_PAUSE = 1.0
_WARN_SECONDS = 5.0
_REFUSE_SECONDS = 60.0
_LONGEST_NAME = 63
# A lost peer is noticed within 25 seconds by both sides; the last setting is for unacknowledged data.
_ALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 25_000}

_log = logging.getLogger(__name__)


class Session(NamedTuple):
    """Facts about the server and this session."""

    backend: int
    version: int
    encoding: str
    is_standby: bool
    clock_ahead: float
    """How many seconds the server's clock is ahead of ours."""
    is_pooled: bool
    """Whether there is a pooler in between, so that each statement may reach another session."""
    only_reads: bool
    """Whether transactions cannot write: on a standby, or by default_transaction_read_only."""
    hidden: tuple[str, ...]
    """Our tables (three at most) of which row-level security may hide rows from this role."""


def advisory_class(schema: str) -> int:
    """Return the class of our advisory locks, which differs between schemas of one database."""
    return _signed(crc32(f"atom-sync/{schema}".encode()))


def advisory_key(name: str) -> int:
    """Return the key of one lock."""
    return _signed(crc32(name.encode()))


def _signed(number: int) -> int:
    return number - (1 << 32) if number >= 1 << 31 else number


def connect(
    address: ServerAddress,
    *,
    writes: bool,
    patience_seconds: float,
    perhaps: bool = False,
    sleep: Callable[[float], object] = time.sleep,
) -> Link:
    """Connect; while the server is overloaded, retry for that long with random pauses.

    Of several servers, `writes` takes one that accepts writes, and `perhaps` another one if there is none.

    Raises ConfigError or DatabaseError.
    """
    _check_files(address)
    end = time.monotonic() + patience_seconds
    while True:
        try:
            return _connect(address, writes=writes)
        except psycopg.Error as error:
            if perhaps and "," in address.host:
                with suppress(psycopg.Error):
                    return _connect(address, writes=False)
            failure = unconnected(error, address)
            if not is_overload(failure) or time.monotonic() >= end:
                raise failure from error
        sleep(random() * _LONGEST_PAUSE)


def located(address: ServerAddress) -> ServerAddress:
    """Return an address with the host that libpq would take from PGHOST or a service if the URL names none.

    Otherwise it would count as local, and a password could travel unencrypted.
    """
    if address.host:
        return address
    try:
        defaults = {each.keyword: each.val for each in pq.Conninfo.get_defaults()}
    except MemoryError:  # the driver's word for a service that does not exist; connecting says so
        return address
    host = defaults.get(b"host") or defaults.get(b"hostaddr") or b""
    return replace(address, host=host.decode(errors="replace"))


def parameters(address: ServerAddress) -> dict[str, str]:
    """Return an address, without its password, as parameters of libpq."""
    where = {"host": address.host, "port": address.port, "user": address.user, "dbname": address.database}
    return {
        **{name: value for name, value in where.items() if value},
        "hostaddr": "",  # PGHOSTADDR would lead to another server than the URL's
        **address.options,
        "sslmode": address.sslmode,
    }


def _connect(address: ServerAddress, *, writes: bool) -> Link:
    given: dict[str, Any] = {
        "application_name": (address.program or "atom-sync")[:_LONGEST_NAME],
        "connect_timeout": _CONNECT_SECONDS,
        **parameters(address),
        "gssencmode": "disable",
        "options": "",  # a pooler refuses any; those of PGOPTIONS are the user's
        "client_encoding": "UTF8",
        **_ALIVE,
    }
    if address.password is not None:
        given["password"] = address.password
    if writes and "," in address.host:
        given["target_session_attrs"] = "read-write"
    connection = Link.connect(autocommit=True, cursor_factory=BinaryCursor, row_factory=row_factory, **given)
    register(connection)
    return connection


def _check_files(address: ServerAddress) -> None:
    """Check the files that the URL names: libpq does so only if the server offers encryption."""
    for name in ("sslrootcert", "sslcert", "sslkey"):
        path = address.options.get(name)
        if path and path != "system" and not Path(path).is_file():
            raise ConfigError(
                f"{name}={path}: there is no such file", hint="correct ATOM_SAAS_DATABASE_URL, or put the file there"
            )


def settings(address: ServerAddress, busy_timeout_seconds: float, version: int) -> dict[str, str]:
    """Return the settings of our sessions on a server of this version.

    They do not depend on what administrators set for a role or a database (`ALTER ROLE … SET`).
    """
    return {
        "search_path": f'"{address.schema}", pg_temp',
        "TimeZone": "UTC",
        "jit": "off",  # our queries are short: compiling one takes longer than it runs
        "lock_timeout": f"{max(1, round(busy_timeout_seconds * 1000))}ms",
        "statement_timeout": f"{STATEMENT_SECONDS}s",
        "idle_in_transaction_session_timeout": f"{_PAUSED_SECONDS}s",
        "idle_session_timeout": "0",  # a run would lose its lock
        **({"transaction_timeout": "0"} if version >= _WITH_TRANSACTION_TIMEOUT else {}),
        # These change what statements, or the functions that they call, mean.
        "array_nulls": "on",
        "gin_fuzzy_search_limit": "0",  # with a limit, searches return a random part
        "quote_all_identifiers": "off",
        "standard_conforming_strings": "on",
        "transform_null_equals": "off",
        "client_connection_check_interval": "1s",
        "tcp_keepalives_idle": str(_ALIVE["keepalives_idle"]),
        "tcp_keepalives_interval": str(_ALIVE["keepalives_interval"]),
        "tcp_keepalives_count": str(_ALIVE["keepalives_count"]),
        "tcp_user_timeout": str(_ALIVE["tcp_user_timeout"]),
    }


def begin_session(
    connection: psycopg.Connection[Row], address: ServerAddress, *, busy_timeout_seconds: float, writes: bool
) -> Session:
    """Set up the session and query the server's facts in one round trip.

    Behind a pooler, nothing is set: it would affect the session's next user. Raises ConfigError for an unsuitable
    server, and DatabaseError for one that cannot be written to, or that may hide rows.
    """
    own = connection.info.backend_pid
    choice = sql.SQL(", ").join(
        sql.SQL("set_config({}, {}, false)").format(name, value)
        for name, value in settings(address, busy_timeout_seconds, connection.info.server_version).items()
    )
    question = sql.SQL(
        "SELECT pg_backend_pid(), current_setting('server_version_num')::int, current_setting('server_encoding'), "
        "pg_is_in_recovery(), extract(epoch FROM clock_timestamp())::float8, "
        "CASE WHEN pg_backend_pid() = {} THEN ARRAY[{}] END IS NULL, "
        "current_setting('transaction_read_only')::boolean, "
        "ARRAY(SELECT relname::text FROM pg_class WHERE relnamespace = to_regnamespace({}) AND relrowsecurity "
        "AND row_security_active(oid) ORDER BY relname LIMIT 3)"
    ).format(own, choice, f'"{address.schema}"')
    asked = time.time()
    with translated_errors(address):
        row = connection.execute(question).fetchone()
    assert row is not None
    backend, version, encoding, is_standby, clock, is_pooled, only_reads, hidden = row
    ahead = clock - (asked + time.time()) / 2
    session = Session(backend, version, encoding, is_standby, ahead, is_pooled, only_reads, tuple(hidden))
    if session.is_pooled:
        connection.prepare_threshold = None
    _require_server(session, address)
    if writes:
        require_writable(session, address)
    return session


def require_writable(session: Session, address: ServerAddress) -> None:
    """Refuse a server that cannot be written to, or whose clock is too different. Raises DatabaseError."""
    if session.is_standby:
        raise DatabaseError(
            f"cannot write to the database {address}: it is a standby, which only reads",
            hint="name the primary server in ATOM_SAAS_DATABASE_URL; commands that only read work here",
        )
    if session.only_reads:
        raise DatabaseError(
            f"cannot write to the database {address}: its administrator lets sessions only read "
            "(default_transaction_read_only)",
            hint="find out why; then ALTER ROLE … RESET default_transaction_read_only, or ALTER DATABASE …; "
            "commands that only read work meanwhile",
        )
    _compare_clocks(session.clock_ahead, address)


def _require_server(session: Session, address: ServerAddress) -> None:
    if session.version < OLDEST:
        raise ConfigError(
            f"the server of {address} is PostgreSQL {session.version // 10_000}: 15 or newer is needed",
            hint="nothing was made there; upgrade it, or name another server in ATOM_SAAS_DATABASE_URL",
        )
    if session.encoding != "UTF8":
        raise ConfigError(
            f"the database {address} has the encoding {session.encoding}: UTF8 is needed",
            hint="nothing was made there; make one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
        )
    if session.hidden:
        tables = ", ".join(f"{address.schema}.{name}" for name in session.hidden)
        raise DatabaseError(
            f"row-level security may hide rows from this role in the database {address}: it is on for {tables}",
            hint=f"run as the owner: ALTER TABLE {address.schema}.{session.hidden[0]} DISABLE ROW LEVEL SECURITY; "
            "or let the role see all rows: ALTER ROLE … BYPASSRLS",
        )


def _compare_clocks(ahead: float, address: ServerAddress) -> None:
    """Compare the server's clock with ours: times of several hosts are compared in the database."""
    words = (
        f"the clock of the database {address} is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this host's"
    )
    if abs(ahead) > _REFUSE_SECONDS:
        raise DatabaseError(
            f"{words}; nothing was written", hint="set both clocks right (`timedatectl`), then run again"
        )
    if abs(ahead) > _WARN_SECONDS:
        _log.warning("%s", words)


def refuse_transaction_pooling(first: int, second: int, address: ServerAddress) -> None:
    """Refuse a pooler that gives two connections the same session. Raises ConfigError."""
    if first == second:
        raise ConfigError(
            f"{address} is a pooler in transaction mode: a run would lose its lock there",
            hint="name the server itself, or the pooler's address in session mode; commands that only read work here",
        )
