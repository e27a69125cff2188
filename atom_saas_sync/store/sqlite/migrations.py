"""Migrate the database between versions of the schema. revisions.py tells which migrations a database has.

All steps of an upgrade are one transaction that holds the write lock from its start. So a killed process leaves the old
state; if two processes open a new database at the same moment, one migrates it, and the other waits and finds it done.
"""

from __future__ import annotations

import functools
import logging
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from atom_saas_sync.core.health import size
from atom_saas_sync.errors import DatabaseError, UsageError
from atom_saas_sync.store.sqlite import adoption, digests, schema, search_index, snapshot
from atom_saas_sync.store.sqlite.backup import copy
from atom_saas_sync.store.sqlite.connection import Connection
from atom_saas_sync.store.sqlite.files import beside
from atom_saas_sync.store.sqlite.revisions import (
    NAMES,
    SET_NAME,
    applied,
    current,
    is_adopted,
    pending,
    refuse_newer,
    to_apply,
)

if TYPE_CHECKING:
    import sqlite_utils
    from sqlite_utils.migrations import Migrations

    from atom_saas_sync.model.upkeep import Change


BASE = "base"  # the state before the first migration
HEAD = "head"  # the state after the last one

_log = logging.getLogger(__name__)


def origin(db: Connection) -> str:
    """Return who created the database: `backend` (the Atom backend) or `atom-sync`."""
    return "backend" if is_adopted(db.connection) or _to_adopt(db, pending(db)) else "atom-sync"


def upgrade(db: Connection, target: str | None = None, *, adopt: bool = True) -> Change:
    """Apply pending migrations, up to and including `target` (default: all).

    With `adopt`, tables of the Atom backend are adopted with their rows. A database that holds those, or has some of
    our migrations already, is copied beside itself first.

    Raises UsageError for an unknown target, and DatabaseError if the database is newer than this version or holds
    another program's table, index, view or trigger of a name that we need; then nothing was changed.
    """
    from atom_saas_sync.model.upkeep import Change  # `status` imports this module, and changes nothing

    if not _to_apply(db, target):
        return Change()
    backup = None
    try:
        with db.without_foreign_keys(), db.transaction() as connection:
            # Again, under the write lock: another process may have done it in the meantime.
            names = _to_apply(db, target)
            if not names:
                return Change()
            adopted = _to_adopt(db, names)
            if adopted:
                adoption.refuse_other_shapes(connection, db.path, adopted, _columns(adopted))
                _refuse_adoption(db, names, adopt=adopt)
            _refuse_foreign(db, names, adopted)
            if adopted or applied(connection):
                backup = _copy_beside(db, "before-adoption" if adopted else f"before-{names[0]}")
            aside = adoption.set_aside(connection, adopted) if adopted else {}
            _apply(connection, names)
            if aside:
                adoption.take_over(connection, aside)
    except BaseException:
        # The database is unchanged, and a job that fails every 15 minutes must not fill the disk with copies.
        if backup is not None:
            backup.unlink(missing_ok=True)
        raise
    if adopted:
        _log.warning(
            "adopted the Atom backend's database: %s; its state before is kept in %s (%s)",
            ", ".join(adopted),
            backup,
            size(backup.stat().st_size) if backup else 0,
        )
    elif backup is not None:
        _log.info("the database was upgraded to %s; its state before is kept in %s", names[-1], backup)
    return Change(tuple(names), backup, tuple(adopted))


def loss(db: Connection, target: str | int) -> dict[str, int]:
    """Return what a downgrade to `target` would lose: tables with rows and columns with values, with their numbers.

    Raises UsageError for an unknown target, and DatabaseError for a newer database.
    """
    names = _to_take_back(db, target)
    tables = [
        table
        for name in reversed(names)
        for table in created(name, "table")
        if table not in _migration(name).hands_over
    ]
    counting = {table: f"SELECT count(*) FROM {table}" for table in tables}  # noqa: S608 - our own names
    for name in names:
        counting.update(_migration(name).loses)
    counts = {what: int(db.connection.execute(count).fetchone()[0]) for what, count in counting.items()}
    return {what: number for what, number in counts.items() if number}


