"""Failures of a PostgreSQL server or of its connection as messages with a hint and the documented exit code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import psycopg

from atom_saas_sync.core.server_address import ServerAddress, quoted
from atom_saas_sync.errors import AtomSyncError, ConfigError, DatabaseBusy, DatabaseError

_LONGEST_REASON = 300
_REACH = (
    "check that the server is running and listens there (`atom-sync doctor` tries it); committed work is kept, and the "
    "next run continues from there"
)
_SET_ONE = (
    "put it into ATOM_SAAS_DATABASE_PASSWORD_FILE, a systemd credential atom-sync-database-password, PGPASSWORD or "
    "PGPASSFILE"
)
_FILES = "correct sslmode, sslrootcert, sslcert or sslkey in ATOM_SAAS_DATABASE_URL"
_TLS = (
    "sslmode=verify-full with sslrootcert=FILE checks the server's certificate; sslmode=disable in "
    "ATOM_SAAS_DATABASE_URL does without encryption"
)
_ACCESS = "correct user, password and database in ATOM_SAAS_DATABASE_URL, or let the server's pg_hba.conf admit them"
_STANDBY = "name the primary server in ATOM_SAAS_DATABASE_URL; commands that only read work here"
_LOAD = "wait and run again; raise max_connections, or give hosts that only read a pooler"
_UPGRADE = "run `atom-sync db upgrade`; `atom-sync db check` compares the tables with what this version expects"


class _Case(NamedTuple):
    """The error class and hint for a failure. Without a `reason`, the server's own message is shown."""

    kind: type[AtomSyncError]
    hint: str
    reason: str = ""


# Failed connections: libpq has no code, only English text or text in the server's language.
# Also while a server starts again, as after one of its processes has crashed.
_REFUSED, _CUT_OFF = "the connection was refused", "it ended the connection before answering"
_CONNECTING = (
    ("Connection refused", _Case(DatabaseError, _REACH, _REFUSED)),
    ("server closed the connection unexpectedly", _Case(DatabaseError, _REACH, _CUT_OFF)),
    ("could not translate host name", _Case(DatabaseError, _REACH, "its host name is not known")),
    ("Name or service not known", _Case(DatabaseError, _REACH, "its host name is not known")),
    ("timeout expired", _Case(DatabaseError, _REACH, "no answer in time")),
    ("Connection timed out", _Case(DatabaseError, _REACH, "no answer in time")),
    ("No such file or directory\n\tIs the server", _Case(DatabaseError, _REACH, "there is no such Unix socket")),
    ("root certificate file", _Case(ConfigError, _FILES)),
    ("root certificate", _Case(ConfigError, _FILES)),
    ("certificate file", _Case(ConfigError, _FILES)),
    ("private key file", _Case(ConfigError, _FILES)),
    ("server does not support SSL", _Case(DatabaseError, _TLS, "it does not offer encryption")),
    ("certificate verify failed", _Case(DatabaseError, _TLS, "its certificate is not valid here")),
    ("server certificate for", _Case(DatabaseError, _TLS)),
    ("SSL", _Case(DatabaseError, _TLS)),
    ("password authentication failed", _Case(ConfigError, _SET_ONE, "it refuses this user's password")),
    ("no password supplied", _Case(ConfigError, _SET_ONE, "it asks for a password, and none is set")),
    ("authentication failed", _Case(ConfigError, _ACCESS)),
    ("is not permitted to log in", _Case(ConfigError, _ACCESS)),
    ("valid client certificate", _Case(ConfigError, _FILES)),
    ("no pg_hba.conf entry", _Case(ConfigError, _ACCESS)),
    ("pg_hba.conf rejects", _Case(ConfigError, _ACCESS)),
    ("too many clients", _Case(DatabaseBusy, _LOAD, "it has no connection left")),
    ("connection slots are reserved", _Case(DatabaseBusy, _LOAD, "it has no connection left")),
    ("too many connections", _Case(DatabaseBusy, _LOAD)),
    ("is starting up", _Case(DatabaseBusy, _LOAD, "it is starting up")),
    ("is shutting down", _Case(DatabaseBusy, _LOAD, "it is shutting down")),
    ("in recovery mode", _Case(DatabaseBusy, _LOAD, "it is recovering")),
    ("session is read-only", _Case(DatabaseError, _STANDBY, "it is a standby, which only reads")),
    ("hot standby mode", _Case(DatabaseError, _STANDBY, "it is a standby, which only reads")),
    ("Hot standby mode is disabled", _Case(DatabaseError, _STANDBY, "it is a standby that nobody may read")),
    ("is not currently accepting connections", _Case(ConfigError, _ACCESS)),
    ("invalid database", _Case(ConfigError, _ACCESS)),
    ("accepting connections", _Case(DatabaseBusy, _LOAD, "it is not accepting connections yet")),
    ("permission denied for database", _Case(ConfigError, _ACCESS)),
    ("does not exist", _Case(ConfigError, _ACCESS)),
)
_TO_BACKEND = re.compile(r"function atom_sync\.(\w+)_to_backend\(\)")
# Failed statements, by SQLSTATE: the longest matching prefix.
_STATEMENTS = {
    "40P01": _Case(DatabaseBusy, "another program wrote to the same rows at the same time; run again"),
    "40001": _Case(DatabaseBusy, "another program wrote to the same rows at the same time; run again"),
    "57014": _Case(DatabaseBusy, "the server ended a statement that took too long; run again when it has less to do"),
    "53300": _Case(DatabaseBusy, _LOAD),
    "57P03": _Case(DatabaseBusy, _LOAD),
    "08": _Case(DatabaseError, _REACH, "the connection broke"),
    "57P": _Case(DatabaseError, _REACH, "it ended the connection"),
    "25P03": _Case(DatabaseError, _REACH, "it ended the connection, which had paused in a transaction"),
    "25006": _Case(DatabaseError, _STANDBY, "it is a standby, which only reads"),
    "53100": _Case(DatabaseError, "make room on the server's disk, then run again", "its disk is full"),
    "53200": _Case(DatabaseError, "give the server more memory, or fewer connections", "it has no memory left"),
    "28": _Case(ConfigError, _ACCESS),
    "3D000": _Case(ConfigError, _ACCESS),
    "42P01": _Case(DatabaseError, _UPGRADE),
    "42703": _Case(DatabaseError, _UPGRADE),
    "3F000": _Case(DatabaseError, _UPGRADE),
    "42883": _Case(DatabaseError, _UPGRADE),
}


