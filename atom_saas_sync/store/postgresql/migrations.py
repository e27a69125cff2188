"""Migrate the schema between versions: one transaction, under a lock, never blocking readers for long.

An empty schema is upgraded automatically; a filled one only by `db upgrade`, since other hosts work on it. A host with
an older program continues as long as all migrations unknown to it are additive.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from random import random
from typing import Any

import psycopg
from msgspec import Struct
from psycopg import sql

from atom_saas_sync.core.server_address import SCHEMA
from atom_saas_sync.errors import DatabaseError, UsageError
from atom_saas_sync.model.upkeep import Change
from atom_saas_sync.store.postgresql import schema
from atom_saas_sync.store.postgresql.backend.tables import HAS_TABLES, shared, standing
from atom_saas_sync.store.postgresql.backend.triggers import WITH_KEYS
from atom_saas_sync.store.postgresql.connection import Connection
from atom_saas_sync.store.postgresql.failures import translated_errors
from atom_saas_sync.store.postgresql.link import take_time
from atom_saas_sync.store.postgresql.rows import Row
from atom_saas_sync.store.postgresql.session import advisory_class, advisory_key
from atom_saas_sync.times import format_time

BASE = "base"  # the state before the first migration
HEAD = "head"  # the state after the last one

APPLIED = "SELECT name, applied_at, additive FROM {} ORDER BY number"

_TRIES = 5
_LOCK_SECONDS = 3
_BUSY = "55P03"

_log = logging.getLogger(__name__)


class Applied(Struct, frozen=True):
    """A migration that the database has."""

    at: str
    additive: bool


def known() -> tuple[str, ...]:
    """Return the names of all migrations of this version, oldest first."""
    return tuple(migration.name for migration in schema.MIGRATIONS)


def current(db: Connection) -> str | None:
    """Return the latest migration that the database has, None before the first one."""
    return next(reversed(applied(db)), None)


def history(db: Connection) -> list[tuple[str, str | None]]:
    """Return each migration with the time it was applied (UTC, `Z`), or None if it is pending.

    Those known only to a newer version come last.
    """
    found = applied(db)
    return [(name, found[name].at if name in found else None) for name in dict.fromkeys((*known(), *found))]


def pending(db: Connection) -> list[str]:
    """Return the migrations of this version that the database does not have, oldest first."""
    return missing(applied(db))


def applied(db: Connection) -> dict[str, Applied]:
    """Return the migrations that the database has, in the order they were applied."""
    with translated_errors(db.address):
        try:
            return _read(db.connection, db.schema)
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            return {}


def applied_of(rows: Iterable[Row]) -> dict[str, Applied]:
    """Return the same from the rows of the query APPLIED."""
    return {name: Applied(_text(at), additive) for name, at, additive in rows}


def missing(found: Mapping[str, Applied]) -> list[str]:
    """Return the migrations of this version that are not among these, oldest first."""
    return [name for name in known() if name not in found]


def require_current(db: Connection) -> None:
    """Refuse a database that this version cannot use unchanged. Raises DatabaseError."""
    _require_current(applied(db), db)


def prepare(db: Connection, *, create: bool, adopt: bool) -> None:
    """Upgrade an empty schema (with `create`), and refuse a filled one that is not up to date.

    With `adopt`, tables of the Atom backend are shared; without, a database with such tables is refused. Raises
    DatabaseError.
    """
    found = applied(db)
    waiting = _waiting(db)
    if found or not (create or (adopt and waiting)):
        _require_current(found, db)
    if waiting and create and not adopt:
        raise DatabaseError(
            f"the database {db.address} has tables of the Atom backend that atom-sync does not share yet: "
            f"{', '.join(waiting)}",
            hint="`atom-sync db upgrade` shares them",
        )
    if waiting or not found:
        upgrade(db)


def upgrade(db: Connection, target: str | None = None, *, sleep: Callable[[float], object] = time.sleep) -> Change:
    """Apply pending migrations, up to and including `target` (default: all).

    Waits for locks three seconds at a time, so that no reader waits behind it for longer, and gives up after some
    attempts without changing anything.

    Raises UsageError for an unknown target, and DatabaseError if the database is newer or cannot be locked, a privilege
    is missing, or another program's table has one of our names.
    """
    if target not in (None, HEAD, *known()):
        raise UsageError(
            f"no migration is called {target!r}", hint="`atom-sync db history` lists them; head is the newest"
        )
    from atom_saas_sync.store.postgresql.backend import public

    db.require_session()
    last = known().index(target) if target in known() else len(known())

    def apply(connection: psycopg.Connection[Row]) -> Change:
        found = _applied(connection, db.schema)
        refuse_newer(found, db)
        missing = [each for each in schema.MIGRATIONS[: last + 1] if each.name not in found]
        backend = public.refuse_unfit(connection, db.address) if db.schema == SCHEMA else []
        if missing:
            _make_schema(connection, db)
            _refuse_foreign(connection, db, missing)
        for migration in missing:
            _script(connection, schema.up(migration))
            connection.execute(
                "INSERT INTO schema_migration (name, additive) VALUES (%s, %s)", (migration.name, migration.additive)
            )
        if db.schema == SCHEMA:
            public.make(connection, backend, datetime.now(UTC))
        return Change(tuple(each.name for each in missing), adopted=tuple(backend))

    change = _locked(db, apply, sleep)
    if change.migrations:
        _log.info("the schema %s of the database %s was upgraded to %s", db.schema, db.address, change.migrations[-1])
    if change.adopted:
        _log.warning(
            "adopted the Atom backend's database %s: its tables %s are shared from now on",
            db.address,
            ", ".join(change.adopted),
        )
    return change


def loss(db: Connection, target: str | int) -> dict[str, int]:
    """Return which tables a downgrade to `target` would drop that hold rows, and how many.

    Raises UsageError for an unknown target, and DatabaseError for a newer database.
    """
    names = _to_take_back(applied(db), target, db)
    counts: dict[str, int] = {}
    with db.reading() as connection:
        left = set(shared(connection, db.schema)) - set(WITH_KEYS)
        for migration in schema.MIGRATIONS:
            for table in schema.tables(migration) if migration.name in names else ():
                if table in left:
                    continue
                count = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
                counts[table] = _one(connection, count)[0]
    return {table: number for table, number in counts.items() if number}


def downgrade(db: Connection, target: str | int, *, sleep: Callable[[float], object] = time.sleep) -> Change:
    """Revert migrations, newest first, in one transaction. The data in the dropped tables is lost: see `loss`.

    Raises UsageError for an unknown target, and DatabaseError if the database is newer or another program's objects
    depend on what would be dropped.
    """
    from atom_saas_sync.store.postgresql.backend import public

    def take_back(connection: psycopg.Connection[Row]) -> Change:
        names = _to_take_back(_applied(connection, db.schema), target, db)
        backend = public.unmake(connection) if db.schema == SCHEMA and known()[0] in names else []
        for name in names:
            migration = next(each for each in schema.MIGRATIONS if each.name == name)
            for statement in schema.down(migration):
                _script(connection, statement)
            connection.execute("DELETE FROM schema_migration WHERE name = %s", (name,))
        if names and not _applied(connection, db.schema):
            _script(connection, "DROP TABLE schema_migration")
        return Change(tuple(names), adopted=tuple(backend))

    return _locked(db, take_back, sleep)


def _locked(
    db: Connection, change: Callable[[psycopg.Connection[Row]], Change], sleep: Callable[[float], object]
) -> Change:
    """Change the schema in one transaction; retry to get the locks that it needs."""
    for left in reversed(range(_TRIES)):
        try:
            with translated_errors(db.address, busy_timeout_seconds=_TRIES * _LOCK_SECONDS), _changing(db):
                return change(db.connection)
        except DatabaseError as error:
            state = getattr(error.__cause__, "sqlstate", None)
            if state == "2BP01":
                raise DatabaseError(
                    f"something of another program depends on the schema {db.schema} of {db.address}; "
                    "nothing was changed",
                    hint="drop its views and foreign keys first (`DROP … CASCADE` as its owner)",
                ) from error
            if state != _BUSY or not left:
                raise
        sleep(random() * _LOCK_SECONDS)
    raise AssertionError("unreachable")


@contextmanager
def _changing(db: Connection) -> Iterator[None]:
    lock = f"SELECT pg_advisory_xact_lock({advisory_class(db.schema)}, {advisory_key('migrations')})"
    path = f'SET LOCAL search_path = "{db.schema}", pg_temp'
    limit = f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'"
    begin = f"BEGIN ISOLATION LEVEL READ COMMITTED; {limit}; {path}; {lock}"
    try:
        _script(db.connection, begin)  # fails after BEGIN while another host has the lock
        take_time(db.connection)
        yield
        _script(db.connection, "COMMIT")
    except BaseException:
        if not db.connection.closed:
            _script(db.connection, "ROLLBACK")
        raise


def _make_schema(connection: psycopg.Connection[Row], db: Connection) -> None:
    # CREATE SCHEMA IF NOT EXISTS needs the privilege to create one even if it exists.
    if not _one(connection, "SELECT to_regnamespace(%s) IS NOT NULL", (f'"{db.schema}"',))[0]:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(db.schema)))
    _script(
        connection,
        'CREATE TABLE IF NOT EXISTS schema_migration (name text COLLATE "C" PRIMARY KEY, additive boolean NOT NULL, '
        "number bigint GENERATED ALWAYS AS IDENTITY, "
        "applied_at timestamptz(0) NOT NULL DEFAULT date_trunc('second', now()))",
    )


def _require_current(found: Mapping[str, Applied], db: Connection) -> None:
    refuse_newer(found, db)
    if left := missing(found):
        hint = "`atom-sync db upgrade` brings it up to date"
        raise DatabaseError(
            f"the database {db.address} is not up to date: it lacks {', '.join(left)}",
            hint=hint if found else f"{hint}, and so does the next sync",
        )


def _waiting(db: Connection) -> list[str]:
    """Return the tables of the Atom backend that are to be shared."""
    if db.schema != SCHEMA:
        return []
    with translated_errors(db.address):
        if not _one(db.connection, f"SELECT {HAS_TABLES}")[0]:
            return []
        return [name for name, each in standing(db.connection).items() if each.can_be_shared]


def _refuse_foreign(connection: psycopg.Connection[Row], db: Connection, missing: Sequence[schema.Migration]) -> None:
    """Refuse to create objects that exist: they are not ours, or these migrations would have been applied."""
    wanted = [f'"{db.schema}"."{name}"' for each in missing for name in schema.relations(each)]
    row = _one(
        connection,
        "SELECT array_agg(name ORDER BY name) FROM unnest(%s::text[]) AS name WHERE to_regclass(name) IS NOT NULL",
        (wanted,),
    )
    if found := [name.replace('"', "") for name in row[0] or ()]:
        raise DatabaseError(
            f"the database {db.address} has {', '.join(found)} of another program; nothing was changed",
            hint="name another database, or another schema with ?schema= in ATOM_SAAS_DATABASE_URL",
        )


def _applied(connection: psycopg.Connection[Row], name: str) -> dict[str, Applied]:
    # Querying a missing table would abort the transaction of an upgrade.
    if not _one(connection, "SELECT to_regclass(%s) IS NOT NULL", (f'"{name}".schema_migration',))[0]:
        return {}
    return _read(connection, name)


def _read(connection: psycopg.Connection[Row], name: str) -> dict[str, Applied]:
    table = sql.Identifier(name, "schema_migration")
    return applied_of(connection.execute(sql.SQL(APPLIED).format(table)))


def _text(moment: datetime | None) -> str:
    return "unknown" if moment is None else format_time(moment)  # another program may have written infinity


def refuse_newer(found: Mapping[str, Applied], db: Connection) -> None:
    """Refuse a database that a newer version has upgraded, unless this version can still use it.

    Raises DatabaseError.
    """
    unknown = [name for name, each in found.items() if name not in known() and not each.additive]
    if unknown:
        raise DatabaseError(
            f"the database {db.address} was upgraded by a newer atom-sync: this version does not know {unknown[-1]}",
            hint="install that version on this host, too",
        )


def _to_take_back(found: dict[str, Applied], target: str | int, db: Connection) -> list[str]:
    """Return the migrations to revert, newest first."""
    names = list(found)
    if unknown := [name for name in names if name not in known()]:
        raise DatabaseError(
            f"the database {db.address} was upgraded by a newer atom-sync: this version does not know {unknown[-1]}",
            hint="take it back with that version",
        )
    if isinstance(target, int):
        kept = max(0, len(names) - abs(target))
    elif target == BASE:
        kept = 0
    elif target in names:
        kept = names.index(target) + 1
    else:
        raise UsageError(
            f"the database has no migration {target!r} to go back to",
            hint="`atom-sync db history` lists them; base goes back before all of them, -N by N steps",
        )
    return names[kept:][::-1]


def _one(connection: psycopg.Connection[Row], query: Any, parameters: Sequence[Any] = ()) -> Row:  # noqa: ANN401
    row = connection.execute(query, parameters or None).fetchone()
    assert row is not None
    return row


def _script(connection: psycopg.Connection[Row], statements: str) -> None:
    """Execute our own statements, several in one round trip."""
    connection.cursor().execute(statements.encode(), binary=False)
