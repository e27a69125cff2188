"""A database on a server before it is opened (the contract is in usecases/ports/engine.py)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from atom_saas_sync.core.server_address import ServerAddress
from atom_saas_sync.errors import DatabaseError
from atom_saas_sync.store.limits import BUSY_TIMEOUT_SECONDS

if TYPE_CHECKING:
    from atom_saas_sync.core.location import Location
    from atom_saas_sync.model import Status
    from atom_saas_sync.model.server import ServerFacts
    from atom_saas_sync.store.postgresql.copies import Copies
    from atom_saas_sync.store.postgresql.requests import RequestBudget
    from atom_saas_sync.store.postgresql.store import PostgreSQLStore


class PostgreSQLEngine:
    """The database at an address."""

    def __init__(self, address: ServerAddress) -> None:
        self.location = address

    def exists(self) -> bool:
        """Tell whether our tables exist. Raises DatabaseError if that is unknown."""
        from atom_saas_sync.store.postgresql import migrations
        from atom_saas_sync.store.postgresql.database import Database

        with Database.open(self.location, migrate=False, read_only=True) as database:
            return migrations.current(database) is not None

    def is_current(self) -> bool:
        """Tell whether there is a database, and it has all migrations. Raises DatabaseError, also for a newer one."""
        from atom_saas_sync.store.postgresql import migrations
        from atom_saas_sync.store.postgresql.database import Database

        with Database.open(self.location, migrate=False, read_only=True) as database:
            migrations.refuse_newer(migrations.applied(database), database)
            return not migrations.pending(database)

    def open(
        self,
        *,
        busy_timeout_seconds: float = BUSY_TIMEOUT_SECONDS,
        migrate: bool = True,
        read_only: bool = False,
        create: bool = True,
        adopt: bool | None = None,
        any_thread: bool = False,  # noqa: ARG002 - connections may be used by any thread
    ) -> PostgreSQLStore:
        """Connect; see Database.open."""
        from atom_saas_sync.store.postgresql.database import Database
        from atom_saas_sync.store.postgresql.store import PostgreSQLStore

        database = Database.open(
            self.location,
            busy_timeout_seconds=busy_timeout_seconds,
            migrate=migrate,
            read_only=read_only,
            create=create,
            adopt=adopt,
        )
        return PostgreSQLStore(database)

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
        from atom_saas_sync.store.postgresql.status import read_status

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
        """Open the request budget that all processes of all hosts share."""
        from atom_saas_sync.store.postgresql.requests import RequestBudget

        return RequestBudget(
            self.location,
            per_minute=per_minute,
            per_hour=per_hour,
            marketplace=marketplace,
            busy_timeout_seconds=busy_timeout_seconds,
        )

    @contextmanager
    def upkeep(self) -> Iterator[ServerUpkeep]:
        """Return maintenance that does nothing and needs no connection: the server does it on its own."""
        yield ServerUpkeep()

    def free_disk_gb(self) -> None:
        """Return None: the disk is the server's."""

    def server_facts(self) -> ServerFacts:
        """Return what the server says about itself."""
        from atom_saas_sync.store.postgresql.examination import examine

        return examine(self.location, busy_timeout_seconds=10)

    def suggestions(self, kind: str, prefix: str) -> list[tuple[str, str]]:
        """Return values of this kind that begin with `prefix`, each with its meaning."""
        from atom_saas_sync.store.postgresql.suggestions import suggestions

        return suggestions(self.location, kind, prefix)

    def scratch_copy(self, directory: Path) -> Location:
        """Return a file for a dry run if the server has no database yet: the plan is the same on every engine.

        Raises DatabaseError for a database of another version: it is not copied.
        """
        if not self.exists():
            return directory / "dry-run.db"
        raise DatabaseError(
            f"the database {self.location} has not all tables of this version, and a dry run changes none",
            hint="`atom-sync db upgrade` brings it up to date",
        )

    def foreign_values(self) -> list[str]:
        """Return nothing: the server stores no value of another type than the column's."""
        return []

    def known_migrations(self) -> tuple[str, ...]:
        """Return the names of all migrations of this version, oldest first."""
        from atom_saas_sync.store.postgresql.schema import MIGRATIONS

        return tuple(each.name for each in MIGRATIONS)

    def copies(self) -> Copies:
        """Return what makes and restores backups."""
        from atom_saas_sync.store.postgresql.copies import Copies

        return Copies(self.location)


class ServerUpkeep:
    """Maintenance during continuous writing; a server needs none."""

    def tidy(self) -> None:
        """Do nothing."""

    def pause(self, writing: float, *, of: float) -> float:  # noqa: ARG002 - the server is fair to all who wait
        """Return 0: the server treats waiting writers fairly."""
        return 0.0
