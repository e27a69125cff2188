"""Keeping the database healthy: what `db check` looks at, and consistent copies while others write."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from atom_saas_sync.errors import DatabaseError, UsageError
from atom_saas_sync.store import migrations
from atom_saas_sync.store.database import Database, translated_errors

# Between two steps of a copy Python can act on a signal.
_PAGES_IN_A_STEP = 1024
_SIDE_FILES = ("-wal", "-shm", "-journal")

_RESTORE = (
    "put a backup in its place, or move the database away and sync again "
    "(local edits and ratings not yet sent are in this file alone)"
)
_REPAIR = "`atom-sync db check --repair` builds the index again"
# Rows that the index should have and has not, and those that it should not have.
_OUT_OF_STEP = """
    SELECT
        (SELECT count(*) FROM skill_text WHERE id NOT IN (SELECT id FROM skill_fts_docsize)),
        (SELECT count(*) FROM skill_fts_docsize WHERE id NOT IN (SELECT id FROM skill_text))
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be: which check saw it, what it is, and what to do."""

    check: str
    message: str
    hint: str


def check(db: Database, *, quick: bool = False) -> list[Finding]:
    """Look at the whole database and return what is wrong; an empty list is the good answer.

    `quick` leaves out comparing each index with its table. More than we expect is never a finding: other programs may
    keep tables, columns and indexes of their own here.

    Raises DatabaseError if it cannot be read at all.
    """
    findings = list(_check_files(db.path))
    with db.reading() as connection:
        try:
            findings += _check_pages(connection, quick=quick)
            findings += _check_schema(db)
            findings += _check_references(connection)
            findings += _check_search_index(connection)
        except sqlite3.DatabaseError as error:
            # A damaged page can stop any of them; what was found so far is worth more than the error.
            findings.append(Finding("integrity", f"the check could not go on: {error}", _RESTORE))
    return findings


def repair(db: Database) -> None:
    """Build the full-text index again from the cached skills, and free the triggers that keep it.

    Raises DatabaseError.
    """
    with db.transaction() as connection:
        connection.execute("DELETE FROM bulk_write")
        connection.execute("INSERT INTO skill_fts(skill_fts) VALUES ('delete-all')")
        connection.execute("""
            INSERT INTO skill_fts(rowid, name, description, tags, category, code)
            SELECT id, name, description, tags, category, code FROM skill_text
        """)


def backup(db: Database, target: Path, *, force: bool = False) -> None:
    """Write a consistent copy of the database, mode 0600, while others read and write.

    The copy is one file that needs no -wal beside it. It appears under its name complete and verified, or not at all.

    Raises UsageError if the target exists (and not `force`), is the database itself, one of its side files, a symbolic
    link, a directory, or a database in use; DatabaseError if the copy fails.
    """
    target = target.absolute()
    if target.is_symlink():
        raise UsageError(f"{target} is a symbolic link", hint="name the file itself")
    own = [db.path, *(_beside(db.path, suffix) for suffix in _SIDE_FILES)]
    if any(os.path.realpath(each) == os.path.realpath(target) for each in own) or _is_same_file(db.path, target):
        raise UsageError(f"{target} is the database itself", hint="name another file")
    if target.is_dir():
        raise UsageError(f"{target} is a directory", hint=f"name a file in it, such as {target / db.path.name}.bak")
    if target.exists() and not force:
        raise UsageError(f"{target} exists", hint="name another file, or say --force to replace it")
    # SQLite would take the side files of a replaced database for those of the copy.
    if any(_beside(target, suffix).exists() for suffix in _SIDE_FILES):
        raise UsageError(f"{target} is a database in use: it has a -wal or -journal file", hint="name another file")
    copy(db.path, target)


def copy(source: Path, target: Path) -> None:
    """Copy the last committed state of a database to a file, replacing it at once when the copy is complete.

    Raises DatabaseError.
    """
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with translated_errors(target):
        os.close(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        try:
            unfinished.chmod(0o600)
            _copy_pages(source, unfinished)
            _flush(unfinished)
            unfinished.replace(target)
            _flush(target.parent)
        except BaseException:
            for suffix in ("", *_SIDE_FILES):
                _beside(unfinished, suffix).unlink(missing_ok=True)
            raise


def _check_files(path: Path) -> Iterator[Finding]:
    for each in (path, *(_beside(path, suffix) for suffix in _SIDE_FILES)):
        if each.exists() and each.stat().st_mode & stat.S_IRWXO:
            mode = stat.filemode(each.stat().st_mode)
            yield Finding("file_mode", f"{each} can be opened by every user: {mode}", f"`chmod o= {each}`")


def _check_pages(connection: sqlite3.Connection, *, quick: bool) -> Iterator[Finding]:
    for (line,) in connection.execute(f"PRAGMA {'quick' if quick else 'integrity'}_check"):
        if line != "ok":
            yield Finding("integrity", str(line), _RESTORE)
    mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    if mode != "wal":
        yield Finding(
            "journal_mode",
            f"the journal mode is {mode}: readers and writers wait for each other",
            "the next sync switches to WAL; if it stays so, the file system (a network share?) cannot do it",
        )


def _check_schema(db: Database) -> Iterator[Finding]:
    """Compare what is there with what the migrations that were applied build."""
    unknown = [name for name, _ in migrations.history(db) if name not in migrations.known()]
    if unknown:
        yield Finding("migrations", f"a newer atom-sync added {', '.join(unknown)}", "install that version again")
        return
    missing = migrations.pending(db)
    if missing:
        yield Finding("migrations", f"not applied: {', '.join(missing)}", "`atom-sync db upgrade` applies them")
    with closing(migrations.build([name for name in migrations.known() if name not in missing])) as model:
        actual = _objects(db.connection)
        for (kind, name), statement in _objects(model).items():
            if (kind, name) not in actual:
                yield Finding("schema", f"the {kind} {name} is missing", _RESTORE)
            elif kind == "table" and not statement.startswith("CREATE VIRTUAL"):
                yield from _check_columns(name, _columns(model, name), _columns(db.connection, name))
            elif actual[kind, name] != statement:
                yield Finding("schema", f"the {kind} {name} was changed by another program", _RESTORE)


def _check_columns(table: str, expected: dict[str, object], actual: dict[str, object]) -> Iterator[Finding]:
    for column, definition in expected.items():
        if column not in actual:
            yield Finding("schema", f"the column {table}.{column} is missing", _RESTORE)
        elif actual[column] != definition:
            yield Finding("schema", f"the column {table}.{column} was changed by another program", _RESTORE)


def _check_references(connection: sqlite3.Connection) -> Iterator[Finding]:
    """Look for rows that refer to a row that is gone, in our tables only."""
    ours = _objects_of_all_migrations()
    for table, row, parent, _ in connection.execute("PRAGMA foreign_key_check"):
        if ("table", table) in ours:
            yield Finding(
                "foreign_key",
                f"{table} row {row} refers to a row of {parent} that is gone",
                f"another program deleted it without `PRAGMA foreign_keys = ON`; delete row {row} of {table}",
            )


def _check_search_index(connection: sqlite3.Connection) -> Iterator[Finding]:
    there = _objects(connection)
    if ("table", "skill_fts_docsize") not in there or ("view", "skill_text") not in there:
        return  # the schema check has said so, or its migration is not applied
    if connection.execute("SELECT 1 FROM bulk_write").fetchone():
        yield Finding("search_index", "the triggers stand aside for a bulk write that nobody is doing", _REPAIR)
    missing, surplus = connection.execute(_OUT_OF_STEP).fetchone()
    if missing or surplus:
        yield Finding("search_index", f"{missing} skills cannot be found, {surplus} that are gone can", _REPAIR)


def _objects(connection: sqlite3.Connection) -> dict[tuple[str, str], str]:
    """Return the statement that made each table, index, view and trigger, without its layout."""
    rows = connection.execute(
        "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite~_%' ESCAPE '~' ORDER BY rowid"
    )
    return {(kind, name): " ".join(str(statement).split()) for kind, name, statement in rows}


def _objects_of_all_migrations() -> dict[tuple[str, str], str]:
    with closing(migrations.build(migrations.known())) as model:
        return _objects(model)


def _columns(connection: sqlite3.Connection, table: str) -> dict[str, object]:
    """Return type, NOT NULL and place in the primary key of each column."""
    rows = connection.execute('SELECT name, upper(type), "notnull", pk FROM pragma_table_info(?)', (table,))
    return {name: tuple(rest) for name, *rest in rows}


def _copy_pages(source: Path, target: Path) -> None:
    """Copy page by page, and verify the copy."""
    with (
        closing(sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True, isolation_level=None)) as reader,
        closing(sqlite3.connect(f"{target.as_uri()}?mode=rw", uri=True, isolation_level=None)) as writer,
    ):
        # One snapshot for the whole copy: without it, SQLite starts again whenever another process has written.
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
        reader.backup(writer, pages=_PAGES_IN_A_STEP)
        reader.execute("ROLLBACK")
        # A copy that is put on a read-only medium can be read only without a write-ahead log.
        writer.execute("PRAGMA journal_mode = DELETE").fetchone()
        verdict = writer.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise DatabaseError(
            f"the copy of {source} is damaged: {verdict}",
            hint="it was not kept; the database itself may be damaged: see `atom-sync db check`",
        )


def _flush(path: Path) -> None:
    """Make sure that a file, or the names in a directory, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _is_same_file(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)
