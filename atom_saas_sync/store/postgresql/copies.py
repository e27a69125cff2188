"""Backups of a database on a server.

A restore replaces all rows in one transaction, so views, privileges and other connections are not affected.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from hashlib import sha256
from pathlib import Path

import psycopg
from psycopg import sql

from atom_saas_sync.core.backups import backup_name, surplus
from atom_saas_sync.core.local_work import NO_WORK, LocalWork
from atom_saas_sync.core.server_address import SCHEMA, ServerAddress
from atom_saas_sync.core.signing import Signer
from atom_saas_sync.errors import DatabaseError, UsageError
from atom_saas_sync.model.upkeep import Restored
from atom_saas_sync.store.names import EMERGENCY_STOP, MARKETPLACE
from atom_saas_sync.store.postgresql import dumps, migrations, schema
from atom_saas_sync.store.postgresql.audit import write_audit
from atom_saas_sync.store.postgresql.backend.rows import mirrored
from atom_saas_sync.store.postgresql.backend.tables import shared
from atom_saas_sync.store.postgresql.database import Database
from atom_saas_sync.store.postgresql.facts import get_fact
from atom_saas_sync.store.postgresql.gate.carrying import carry_over, rows_to_carry
from atom_saas_sync.store.postgresql.link import take_time
from atom_saas_sync.store.postgresql.lock import run_lock
from atom_saas_sync.store.postgresql.maintenance import Upkeep
from atom_saas_sync.store.postgresql.rows import Row
from atom_saas_sync.store.postgresql.skill_text import forget_merging
from atom_saas_sync.store.targets import require_directory
from atom_saas_sync.times import format_time
from atom_saas_sync.unfinished import create_beside, flush

_VERSION_UNIT = 10_000
_SUFFIX = ".dump"
# Not restored: the locks of this run, and the revision, which is the same.
_KEPT = {"run_lock", "schema_migration"}


class Copies:
    """Makes and restores backups of the database at an address."""

    def __init__(self, address: ServerAddress) -> None:
        self._address = address

    @contextmanager
    def exclusive(
        self,
        kind: str,
        *,
        command: str,
        now: Callable[[], str],
        sleep: Callable[[float], object],
        wait_seconds: float = 0,
        may_wait: bool = False,
    ) -> Iterator[None]:
        """Hold the lock for runs of this kind during the block, over a connection of its own."""
        with (
            Database.open(self._address) as database,
            run_lock(
                database, kind, command=command, now=now, sleep=sleep, wait_seconds=wait_seconds, may_wait=may_wait
            ),
        ):
            yield

    def back_up(self, target: Path, *, force: bool) -> None:
        """Write a consistent, verified copy, in the custom format of `pg_dump`."""
        target = target.absolute()
        with _told_errors(target):
            _refuse_target(target, force=force)
        with Database.open(self._address, read_only=True) as database:
            server = database.session.version // _VERSION_UNIT
        program, reader = (dumps.require_program(name, server=server) for name in ("pg_dump", "pg_restore"))
        with _told_errors(target):
            descriptor, unfinished = create_beside(target)
        try:
            dumps.dump(program, self._address, unfinished)
            self._verify(unfinished, reader)
            flush(descriptor)
            unfinished.replace(target)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)

    def _verify(self, copy: Path, reader: str) -> None:
        tables = {each.table for each in dumps.read(reader, copy) if isinstance(each, dumps.Rows)}
        if missing := set(schema.expected_columns()) - tables:
            raise DatabaseError(
                f"the copy of {self._address} lacks {', '.join(sorted(missing))}",
                hint="it was not kept; check that this role may read all tables",
            )

    def back_up_and_tidy(self, *, keep: int | None, now: datetime) -> tuple[Path, list[Path]]:
        """Write a backup into this host's directory for them, and remove the oldest there."""
        directory, name = Path(self._address.backups), _stem(self._address)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            target = directory / backup_name(name, now, (each.name for each in directory.iterdir()), suffix=_SUFFIX)
            self.back_up(target, force=False)
            if keep is None:
                return target, []
            there = [each.name for each in directory.iterdir() if each.is_file() and not each.is_symlink()]
            old = surplus(name, there, newest=target.name, keep=keep, suffix=_SUFFIX)
            for each in old:
                (directory / each).unlink(missing_ok=True)  # another run may have removed it
        except OSError as error:
            raise DatabaseError(
                f"cannot write backups to {directory}: {error.strerror}",
                hint="name a file: `atom-sync db backup FILE`; or let STATE_DIRECTORY name a directory of this user's",
            ) from error
        return target, [directory / each for each in old]

    def read_backup(self, file: Path) -> tuple[str, str | None, LocalWork]:
        """Return a backup's revision, its marketplace and the work in it."""
        if not file.is_file():
            raise DatabaseError(f"there is no file {file}", hint="name a file that `atom-sync db backup` has written")
        return _Backup(dumps.require_program("pg_restore"), file).told()

    def current_work(self) -> LocalWork | None:
        """Return the local work in the database; None if it is of another version."""
        with Database.open(self._address, migrate=False, read_only=True) as database:
            if migrations.current(database) is None:
                return NO_WORK
            if migrations.pending(database):
                return None
            with database.reading() as connection:
                return _work(connection)

    def tables_of_others(self) -> list[str]:
        """Return nothing: tables of other programs are in other schemas, which a restore does not touch."""
        return []

    def restore(self, file: Path, *, signer: Signer | None, actor: str, now: datetime) -> Restored:
        """Replace all rows with those of a backup in one transaction; the old rows are lost."""
        program = dumps.require_program("pg_restore")
        revision, _, _ = self.read_backup(file)
        with Database.open(self._address) as database:
            if revision != migrations.current(database):
                raise DatabaseError(
                    f"{file} is of the revision {revision}, the database of {migrations.current(database)}",
                    hint="nothing was changed; restore it with the version of atom-sync that wrote it, then upgrade",
                )
            with database.transaction(bulk=True) as connection:
                stop, decided = get_fact(connection, EMERGENCY_STOP), rows_to_carry(connection)
                with mirrored(connection, shared(connection, database.schema)):
                    _empty(connection)
                    for each in dumps.read(program, file):
                        _take(each, connection)
                    _keep_fact(connection, EMERGENCY_STOP, stop, now)
                    forget_merging(connection)
                    carry_over(decided, connection, now, signer=signer, actor=actor)
                write_audit(connection, actor, "db restore", str(file), now, {"applied": []})
            return Restored((), tuple(Upkeep(database).check(quick=False, signer=signer)), None)


