"""Maintenance of the database: the checks and repairs of `db check`."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from shlex import quote

from atom_saas_sync.characters import shell_argument, short_id
from atom_saas_sync.core.signing import Signer
from atom_saas_sync.model.upkeep import CheckFinding
from atom_saas_sync.store import findings
from atom_saas_sync.store.sqlite import integrity, migrations, revisions, search_index
from atom_saas_sync.store.sqlite.backup import SIDE_FILES
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.store.sqlite.failures import translated_errors
from atom_saas_sync.store.sqlite.files import beside
from atom_saas_sync.store.sqlite.foreign_values import foreign_values

_RESTORE = (
    "`atom-sync db restore FILE` restores a backup; or move the database away and sync again "
    "(local edits and ratings not yet sent are in this file alone)"
)
_BY_SQL = "correct the value, or delete the row, with SQL"
_REPAIR = "`atom-sync db check --repair` rebuilds the index"
_TEXTS = (("skill_cache", "skill_data"), ("skill_base", "data"))
# Rows that are missing in the index, and index entries without a row.
_OUT_OF_STEP = """
    SELECT
        (SELECT count(*) FROM skill_cache
         WHERE json_valid(skill_data) AND id NOT IN (SELECT id FROM skill_fts_docsize)),
        (SELECT count(*) FROM skill_fts_docsize
         WHERE id NOT IN (SELECT id FROM skill_cache WHERE json_valid(skill_data)))
"""


def check(db: Database, *, quick: bool = False, signer: Signer | None = None) -> list[CheckFinding]:
    """Check the whole database and return the findings; an empty list means that all is well.

    `quick` skips comparing each index with its table. With a `signer`, signatures are checked too. Additional tables,
    columns and indexes are never a finding: they may belong to other programs.

    Raises DatabaseError if it cannot be read at all.
    """
    # The backend decides on the mode of its own file.
    found = [] if migrations.origin(db) == "backend" else list(_check_files(db.path))
    with db.reading() as connection:
        try:
            found += _check_pages(connection, quick=quick)
            found += _check_schema(db)
            found += _check_references(db)
            found += _check_search_index(connection)
            found += _check_texts(connection)
            found += _check_types(connection)
            found += _check_digests(db, signer)
        except sqlite3.DatabaseError as error:
            # A damaged page can stop any check; the findings so far are worth more than the error.
            found.append(CheckFinding("integrity", f"the check could not continue: {error}", _RESTORE))
        except Exception:
            if not any(each.check == "types" for each in found):
                raise
            found.append(CheckFinding("types", "the check could not continue because of these values", _BY_SQL))
    return found


def tables_of_others(db: Database) -> set[str]:
    """Return the names of the tables that were not created by our migrations."""
    ours = _objects_of_all_migrations().keys()
    there = {name for kind, name in _objects(db.connection) if kind == "table"}
    return there - {name for kind, name in ours if kind == "table"} - {"_sqlite_migrations"}


def repair(db: Database) -> None:
    """Rebuild the full-text index from the cached skills, and re-enable its triggers.

    Raises DatabaseError.
    """
    with db.transaction() as connection:
        connection.execute("DELETE FROM bulk_write")
        connection.execute("INSERT INTO skill_fts(skill_fts) VALUES ('delete-all')")
        connection.execute(search_index.REBUILD)


def compact(db: Database) -> tuple[int, int]:
    """Return unused space to the file system; return the bytes on disk before and after, including the write-ahead log.

    The caller must prevent other runs: this rewrites the whole file in one transaction. Raises DatabaseError.
    """
    before = _size(db.path)
    with db.transaction() as connection:
        connection.execute("INSERT INTO skill_fts(skill_fts) VALUES ('optimize')")
    with translated_errors(db.path, (sqlite3.Error,), busy_timeout_seconds=db.busy_timeout_seconds):
        db.connection.execute("VACUUM")
        db.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return before, _size(db.path)


def _size(path: Path) -> int:
    return sum(each.stat().st_size for each in (path, beside(path, "-wal")) if each.exists())


def _check_files(path: Path) -> Iterator[CheckFinding]:
    for each in (path, *(beside(path, suffix) for suffix in SIDE_FILES)):
        if each.exists() and each.stat().st_mode & stat.S_IRWXO:
            mode = stat.filemode(each.stat().st_mode)
            yield CheckFinding(
                "file_mode", f"{each} can be opened by every user: {mode}", f"`chmod o= {quote(str(each))}`"
            )


def _check_pages(connection: sqlite3.Connection, *, quick: bool) -> Iterator[CheckFinding]:
    for (line,) in connection.execute(f"PRAGMA {'quick' if quick else 'integrity'}_check"):
        if line != "ok":
            yield CheckFinding("integrity", str(line), _RESTORE)


def _check_schema(db: Database) -> Iterator[CheckFinding]:
    """Compare the schema with what the applied migrations create."""
    unknown = [name for name, _ in revisions.history(db) if name not in revisions.NAMES]
    if unknown:
        yield findings.newer_migrations(unknown)
        return
    missing = revisions.pending(db)
    if missing:
        yield findings.missing_migrations(missing)
    with closing(migrations.build([name for name in revisions.NAMES if name not in missing])) as model:
        actual = _objects(db.connection)
        for (kind, name), statement in _objects(model).items():
            if (kind, name) not in actual:
                yield CheckFinding("schema", f"the {kind} {name} is missing", _RESTORE)
            elif kind == "table" and not statement.startswith("CREATE VIRTUAL"):
                yield from _check_columns(name, _columns(model, name), _columns(db.connection, name))
            elif actual[kind, name] != statement:
                yield CheckFinding("schema", f"the {kind} {name} was changed by another program", _RESTORE)


def _check_columns(table: str, expected: dict[str, object], actual: dict[str, object]) -> Iterator[CheckFinding]:
    for column, definition in expected.items():
        if column not in actual:
            yield CheckFinding("schema", f"the column {table}.{column} is missing", _RESTORE)
        elif actual[column] != definition:
            yield CheckFinding("schema", f"the column {table}.{column} was changed by another program", _RESTORE)


def _check_references(db: Database) -> Iterator[CheckFinding]:
    """Find rows in our tables that refer to a missing row."""
    if revisions.current(db) is None:
        return
    broken = db.connection.execute("PRAGMA foreign_key_check").fetchall()
    ours = _objects_of_all_migrations() if broken else {}
    for table, row, parent, _ in broken:
        if ("table", table) in ours:
            yield CheckFinding(
                "foreign_key",
                f"{table} row {row} refers to a row of {parent} that is gone",
                f"another program deleted it without `PRAGMA foreign_keys = ON`; delete row {row} of {table}",
            )


def _check_search_index(connection: sqlite3.Connection) -> Iterator[CheckFinding]:
    there = _objects(connection)
    if ("table", "skill_fts_docsize") not in there or ("view", "skill_text") not in there:
        return  # reported by the schema check, or the migration is not applied
    if connection.execute("SELECT 1 FROM bulk_write").fetchone():
        yield CheckFinding("search_index", "the triggers are disabled for a bulk write, but none is running", _REPAIR)
    missing, surplus = connection.execute(_OUT_OF_STEP).fetchone()
    if missing or surplus:
        yield CheckFinding("search_index", f"{missing} skills cannot be found, {surplus} that are gone can", _REPAIR)


def _check_texts(connection: sqlite3.Connection) -> Iterator[CheckFinding]:
    """Find skills that are not stored as UTF-8 text: other programs cannot read them, or misread them."""
    there = _objects(connection)
    for table, column in _TEXTS:
        if ("table", table) not in there:
            continue
        # One at a time: the texts of a large cache take gigabytes.
        rows = connection.execute(
            f"SELECT skill_id, typeof({column}), CAST({column} AS BLOB) FROM {table} WHERE {column} IS NOT NULL"  # noqa: S608 - constants
        )
        for skill_id, stored_as, data in rows:
            problem = None if _is_utf8(data) else "not valid UTF-8"
            if stored_as != "text":
                problem = f"stored as {stored_as}, not as text"
            if problem:
                yield CheckFinding(
                    "text",
                    f"{table}.{column} of the skill {short_id(str(skill_id))!r} is {problem}: another program wrote it",
                    f"`atom-sync skills revert {shell_argument(str(skill_id))}` restores the marketplace's text; "
                    "a sync that meets the skill stores it as text",
                )


def _check_types(connection: sqlite3.Connection) -> Iterator[CheckFinding]:
    """Find values of another type than their column's, in which a command may fail."""
    for each in foreign_values(connection):
        if (each.table, each.column) not in _TEXTS:  # those can be repaired
            yield CheckFinding("types", f"{each}: another program wrote it", _BY_SQL)


