"""What `db` needs from the store: schema, checks and copies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Protocol

from atom_saas_sync.core.local_work import LocalWork
from atom_saas_sync.core.signing import Signer
from atom_saas_sync.model.upkeep import Change, CheckFinding, Restored


class Lockable(Protocol):
    """Where runs of one kind keep others of it off."""

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
        """Hold the lock for runs of this kind during the block; wait for it up to `wait_seconds`.

        It dies with the process, however that ends. `command` and the time `now()` are shown to whoever finds the lock
        taken: put no secret in the command. With `may_wait` the error names `--wait`, which only some commands have.

        Raises Locked, naming the holder, and DatabaseError if the lock cannot be asked for.
        """


class StoredSchema(Protocol):
    """The migrations of the open database, whichever it has."""

    def current(self) -> str | None:
        """Return the latest migration that the database has, None before the first one."""

    def pending(self) -> list[str]:
        """Return the migrations of this version that the database does not have, oldest first."""

    def history(self) -> list[tuple[str, str | None]]:
        """Return each migration with the time it was applied (UTC, `Z`), or None if it is pending.

        Those that only a newer version knows come last.
        """

    def origin(self) -> str:
        """Return who created the database: `backend` (the Atom backend) or `atom-sync`."""

    def loss(self, target: str | int) -> Mapping[str, int]:
        """Return what a downgrade to `target` would lose, and how much.

        Raises UsageError for an unknown target, and DatabaseError for a newer database.
        """

    def upgrade(self, target: str | None = None) -> Change:
        """Apply what is pending, up to and including `target` (default: everything), or nothing if it fails.

        Raises UsageError for an unknown target, and DatabaseError if the database is newer than this version or holds
        something of another program that stands in the way; then nothing was changed.
        """

    def downgrade(self, target: str | int) -> Change:
        """Revert migrations, newest first, until `target` is the latest one left, or as many as the number says.

        What the tables hold is lost, except in the copy if the engine makes one: ask `loss` before.
        """


class Maintenance(Protocol):
    """Checks and repairs of the open database."""

    def check(self, *, quick: bool, signer: Signer | None) -> list[CheckFinding]:
        """Check the whole database and return the findings; an empty list means that all is well.

        `quick` leaves out what takes longest. With a `signer` the signatures are checked, too.
        """

    def repair(self) -> None:
        """Rebuild the full-text index from the cached skills."""

    def compact(self) -> tuple[int, int]:
        """Give unused space back; return the bytes before and after. The caller keeps other runs off.

        Raises UsageError where the server does that by itself.
        """

    def tampered_and_unsigned(self, signer: Signer | None) -> tuple[int, int]:
        """Return the numbers of skills that do not match their digest, and that are not signed with the key."""

    def try_writing(self) -> None:
        """Raise DatabaseError if nothing can be written."""


class DatabaseCopies(Lockable, Protocol):
    """Backups of a database, which need not be open, and restoring them."""

    def back_up(self, target: Path, *, force: bool) -> None:
        """Write a consistent, verified copy while others read and write; it appears complete or not at all.

        Raises UsageError for a target that must not be written, DatabaseError if the copy fails, and ConfigError if
        the engine lacks a program for it.
        """

    def back_up_and_tidy(self, *, keep: int | None, now: datetime) -> tuple[Path, list[Path]]:
        """Write a backup named by time, then remove backups until `keep` are left (None: all stay).

        Return the new backup and those that were removed.
        """

    def read_backup(self, file: Path) -> tuple[str, str | None, LocalWork]:
        """Return a backup's revision, its marketplace (None: never synced) and its local work.

        Raises UsageError if the file is the database itself, and DatabaseError if it cannot be restored.
        """

    def current_work(self) -> LocalWork | None:
        """Return the local work in the database; None if unknown because it is damaged or of another version."""

    def tables_of_others(self) -> list[str]:
        """Return the tables of other programs in the database, which a restore would reset to the backup's date."""

    def restore(self, file: Path, *, signer: Signer | None, actor: str, now: datetime) -> Restored:
        """Put a backup in the place of the database; the caller keeps all runs off.

        The emergency stop and what people have decided about updates stay as they are now. If it fails, the database is
        as before.
        """