def downgrade(db: Connection, target: str | int) -> Change:
    """Revert migrations, newest first, until `target` is the latest one left; a negative number reverts that many.

    The target "base" reverts all of them. Each step is one transaction; the database is copied beside itself before the
    first one. The contents of dropped tables are lost, except in the copy: call `loss` first.

    Raises UsageError for an unknown target, and DatabaseError if the database is newer than this version or a table of
    another program refers to one that would be dropped.
    """
    from atom_saas_sync.model.upkeep import Change  # `status` imports this module, and changes nothing

    names = _to_take_back(db, target)
    if names and is_adopted(db.connection):
        return _give_back(db, names)
    backup = None
    done = []
    for name in names:
        with db.transaction() as connection:
            if current(db) != name:
                raise DatabaseError(
                    f"another program migrated the database {db.path} at the same time",
                    hint="look at `atom-sync db history`, then run again",
                )
            _refuse_references(db, name)
            if backup is None:
                backup = _copy_beside(db, f"before-downgrade-of-{name}")
            for statement in _migration(name).down:
                connection.execute(statement)
            connection.execute("DELETE FROM _sqlite_migrations WHERE migration_set = ? AND name = ?", (SET_NAME, name))
        done.append(name)
    return Change(tuple(done), backup)


def _give_back(db: Connection, names: Sequence[str]) -> Change:
    """Revert all migrations in one transaction, and give the Atom backend its tables back."""
    from atom_saas_sync.model.upkeep import Change  # `status` imports this module, and changes nothing

    if len(names) < len(applied(db.connection)):
        raise UsageError(
            "a database of the Atom backend can only be given back whole", hint="run `atom-sync db downgrade base`"
        )
    if missing := pending(db):
        raise DatabaseError(
            f"the database {db.path} is not up to date: it lacks {', '.join(missing)}",
            hint="run `atom-sync db upgrade` first",
        )
    with db.without_foreign_keys(), db.transaction() as connection:
        backup = _copy_beside(db, f"before-downgrade-of-{names[0]}")
        tables = adoption.give_back(connection, [statement for name in names for statement in _migration(name).down])
        connection.execute("DELETE FROM _sqlite_migrations WHERE migration_set = ?", (SET_NAME,))
    return Change(tuple(names), backup, tuple(tables))


def render_snapshot() -> str:
    """Return the script that creates a database as all migrations leave it."""
    with closing(build(())) as connection:
        _apply_each(connection, NAMES)
        return snapshot.render(connection)