def _check_digests(db: Database, signer: Signer | None) -> Iterator[CheckFinding]:
    """Find skills that count as the marketplace's but differ from what it sent."""
    connection = db.connection
    tables = {("table", "skill_base"), ("table", "skill_cache")}
    if revisions.pending(db) or not tables <= _objects(connection).keys():
        return  # the digests may have an older form
    for skill_id in integrity.tampered(connection, signer):
        yield findings.tampered_text(skill_id)
    yield from _check_gate(connection)
    if unsigned := len(integrity.unsigned(connection, signer)):
        yield findings.not_signed(unsigned)


def _check_gate(connection: sqlite3.Connection) -> Iterator[CheckFinding]:
    """Find skills that another program put back into the cache, and waiting versions that it changed."""
    from atom_saas_sync.store.sqlite.gate.checks import kept_out
    from atom_saas_sync.store.sqlite.gate.offers import spoiled

    for skill_id, why in kept_out(connection):
        yield findings.kept_out(skill_id, why)
    for skill_id in spoiled(connection):
        yield findings.tampered_offer(skill_id)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _objects(connection: sqlite3.Connection) -> dict[tuple[str, str], str]:
    """Return the statement that created each table, index, view and trigger, without its layout."""
    rows = connection.execute(
        "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite~_%' ESCAPE '~' ORDER BY rowid"
    )
    return {(kind, name): " ".join(str(statement).split()) for kind, name, statement in rows}


def _objects_of_all_migrations() -> dict[tuple[str, str], str]:
    with closing(migrations.build(revisions.NAMES)) as model:
        return _objects(model)


def _columns(connection: sqlite3.Connection, table: str) -> dict[str, object]:
    """Return type, NOT NULL and place in the primary key of each column."""
    rows = connection.execute('SELECT name, upper(type), "notnull", pk FROM pragma_table_info(?)', (table,))
    return {name: tuple(rest) for name, *rest in rows}
