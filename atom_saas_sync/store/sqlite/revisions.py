"""Which migrations a database has, which is asked for at every start; migrations.py applies and reverts them.

What a database has is recorded where sqlite-utils records it, in `_sqlite_migrations`, under the name of our set: other
programs may keep theirs in the same table.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from atom_saas_sync.errors import DatabaseError
from atom_saas_sync.store.sqlite.connection import Connection

SET_NAME = "atom_saas_sync"
ADOPTED = "atom_sync_adopted"
"""The table with the statements that created the tables of the Atom backend, in a database that was adopted."""

NAMES = (
    "0001_catalogue",
    "0002_sync_state",
    "0003_conflicts",
    "0004_ratings",
    "0005_replaced_ratings",
    "0006_index_characters",
    "0007_digests",
    "0008_seen_versions",
    "0009_one_meaning",
    "0010_written_rows",
    "0011_signatures",
    "0012_seen_signatures",
    "0013_backend_state",
    "0014_websocket_switch",
    "0015_backend_ratings",
    "0016_local_versions",
    "0017_replaced_edits",
    "0018_history_index",
    "0019_backend_conflicts",
    "0020_expiry",
    "0021_deleted_edits",
    "0022_gate",
    "0023_pages_read",
    "0024_facts",
    "0025_small_triggers",
    "0026_kept_decisions",
    "0027_remember_in_bulk",
)
"""All migrations of this version, oldest first; schema.py has their statements, which few starts need."""


def applied(connection: sqlite3.Connection) -> dict[str, str]:
    """Return the migrations of our set in the order they were applied, with the time."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = '_sqlite_migrations'").fetchone():
        return {}
    rows = connection.execute(
        "SELECT CAST(name AS TEXT), CAST(coalesce(applied_at, '') AS TEXT) FROM _sqlite_migrations "
        "WHERE migration_set = ? AND name IS NOT NULL ORDER BY rowid",
        (SET_NAME,),
    )
    # sqlite-utils writes "2026-07-04 12:00:00.000000+00:00".
    return {name: f"{applied_at[:19].replace(' ', 'T')}Z" for name, applied_at in rows}


def current(db: Connection) -> str | None:
    """Return the latest migration that the database has, None before the first one."""
    return next(reversed(applied(db.connection)), None)


def history(db: Connection) -> list[tuple[str, str | None]]:
    """Return each migration with the time it was applied (UTC, `Z`), or None if it is pending.

    Migrations that only a newer version knows come last.
    """
    times = applied(db.connection)
    return [(name, times.get(name)) for name in dict.fromkeys((*NAMES, *times))]


def pending(db: Connection) -> list[str]:
    """Return the migrations of this version that the database does not have, oldest first."""
    return _missing(applied(db.connection))


def to_apply(db: Connection) -> list[str]:
    """Return what `pending` does. Raises DatabaseError for a database that a newer version has upgraded."""
    found = applied(db.connection)
    _refuse_unknown(db, found)
    return _missing(found)


def refuse_newer(db: Connection) -> None:
    """Refuse a database that a newer version has upgraded. Raises DatabaseError."""
    _refuse_unknown(db, applied(db.connection))


def newest_unknown(db: Connection) -> str | None:
    """Return the newest migration that this version does not know; None if it knows all of them."""
    return _unknown(applied(db.connection))


def _unknown(found: Collection[str]) -> str | None:
    return next((name for name in reversed(list(found)) if name not in NAMES), None)


def _refuse_unknown(db: Connection, found: Collection[str]) -> None:
    if unknown := _unknown(found):
        raise DatabaseError(
            f"the database {db.path} was upgraded by a newer atom-sync: this version does not know {unknown}",
            hint="install that version again, or restore the copy that it made beside the database before the "
            f"upgrade ({db.path.name}.before-….bak)",
        )


def require_current(db: Connection) -> None:
    """Refuse a database that is not exactly at this version, for read-only use. Raises DatabaseError."""
    if missing := to_apply(db):
        raise DatabaseError(
            f"the database {db.path} is not up to date: it lacks {', '.join(missing)}",
            hint="`atom-sync db upgrade` brings it up to date, and so does the next sync",
        )


def _missing(found: Collection[str]) -> list[str]:
    return [name for name in NAMES if name not in found]


def is_adopted(connection: sqlite3.Connection) -> bool:
    """Tell whether the Atom backend created this database, and we adopted it."""
    return connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (ADOPTED,)).fetchone() is not None
