"""A database file before it is opened (the contract is in usecases/ports/engine.py)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from atom_saas_sync.store.limits import BUSY_TIMEOUT_SECONDS

if TYPE_CHECKING:
    from atom_saas_sync.model import Status
    from atom_saas_sync.store.sqlite.administration import Copies
    from atom_saas_sync.store.sqlite.requests import RequestBudget
    from atom_saas_sync.store.sqlite.store import SQLiteStore
    from atom_saas_sync.store.sqlite.upkeep import SQLiteUpkeep


class SQLiteEngine:
    """The database file at a path."""

    def __init__(self, path: Path) -> None:
        self.location = path

    def exists(self) -> bool:
        """Tell whether the file exists. Raises DatabaseError if that is unknown."""
        from atom_saas_sync.store.sqlite.files import exists

        return exists(self.location)

    def is_current(self) -> bool:
        """Tell whether there is a database, and it has all migrations. Raises DatabaseError, also for a newer one."""
        from atom_saas_sync.store.sqlite import revisions
        from atom_saas_sync.store.sqlite.database import Database

        if not self.exists():
            return False
        with Database.open(self.location, migrate=False, read_only=True) as database:
            return not revisions.to_apply(database)

    def open(
        self,
        *,
        busy_timeout_seconds: float = BUSY_TIMEOUT_SECONDS,
        migrate: bool = True,
        read_only: bool = False,
        create: bool = True,
        adopt: bool | None = None,
        any_thread: bool = False,
    ) -> SQLiteStore:
        """Open the file; see Database.open."""
        from atom_saas_sync.store.sqlite.database import Database
        from atom_saas_sync.store.sqlite.store import SQLiteStore

        database = Database.open(
            self.location,
            busy_timeout_seconds=busy_timeout_seconds,
            migrate=migrate,
            read_only=read_only,
            create=create,
            adopt=adopt,
            any_thread=any_thread,
        )
        return SQLiteStore(database)

    def status(
        self,
        now: datetime,
        *,
        per_minute: int,
        per_hour: int,
        admission: str,
        admission_scope: str,
    ) -> Status:
        """Read everything that `status` and metrics show."""
        from atom_saas_sync.store.sqlite.status import read_status

        return read_status(
            self.location,
            now=now,
            per_minute=per_minute,
            per_hour=per_hour,
            admission=admission,
            admission_scope=admission_scope,
        )

    def request_budget(
        self,
        *,
        per_minute: int,
        per_hour: int,
        marketplace: str = "",
        busy_timeout_seconds: float = BUSY_TIMEOUT_SECONDS,
    ) -> RequestBudget:
        """Open the request budget that all processes share."""
        from atom_saas_sync.store.sqlite.requests import RequestBudget

        return RequestBudget(
            self.location,
            per_minute=per_minute,
            per_hour=per_hour,
            marketplace=marketplace,
            busy_timeout_seconds=busy_timeout_seconds,
        )

    @contextmanager
    def upkeep(self) -> Iterator[SQLiteUpkeep]:
        """Open the maintenance that checkpoints the write-ahead log and keeps the lock fair."""
        from atom_saas_sync.store.sqlite.database import Database
        from atom_saas_sync.store.sqlite.upkeep import SQLiteUpkeep

        with Database.open(self.location, any_thread=True) as database:
            yield SQLiteUpkeep(database)

    def free_disk_gb(self) -> float:
        """Return the free space, in GB, on the database's file system. Raises DatabaseError."""
        from atom_saas_sync.store.sqlite.files import free_disk_gb

        return free_disk_gb(self.location)

    def server_facts(self) -> None:
        """Return None: a file has no server."""

    def suggestions(self, kind: str, prefix: str) -> list[tuple[str, str]]:
        """Return values of this kind with this prefix, each with its meaning."""
        from atom_saas_sync.store.sqlite.suggestions import suggestions

        return suggestions(self.location, kind, prefix)

    def scratch_copy(self, directory: Path) -> Path:
        """Copy the file, if there is one, into an empty directory; return where a database may be used there."""
        from atom_saas_sync.store.sqlite.backup import copy

        scratch = directory / self.location.name
        if self.exists():
            copy(self.location, scratch)
        return scratch

    def foreign_values(self) -> list[str]:
        """Return, in words, the columns with values of a type that is never written."""
        from atom_saas_sync.store.sqlite.database import Database
        from atom_saas_sync.store.sqlite.foreign_values import foreign_values

        with Database.open(self.location, migrate=False, read_only=True) as database, database.reading() as connection:
            return [str(each) for each in foreign_values(connection)]

    def known_migrations(self) -> tuple[str, ...]:
        """Return the names of all migrations of this version, oldest first."""
        from atom_saas_sync.store.sqlite.revisions import NAMES

        return NAMES

    def copies(self) -> Copies:
        """Return the database's backups: making and restoring them."""
        from atom_saas_sync.store.sqlite.administration import Copies

        return Copies(self.location)
