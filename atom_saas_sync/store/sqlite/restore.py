"""Replace the database by a backup. The caller holds the locks of all runs."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from atom_saas_sync.core.local_work import NO_WORK, LocalWork
from atom_saas_sync.core.signing import Signer
from atom_saas_sync.errors import DatabaseBusy, DatabaseError
from atom_saas_sync.model.upkeep import CheckFinding
from atom_saas_sync.store.names import MARKETPLACE
from atom_saas_sync.store.sqlite import maintenance, migrations, revisions
from atom_saas_sync.store.sqlite.audit import write_audit
from atom_saas_sync.store.sqlite.backup import SIDE_FILES, copy
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.store.sqlite.failures import primary_code, translated_errors
from atom_saas_sync.store.sqlite.files import beside, create_directories, exists, refuse_special_files_beside
from atom_saas_sync.store.sqlite.runs import get_fact

_DAMAGED = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
_PAGES_IN_A_STEP = 1024
_BUSY_SECONDS = 10.0


def read_backup(file: Path) -> tuple[str, str | None, LocalWork]:
    """Return a backup's revision, its marketplace (None: never synced) and its local work.

    Raises DatabaseError if it cannot be read, is damaged, is not a database of ours or was made by a newer version.
    """
    if not exists(file):
        raise DatabaseError(f"there is no file {file}", hint="unnamed backups are in backups/ beside the database")
    if is_damaged(file):
        raise DatabaseError(
            f"{file} is damaged, or is not an SQLite database", hint="nothing was changed; try another backup"
        )
    with Database.open(file, migrate=False, read_only=True) as database:
        if newer := revisions.newest_unknown(database):
            raise DatabaseError(
                f"the backup {file} was made by a newer atom-sync: this version does not know {newer}",
                hint="nothing was changed; install that version again, or name an older backup",
            )
        revision = revisions.current(database)
        if revision is None:
            raise DatabaseError(f"{file} is not a database of atom-sync", hint="nothing was changed; name another file")
        with database.reading() as connection:
            has_facts = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'fact'").fetchone()
            marketplace = get_fact(connection, MARKETPLACE) if has_facts else None
            return revision, marketplace, _work(connection)


def current_work(database: Path) -> LocalWork | None:
    """Return the local work in the database; None if unknown because it is damaged or of another version."""
    if not exists(database):
        return NO_WORK
    if is_damaged(database):
        return None
    with Database.open(database, migrate=False, read_only=True) as opened:
        if revisions.current(opened) not in (None, revisions.NAMES[-1]):
            return None
        with opened.reading() as connection:
            return _work(connection)


def tables_of_others(database: Path) -> list[str]:
    """Return the tables of other programs in the database, which a restore would reset to the backup's date."""
    if not exists(database) or is_damaged(database):
        return []
    with Database.open(database, migrate=False, read_only=True) as opened:
        return sorted(maintenance.tables_of_others(opened))


def is_damaged(database: Path) -> bool:
    """Tell whether the file is damaged or not a database. Raises DatabaseError if it cannot be read."""
    with translated_errors(database):
        if not database.is_file():  # opening a pipe would wait for its writer
            raise DatabaseError(f"{database} is not a regular file", hint="nothing was changed; name a file")
        refuse_special_files_beside(database)
        try:
            with closing(_connect(database)) as connection:
                return _problem(connection) is not None
        except sqlite3.DatabaseError as error:
            if primary_code(error) in _DAMAGED:
                return True
            raise


@contextmanager
def staged(file: Path, database: Path) -> Iterator[Path]:
    """Copy a backup beside the database for the duration of the block, to upgrade and check it."""
    target = beside(database, ".restoring")
    with translated_errors(database):
        create_directories(target.parent)
    try:
        copy(file, target)
        yield target
    finally:
        for suffix in ("", *SIDE_FILES):
            Path(f"{target}{suffix}").unlink(missing_ok=True)


def prepare(
    staged_copy: Path, database: Path, *, signer: Signer | None, actor: str, source: str, now: datetime
) -> tuple[tuple[str, ...], list[CheckFinding]]:
    """Bring a staged copy to this version; return the migrations applied and what `db check` says of it.

    The current emergency stop and the current decisions about updates are kept: what was revoked since the backup does
    not come back. Raises DatabaseError if tables are missing or pages damaged.
    """
    with Database.open(staged_copy, migrate=False, create=False) as opened:
        change = migrations.upgrade(opened)
        if change.backup is not None:
            change.backup.rename(_free_name(database, change.backup.name.removeprefix(f"{staged_copy.name}.")))
        _keep_emergency_stop(database, opened)
        _keep_decisions(database, opened, now, signer=signer, actor=actor)
        findings = maintenance.check(opened, signer=signer)
        findings += _without_key(opened, signer)
        if any(each.check == "search_index" for each in findings):
            maintenance.repair(opened)
            findings = [each for each in findings if each.check != "search_index"]
        if fatal := [each for each in findings if each.check in {"schema", "integrity", "migrations"}]:
            raise DatabaseError(
                f"the backup {source} can't be used: {fatal[0].message}", hint="nothing was changed; try another backup"
            )
        with opened.transaction() as connection:
            write_audit(connection, actor, "db restore", source, now, {"applied": list(change.migrations)})
    return change.migrations, findings