class _Backup:
    """The local work in a dump."""

    def __init__(self, program: str, file: Path) -> None:
        self._file = file
        self._texts: dict[str, bytes] = {}
        self._bases: dict[str, bytes | None] = {}
        self._facts: dict[str, str] = {}
        self._ratings: dict[str, tuple[str, ...]] = {}
        self._decisions: dict[int, tuple[str, ...]] = {}
        self._revision: str | None = None
        for each in dumps.read(program, file):
            if isinstance(each, dumps.Rows):
                self._read(each)

    def told(self) -> tuple[str, str | None, LocalWork]:
        if self._revision is None:
            raise DatabaseError(
                f"{self._file} is not a backup of atom-sync's schema", hint="nothing was changed; name another file"
            )
        if self._revision not in migrations.known():
            raise DatabaseError(
                f"{self._file} was written by a newer atom-sync: this version does not know {self._revision}",
                hint="nothing was changed; restore it with that version",
            )
        edits = {
            name: text.hex()
            for name, text in self._texts.items()
            if name not in self._bases or self._bases[name] not in {None, text}
        }
        return self._revision, self._facts.get(MARKETPLACE), LocalWork(edits, self._ratings, self._decisions)

    def _read(self, rows: dumps.Rows) -> None:
        wanted = ("skill_cache", "skill_base", "skill_ratings", "audit_log", "fact", "schema_migration")
        for line in rows.lines if rows.table in wanted else ():
            row = dict(zip(rows.columns, dumps.values(line), strict=True))
            name, data = row.get("skill_id") or "", row.get("data")
            if rows.table == "skill_cache":
                self._texts[name] = _fingerprint(row["skill_data"] or "")
            elif rows.table == "skill_base":
                self._bases[name] = None if data is None else _fingerprint(data)
            elif rows.table == "fact":
                self._facts[row["name"] or ""] = row["value"] or ""
            elif rows.table == "schema_migration":
                self._revision = max(self._revision or "", row["name"] or "")
            elif rows.table == "skill_ratings" and row["synced_to_saas"] == "f":
                told = f"{row['rating']} of 5 for {name} by {row['user_id']}"
                self._ratings[row["id"] or ""] = (told, row["review"] or "")
            elif rows.table == "audit_log" and (row["action"] or "").startswith("conflict "):
                at = format_time(datetime.fromisoformat(row["at"] or ""))
                self._decisions[int(row["id"] or 0)] = (
                    f"{row['action']} of {row['subject']} at {at}",
                    row["actor"] or "",
                )