def build(names: Sequence[str]) -> sqlite3.Connection:
    """Return a database in memory with exactly these migrations, to compare the real one with."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    search_index.register(connection)
    digests.register(connection)
    missing = list(names)
    if missing == list(NAMES):
        snapshot.create(connection)
        missing = missing[len(applied(connection)) :]
        connection.execute("DROP TABLE _sqlite_migrations")
    for name in missing:
        for statement in _migration(name).up:
            connection.execute(statement)
    return connection


def _migration(name: str) -> schema.Migration:
    return next(migration for migration in schema.MIGRATIONS if migration.name == name)


def _to_apply(db: Connection, target: str | None) -> list[str]:
    missing = to_apply(db)
    if target in (None, HEAD):
        return missing
    if target not in NAMES:
        raise UsageError(
            f"no migration is called {target!r}", hint="`atom-sync db history` lists them; head is the newest"
        )
    wanted = NAMES[: NAMES.index(target) + 1]
    return [name for name in missing if name in wanted]


def _to_take_back(db: Connection, target: str | int) -> list[str]:
    """Return the migrations to revert, newest first."""
    refuse_newer(db)
    done = list(applied(db.connection))
    if isinstance(target, int):
        kept = max(0, len(done) - abs(target))
    elif target == BASE:
        kept = 0
    elif target in done:
        kept = done.index(target) + 1
    else:
        raise UsageError(
            f"the database has no migration {target!r} to go back to",
            hint="`atom-sync db history` lists them; base goes back before all of them, -N by N steps",
        )
    return done[kept:][::-1]


def _to_adopt(db: Connection, names: Sequence[str]) -> list[str]:
    """Return the tables of the Atom backend that these migrations would create, or that conflict with them."""
    if not names:
        return []
    ours = {each for name in applied(db.connection) for each in created(name, "table")}
    return adoption.foreign_tables(db.connection, ours)


def _columns(tables: Sequence[str]) -> dict[str, set[str]]:
    """Return the columns that our form of each table has."""
    with closing(build(NAMES)) as model:
        return {
            table: {row[0] for row in model.execute("SELECT name FROM pragma_table_xinfo(?)", (table,))}
            for table in tables
        }


def _refuse_adoption(db: Connection, names: Sequence[str], *, adopt: bool) -> None:
    if not adopt:
        raise DatabaseError(
            f"the Atom backend made the database {db.path}, and atom-sync has not adopted it yet",
            hint="run `atom-sync db upgrade` once; scheduled runs do not adopt databases",
        )
    if names[-1] != NAMES[-1]:
        raise UsageError("a database of the Atom backend is adopted in one step", hint="run `atom-sync db upgrade`")
    needed = 2 * db.path.stat().st_size
    free = shutil.disk_usage(db.path.parent).free
    if free < needed:
        raise DatabaseError(
            f"not enough space to adopt the database {db.path}: {size(needed)} are needed, {size(free)} are free",
            hint=f"make room on the file system of {db.path.parent} (`df -h {quote(str(db.path.parent))}`)",
        )


def _refuse_foreign(db: Connection, names: Sequence[str], adopted: Sequence[str]) -> None:
    """Refuse to create what already exists: it belongs to another program, as these migrations are not applied."""
    present = {name.lower(): kind for kind, name in db.connection.execute("SELECT type, name FROM sqlite_master")}
    for name in applied(db.connection):  # what these created is ours, even if a later one changes it
        for ours in created(name):
            present.pop(ours.lower(), None)
    for name in adopted:
        present.pop(name, None)
    if not present:
        return
    for name in names:
        for ours in created(name):
            if ours.lower() in present:
                raise DatabaseError(
                    f"the database {db.path} holds a {present[ours.lower()]} {ours} that another program made",
                    hint="nothing was changed; set ATOM_SAAS_DATABASE_URL (or --database) to a file of its own, "
                    f"or rename or remove that {present[ours.lower()]}",
                )


def _refuse_references(db: Connection, name: str) -> None:
    """Refuse to drop a table that another program's table refers to: SQLite would delete that program's rows too."""
    ours = {each for migration in NAMES for each in created(migration)}
    dropped = set(created(name, "table"))
    references = db.connection.execute("""
        SELECT m.name, f."table" FROM sqlite_master AS m, pragma_foreign_key_list(m.name) AS f WHERE m.type = 'table'
    """)
    for table, parent in references:
        if table not in ours and parent.lower() in dropped:  # names are case-insensitive
            raise DatabaseError(
                f"cannot revert {name}: the table {table} of another program refers to {parent}",
                hint="nothing was changed; remove that program's table first",
            )


def created(name: str, kind: str | None = None) -> list[str]:
    """Return the names of what one migration creates; of tables, only those that hold rows of ours."""
    rows = _all_created()[name]
    if kind is None:
        return [row[1] for row in rows]
    virtual = tuple(f"{row[1]}_" for row in rows if str(row[2]).startswith("CREATE VIRTUAL"))
    return [row[1] for row in rows if row[0] == kind and not f"{row[1]}_".startswith(virtual or ("\0",))]


@functools.cache
def _all_created() -> dict[str, list[tuple[str, str, str | None]]]:
    """Return what each migration creates: the type, the name and the SQL."""
    found: dict[str, list[tuple[str, str, str | None]]] = {}
    already: set[tuple[str, str]] = set()
    with closing(build(())) as connection:
        for migration in schema.MIGRATIONS:
            for statement in migration.up:
                connection.execute(statement)
            rows = connection.execute(
                "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite~_%' ESCAPE '~'"
            ).fetchall()
            found[migration.name] = [row for row in rows if row[:2] not in already]  # the others were recreated
            already = {row[:2] for row in rows}
    return found


def _apply(connection: sqlite3.Connection, names: Sequence[str]) -> None:
    """Apply the pending migrations up to the last of `names`, inside the open transaction."""
    if names[-1] == NAMES[-1] and not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
        snapshot.create(connection)
        if len(applied(connection)) == len(NAMES):
            return
    _apply_each(connection, names)


def _apply_each(connection: sqlite3.Connection, names: Sequence[str]) -> None:
    """Apply the pending migrations up to the last of `names` one by one, through sqlite-utils."""
    import sqlite_utils

    later = NAMES[NAMES.index(names[-1]) + 1 :]
    # No recursive triggers: the pragma would stay on for this connection, and change the effect of INSERT OR REPLACE.
    target = sqlite_utils.Database(connection, recursive_triggers=False, execute_plugins=False)
    _migration_set().apply(target, stop_before=later)


def _migration_set() -> Migrations:
    """Return our migrations as a set of sqlite-utils."""
    from sqlite_utils.migrations import Migrations

    registered = Migrations(SET_NAME)
    for migration in schema.MIGRATIONS:

        @registered(name=migration.name)
        def apply(db: sqlite_utils.Database, /, statements: tuple[str, ...] = migration.up) -> None:
            for statement in statements:
                db.conn.execute(statement)

    return registered


def _copy_beside(db: Connection, reason: str) -> Path:
    """Copy the database beside itself under an unused name; such copies are removed after 30 days."""
    from atom_saas_sync.store.sqlite.kept_copies import remove_old_migration_copies

    number = 1
    while True:
        suffix = f".{number}" if number > 1 else ""
        target = beside(db.path, f".{reason}{suffix}.bak")
        if not target.exists():
            copy(db.path, target)
            remove_old_migration_copies(db.path, datetime.now(UTC))
            return target
        number += 1