def put_in_place(staged_copy: Path, database: Path) -> Path | None:
    """Replace the database by the staged copy; return the path of the old one, None if there was none.

    A healthy database is overwritten through SQLite in one transaction, which other programs that have it open see at
    once. A damaged one is moved away together with its -wal.
    """
    kept = None
    if exists(database) and not is_damaged(database):
        kept = _free_name(database, "before-restore.bak")
        copy(database, kept)
        with translated_errors(database), closing(_connect(database, "rw")) as writer:
            with _removed_if_it_fails(kept):  # its contents are still in the database then
                _overwrite(staged_copy, writer, database)
            writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    else:
        with translated_errors(database):
            beside(database, "-shm").unlink(missing_ok=True)  # SQLite recreates it
            for suffix in ("", *SIDE_FILES):
                if beside(database, suffix).exists():
                    kept = kept or _free_name(database, "before-restore.bak")
                    beside(database, suffix).rename(f"{kept}{suffix}")
            staged_copy.replace(beside(database, ""))
    with Database.open(database):
        return kept


@contextmanager
def _removed_if_it_fails(file: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        file.unlink(missing_ok=True)
        raise


def _overwrite(source: Path, writer: sqlite3.Connection, target: Path) -> None:
    page_size = writer.execute("PRAGMA page_size").fetchone()[0]
    with closing(_connect(source, "rw")) as reader:
        if reader.execute("PRAGMA page_size").fetchone()[0] != page_size:
            reader.execute(f"PRAGMA page_size = {page_size:d}")
            reader.execute("VACUUM")
        end = time.monotonic() + _BUSY_SECONDS
        left = None

        def progress(_status: int, remaining: int, _total: int) -> None:
            nonlocal end, left
            if remaining != left:
                end, left = time.monotonic() + _BUSY_SECONDS, remaining
            elif time.monotonic() > end:
                raise DatabaseBusy(
                    f"another program has the database {target} locked",
                    hint="nothing was changed; stop that program and run this again",
                )

        reader.backup(writer, pages=_PAGES_IN_A_STEP, progress=progress, sleep=0.05)


def _connect(path: Path, mode: str = "ro") -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=_BUSY_SECONDS
    )


def _problem(connection: sqlite3.Connection) -> str | None:
    verdict = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    return None if verdict == "ok" else verdict


def _free_name(database: Path, suffix: str) -> Path:
    number, (stem, end) = 1, (suffix.removesuffix(".bak"), ".bak")
    while (name := beside(database, f".{stem}{f'.{number}' if number > 1 else ''}{end}")).exists():
        number += 1
    return name


def _without_key(database: Database, signer: Signer | None) -> list[CheckFinding]:
    """Return a finding if skills are signed but no key is set; with a key, `db check` checks them itself."""
    if signer is not None:
        return []
    signed = database.connection.execute("SELECT count(*) FROM skill_base WHERE signature IS NOT NULL").fetchone()[0]
    if not signed:
        return []
    return [
        CheckFinding(
            "unsigned",
            f"{signed:,} {'skill is' if signed == 1 else 'skills are'} signed with a digest key, but none is set",
            "set ATOM_SYNC_DIGEST_KEY_FILE to the key that belongs to this backup",
            wrong=False,
        )
    ]


def _keep_emergency_stop(database: Path, restored: Database) -> None:
    """Copy the emergency stop: a current one must not be lost, and an old one must not return."""
    if not exists(database) or is_damaged(database):
        return
    with Database.open(database, migrate=False, read_only=True) as opened, opened.reading() as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'fact'").fetchone():
            return
        row = connection.execute("SELECT value, updated_at FROM fact WHERE name = 'emergency_stop'").fetchone()
    with restored.transaction() as writing:
        writing.execute("DELETE FROM fact WHERE name = 'emergency_stop'")
        if row is not None:
            writing.execute("INSERT INTO fact (name, value, updated_at) VALUES ('emergency_stop', ?, ?)", tuple(row))


def _keep_decisions(database: Path, restored: Database, now: datetime, *, signer: Signer | None, actor: str) -> None:
    """Carry over approvals, rejections, pins, revocations, quarantine and first sight."""
    if not exists(database) or is_damaged(database):
        return
    from atom_saas_sync.store.sqlite.gate.carrying import carry_over, rows_to_carry

    with Database.open(database, migrate=False, read_only=True) as opened, opened.reading() as connection:
        rows = rows_to_carry(connection)
    carry_over(rows, restored, now, signer=signer, actor=actor)


def _work(connection: sqlite3.Connection) -> LocalWork:
    """Read the work in a database of any revision; a missing table means none."""
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")}

    def rows(table: str, statement: str) -> list[tuple[str, ...]]:
        return [tuple(map(str, row)) for row in connection.execute(statement)] if table in tables else []

    edits = rows(
        "skill_base",
        "SELECT c.skill_id, c.skill_data FROM skill_cache AS c LEFT JOIN skill_base AS b ON b.skill_id = c.skill_id "
        "WHERE b.skill_id IS NULL OR (b.data IS NOT NULL AND b.data != c.skill_data)",
    )
    ratings = rows(
        "skill_rating",
        "SELECT id, rating || ' of 5 for ' || skill_id || ' by ' || user_id, coalesce(review, '') FROM skill_rating "
        "WHERE synced_to_saas = 0",
    )
    decisions = rows(
        "audit_log",
        "SELECT id, action || ' of ' || subject || ' at ' || at, actor FROM audit_log WHERE action LIKE 'conflict %'",
    )
    return LocalWork(
        {name: sha256(text.encode(errors="surrogatepass")).hexdigest() for name, text in edits},
        {key: tuple(told) for key, *told in ratings},
        {int(key): tuple(told) for key, *told in decisions},
    )
