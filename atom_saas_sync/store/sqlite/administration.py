"""What `db` does with the database file as a whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path

from atom_saas_sync.core.local_work import LocalWork
from atom_saas_sync.core.signing import Signer
from atom_saas_sync.errors import UsageError
from atom_saas_sync.model.upkeep import Change, CheckFinding, Restored
from atom_saas_sync.store.sqlite import integrity, kept_copies, lock, maintenance, migrations, restore, revisions
from atom_saas_sync.store.sqlite.backup import backup
from atom_saas_sync.store.sqlite.database import Database


class Schema:
    """The migrations of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def current(self) -> str | None:
        """Return the latest migration that the database has, None before the first one."""
        return revisions.current(self._database)

    def pending(self) -> list[str]:
        """Return the migrations that the database does not have."""
        return revisions.pending(self._database)

    def history(self) -> list[tuple[str, str | None]]:
        """Return each migration with the time it was applied."""
        return revisions.history(self._database)

    def origin(self) -> str:
        """Return who made the database."""
        return migrations.origin(self._database)

    def loss(self, target: str | int) -> dict[str, int]:
        """Return what a downgrade to `target` would lose, and how much."""
        return migrations.loss(self._database, target)

    def upgrade(self, target: str | None = None) -> Change:
        """Apply what is pending."""
        change = migrations.upgrade(self._database, target)
        # After the upgrade, so that a database which is refused keeps its journal mode.
        self._database.use_write_ahead_log()
        return change

    def downgrade(self, target: str | int) -> Change:
        """Revert migrations, newest first."""
        return migrations.downgrade(self._database, target)


class Upkeep:
    """Checks and repairs of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def check(self, *, quick: bool, signer: Signer | None) -> list[CheckFinding]:
        """Look at the whole database and return what is wrong."""
        return maintenance.check(self._database, quick=quick, signer=signer)

    def repair(self) -> None:
        """Build the full-text index again from the cached skills."""
        maintenance.repair(self._database)

    def compact(self) -> tuple[int, int]:
        """Give unused space back to the file system; return the bytes before and after."""
        return maintenance.compact(self._database)

    def tampered_and_unsigned(self, signer: Signer | None) -> tuple[int, int]:
        """Return how many skills do not have their digest, and how many are not signed."""
        with self._database.reading() as connection:
            return len(integrity.tampered(connection, signer)), len(integrity.unsigned(connection, signer))

    def try_writing(self) -> None:
        """Raise DatabaseError if nothing can be written."""
        with self._database.transaction():
            pass


class Copies:
    """Backups of the database at a path, and putting one in its place."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def exclusive(
        self,
        kind: str,
        *,
        command: str,
        now: Callable[[], str],
        sleep: Callable[[float], object],
        wait_seconds: float = 0,
        may_wait: bool = False,
    ) -> AbstractContextManager[None]:
        """Hold the lock for runs of this kind during the block; no database need be there."""
        return lock.run_lock(
            self._path, kind, command=command, now=now, sleep=sleep, wait_seconds=wait_seconds, may_wait=may_wait
        )

    def back_up(self, target: Path, *, force: bool) -> None:
        """Write a consistent, verified copy."""
        backup(self._path, target, force=force)

    def back_up_and_tidy(self, *, keep: int | None, now: datetime) -> tuple[Path, list[Path]]:
        """Write a backup into backups/ beside the database, and remove the oldest there."""
        return kept_copies.back_up_and_tidy(self._path, keep=keep, now=now)

    def read_backup(self, file: Path) -> tuple[str, str | None, LocalWork]:
        """Return a backup's revision, its marketplace and the work in it."""
        if os.path.realpath(self._path) == os.path.realpath(file):
            raise UsageError(f"{file} is the database itself", hint="name a backup of it")
        return restore.read_backup(file)

    def current_work(self) -> LocalWork | None:
        """Return the local work in the database."""
        return restore.current_work(self._path)

    def tables_of_others(self) -> list[str]:
        """Return the tables of other programs in the database."""
        return restore.tables_of_others(self._path)

    def restore(self, file: Path, *, signer: Signer | None, actor: str, now: datetime) -> Restored:
        """Bring a copy of the backup up to date beside the database, then put it in its place."""
        with restore.staged(file, self._path) as copy:
            applied, findings = restore.prepare(copy, self._path, signer=signer, actor=actor, source=str(file), now=now)
            return Restored(applied, tuple(findings), restore.put_in_place(copy, self._path))