@contextmanager
def translated_errors(address: ServerAddress, *, busy_timeout_seconds: float | None = None) -> Iterator[None]:
    """Turn failures of the server within the block into our errors.

    A ProgrammingError without a code is a bug of ours and is not translated.
    """
    try:
        yield
    except psycopg.ProgrammingError as error:
        if error.sqlstate is None:
            raise
        raise explained(error, address, busy_timeout_seconds) from error
    except psycopg.Error as error:
        raise explained(error, address, busy_timeout_seconds) from error


def explained(error: psycopg.Error, address: ServerAddress, busy_timeout_seconds: float | None = None) -> AtomSyncError:
    """Return what failed, why, and what to do. The server's message is cut to its first line."""
    state = error.sqlstate
    if state == "55P03":
        period = "too long" if busy_timeout_seconds is None else f"longer than {busy_timeout_seconds:g} s"
        return DatabaseBusy(
            f"the database {address} was locked for {period}",
            hint="another program is writing to it (pg_stat_activity names it); run again when it is done",
        )
    if state == "23503" and error.diag.schema_name == "public":
        return no_tenant(address)
    if state == "42501":
        return DatabaseError(
            f"{_role(address)} may not do this in the database {address}: {_line(error, address)}",
            hint=_grant(error, address),
        )
    case = _case(state)
    if case is None:
        return DatabaseError(
            f"the database {address} refused a statement: {_line(error, address)} ({state or 'no code'})",
            hint="`atom-sync db check` compares its tables with what this version expects",
        )
    return case.kind(f"cannot use the database {address}: {case.reason or _line(error, address)}", hint=case.hint)


def no_tenant(address: ServerAddress) -> DatabaseError:
    """Return the error that the backend has no tenant `default`, to which our rows belong."""
    return DatabaseError(
        f"the Atom backend's table tenants in the database {address} has no row with the id 'default', to which "
        "atom-sync's rows belong; nothing was changed",
        hint="make that tenant in the backend, or: INSERT INTO tenants (id, …) VALUES ('default', …);",
    )


def unconnected(error: psycopg.Error, address: ServerAddress) -> AtomSyncError:
    """Return why there is no connection."""
    if error.sqlstate:
        return explained(error, address)
    text = str(error)
    case = next((case for fragment, case in _CONNECTING if fragment in text), _Case(DatabaseError, _REACH))
    return case.kind(f"cannot reach the database {address}: {case.reason or _line(error, address)}", hint=case.hint)


def is_overload(error: AtomSyncError) -> bool:
    """Tell whether a failed connection may succeed a little later."""
    return isinstance(error, DatabaseBusy) or error.message.endswith((_REFUSED, _CUT_OFF))


def _case(state: str | None) -> _Case | None:
    if state is None:
        return _STATEMENTS["08"]
    return next((_STATEMENTS[state[:length]] for length in (5, 3, 2) if state[:length] in _STATEMENTS), None)


def _line(error: psycopg.Error, address: ServerAddress) -> str:
    """Return the first line of the server's message, without a password.

    Details are left out: they could contain stored data.
    """
    text = error.diag.message_primary or str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no reason given"]
    # libpq's messages begin with the address: `connection to server at "db.example" (10.0.0.1), port 5432 failed:
    # FATAL:  …`.
    line = lines[0].rpartition("failed: ")[2].removeprefix("FATAL:").removeprefix("ERROR:").strip()[:_LONGEST_REASON]
    return line.replace(address.password, "********") if address.password else line


def _role(address: ServerAddress) -> str:
    return f"the role {address.user}" if address.user else "this role"


def _grant(error: psycopg.Error, address: ServerAddress) -> str:
    """Return the GRANT for a missing privilege, as far as the server names the object."""
    role = quoted(address.user) if address.user else "ROLE"
    text = error.diag.message_primary or str(error)
    name = text.partition(" for ")[2].partition(" ")[2].strip()
    if found := _TO_BACKEND.search(error.diag.context or ""):
        return f"run as its owner: GRANT SELECT, INSERT, UPDATE, DELETE ON public.{found[1]} TO the owner of atom_sync;"
    if "row-level security" in text:
        return f"let it see and write all rows: ALTER ROLE {role} BYPASSRLS; or add a policy for it to that table"
    if "must be owner" in text:
        return f"run this as the role that owns the schema {address.schema}"
    rights = {
        "for schema": f"USAGE, CREATE ON SCHEMA {name}",
        "for database": f"CREATE ON DATABASE {quoted(name)}",
        "for sequence": f"USAGE, SELECT ON ALL SEQUENCES IN SCHEMA {address.schema}",
        "for function": f"EXECUTE ON ALL FUNCTIONS IN SCHEMA {address.schema}",
        "": f"SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {address.schema}",
    }
    needed = next(right for object_name, right in rights.items() if object_name in text)
    return f"run as its owner: GRANT {needed} TO {role};"