def _work(connection: psycopg.Connection[Row]) -> LocalWork:
    edits = connection.execute(
        "SELECT c.skill_id, c.skill_data FROM skill_cache AS c LEFT JOIN skill_base AS b ON b.skill_id = c.skill_id "
        "WHERE b.skill_id IS NULL OR (b.data IS NOT NULL AND b.data <> c.skill_data)"
    )
    ratings = connection.execute(
        "SELECT id, rating || ' of 5 for ' || skill_id || ' by ' || user_id, coalesce(review, '') FROM skill_ratings "
        "WHERE NOT synced_to_saas"
    )
    decisions = connection.execute(
        "SELECT id, action || ' of ' || subject, at, actor FROM audit_log WHERE action LIKE 'conflict %%'", ()
    )
    return LocalWork(
        {name: _fingerprint(text).hex() for name, text in edits},
        {key: (told, review) for key, told, review in ratings},
        {key: (f"{told} at {format_time(at)}", actor) for key, told, at, actor in decisions},
    )


def _fingerprint(text: str) -> bytes:
    return sha256(text.encode(errors="surrogatepass")).digest()


def _empty(connection: psycopg.Connection[Row]) -> None:
    take_time(connection)
    connection.execute("SET CONSTRAINTS ALL DEFERRED")
    # A trigger records bases that end, so its table is emptied last.
    for table in [*(set(schema.expected_columns()) - _KEPT - {"skill_seen"}), "skill_seen"]:
        connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))


def _take(each: dumps.Rows | dumps.Serial, connection: psycopg.Connection[Row]) -> None:
    """Load the rows of one table, or the state of its sequence."""
    if each.table in _KEPT or each.table not in schema.expected_columns():
        return
    if isinstance(each, dumps.Serial):
        connection.execute(
            "SELECT setval(pg_get_serial_sequence(%s, %s), %s, %s)",
            (each.table, each.column, each.value, each.is_used),
        )
        return
    columns = sql.SQL(", ").join(map(sql.Identifier, each.columns))
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(each.table), columns)
    with connection.cursor().copy(statement) as copy:
        for line in each.lines:
            copy.write(line)


def _keep_fact(connection: psycopg.Connection[Row], name: str, value: str | None, now: datetime) -> None:
    connection.execute("DELETE FROM fact WHERE name = %s", (name,))
    if value is not None:
        connection.execute(
            "INSERT INTO fact (name, value, updated_at) VALUES (%s, %s, %s)", (name, value, now.replace(microsecond=0))
        )


def _stem(address: ServerAddress) -> str:
    """Return what names of backups begin with: the database, and its schema if that is not the usual one."""
    name = re.sub(r"[^\w-]", "_", address.database or "atom")
    return name if address.schema == SCHEMA else f"{name}-{address.schema}"


@contextmanager
def _told_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DatabaseError(f"cannot write {target}: {error.strerror}", hint="name a file elsewhere") from error


def _refuse_target(target: Path, *, force: bool) -> None:
    if target.is_symlink():
        raise UsageError(f"{target} is a symbolic link", hint="name the file itself")
    require_directory(target)
    if target.is_dir():
        raise UsageError(f"{target} is a directory", hint=f"name a file in it, such as {target / 'atom-sync.dump'}")
    if target.exists() and not force:
        raise UsageError(f"{target} exists", hint="name another file, or pass --force to replace it")
    if target.exists() and not target.is_file():
        raise UsageError(f"{target} is not a regular file", hint="name another file")
