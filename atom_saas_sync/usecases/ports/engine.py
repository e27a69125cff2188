"""A database as a whole; the other modules have the methods of single subjects."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from atom_saas_sync.core.location import Location
from atom_saas_sync.core.signing import Signer
from atom_saas_sync.model import Status
from atom_saas_sync.model.server import ServerFacts
from atom_saas_sync.usecases.ports.catalogue import StoredCatalogue
from atom_saas_sync.usecases.ports.gate_desk import GateStore
from atom_saas_sync.usecases.ports.ids import StoredIds
from atom_saas_sync.usecases.ports.moving import RowsIn, RowsOut
from atom_saas_sync.usecases.ports.people import EditableCatalogue, ListedConflicts
from atom_saas_sync.usecases.ports.ratings import StoredRatings, UserRatings
from atom_saas_sync.usecases.ports.reading import CacheFigures, StoredHistory, StoredLifetime, StoredReading
from atom_saas_sync.usecases.ports.realtime import (
    JobStore,
    StateStore,
    StoredConfirmations,
    StoredEvents,
    StoredSwitch,
    StoreUpkeep,
)
from atom_saas_sync.usecases.ports.requests import BudgetDesk, StoredBudget
from atom_saas_sync.usecases.ports.runs import StoredRunHistory, StoredRuns
from atom_saas_sync.usecases.ports.upkeep import DatabaseCopies, Lockable, Maintenance, StoredSchema
from atom_saas_sync.usecases.ports.verifying import StoredServing


class Store(Lockable, Protocol):
    """An open database: one connection, for one thread unless it was opened otherwise.

    Each method without a verb in its name returns the verbs of one subject, which is cheap and reads nothing. All use
    this connection. `history_versions` is how many former versions of a skill are kept, With a `signer`, data is signed
    when written and verified when read.
    """

    @property
    def location(self) -> Location:
        """Return where the database is; as text, for people, without a password."""

    def close(self) -> None:
        """Close the connection; closing it again does nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def holder(self, kind: str) -> Mapping[str, Any] | None:
        """Return `pid`, `host`, `command` and `since` of the run that holds the lock of this kind now, or None.

        Empty for the instant before a run that got the lock has written its name.
        """

    def rebind(self, marketplace: str, *, deletions: int, actor: str, now: datetime) -> None:
        """Assign the database to another marketplace, whose next sync may delete up to that many skills.

        Skills, bases, local edits, open conflicts and ratings stay; data about the former marketplace is discarded.
        """

    def catalogue(self, *, history_versions: int, signer: Signer | None = None) -> StoredCatalogue:
        """Return the catalogue, for runs."""

    def edits(self, *, history_versions: int) -> EditableCatalogue:
        """Return the catalogue, for local edits."""

    def conflicts(self, *, history_versions: int, signer: Signer | None = None) -> ListedConflicts:
        """Return the conflict log."""

    def reading(self, now: datetime) -> StoredReading:
        """Return the cache as readers see it at `now`."""

    def history(self) -> StoredHistory:
        """Return the versions of skills."""

    def ids(self) -> StoredIds:
        """Return the lookup of ids and names."""

    def lifetime(self) -> StoredLifetime:
        """Return the cache's lifetime, for purging."""

    def figures(self) -> CacheFigures:
        """Return the figures of the cache."""

    def ratings(self) -> StoredRatings:
        """Return the ratings, for syncs."""

    def own_ratings(self) -> UserRatings:
        """Return the ratings, for users."""

    def runs(self, *, marketplace: str | None = None) -> StoredRuns:
        """Return the audit trail; a new database belongs to `marketplace` from its first response on."""

    def run_history(self) -> StoredRunHistory:
        """Return the audit trail, for lists."""

    def budget(self) -> BudgetDesk:
        """Return the request budget, for users."""

    def events(self, *, history_versions: int, signer: Signer | None = None) -> StoredEvents:
        """Return the store for applying messages."""

    def confirmations(self, *, history_versions: int, signer: Signer | None = None) -> StoredConfirmations:
        """Return the store for confirming messages."""

    def watch_state(self) -> StateStore:
        """Return the stored state of `watch`."""

    def switch(self) -> StoredSwitch:
        """Return the switch that controls the connection of `watch`."""

    def schedule(self) -> JobStore:
        """Return the plan of the periodic jobs."""

    def gate(self, *, history_versions: int, signer: Signer | None = None) -> GateStore:
        """Return the gate's transactions."""

    def serving(self, signer: Signer | None = None) -> StoredServing:
        """Return the served skills, for verification."""

    def schema(self) -> StoredSchema:
        """Return the migrations of the database."""

    def moving_out(self) -> AbstractContextManager[RowsOut]:
        """Open a snapshot of all rows, for another database."""

    def moving_in(self) -> AbstractContextManager[RowsIn]:
        """Open the transaction that fills this database from another one. Raises DatabaseError if it is not empty.

        Nothing is stored if the block ends with an exception, or is killed.
        """

    def maintenance(self) -> Maintenance:
        """Return checks and repairs."""


class Engine(Protocol):
    """A database before it is opened, which need not exist. Thread-safe; has no connection."""

    @property
    def location(self) -> Location:
        """Return where the database is; as text, for people, without a password."""

    def exists(self) -> bool:
        """Tell whether there is a database, of any version. Raises DatabaseError if that is unknown."""

    def is_current(self) -> bool:
        """Tell whether there is a database, and it has all migrations. Raises DatabaseError, also for a newer one."""

    def open(
        self,
        *,
        busy_timeout_seconds: float = ...,
        migrate: bool = True,
        read_only: bool = False,
        create: bool = True,
        adopt: bool | None = None,
        any_thread: bool = False,
    ) -> Store:
        """Open the database.

        With `migrate`, our tables are created in a database that is new, empty or has only other programs' tables, and
        an older one is upgraded as far as the engine does that automatically; so is one made by the Atom backend, with
        `adopt` (default: as `create`). Without `migrate`, any version is accepted. With `read_only`, nothing is
        created, upgraded or written; with `migrate` it must then be up to date. Without `create`, nothing is created
        either, but the database may be written to. With `any_thread`, threads may share it if they take turns. Writers
        wait `busy_timeout_seconds` for others (default: that of the front door).

        Raises DatabaseError: it is missing, cannot be used, is damaged, full or locked, was made by a newer version, or
        holds another program's table of one of our names.
        """

    def status(
        self,
        now: datetime,
        *,
        per_minute: int,
        per_hour: int,
        admission: str,
        admission_scope: str,
    ) -> Status:
        """Read everything that `status` and metrics show, as one consistent state.

        The request limits hold as long as the marketplace has declared none; `admission` and `admission_scope` come
        from the settings. A database that is missing or lacks some of our tables gives an empty status that says so.
        Takes at most seconds, also while others write.

        Raises DatabaseError if it cannot be read, or was made by a newer version.
        """

    def request_budget(
        self, *, per_minute: int, per_hour: int, marketplace: str = "", busy_timeout_seconds: float = ...
    ) -> StoredBudget:
        """Open the request budget that all processes share.

        It has its own connection: the open transaction of a run must not keep others from counting. It enforces these
        limits, and lower ones that `marketplace` declares.
        """

    def upkeep(self) -> AbstractContextManager[StoreUpkeep]:
        """Open the maintenance for a process that writes continuously, over a connection of its own."""

    def free_disk_gb(self) -> float | None:
        """Return the free space, in GB (10^9 bytes), on the file system where the database is or will be.

        None if it is not on this machine. Raises DatabaseError.
        """

    def server_facts(self) -> ServerFacts | None:
        """Return facts about the database's server, over a connection of its own; None without a server.

        Raises ConfigError for a server that cannot be used, such as one that is too old, and DatabaseError.
        """

    def suggestions(self, kind: str, prefix: str) -> list[tuple[str, str]]:
        """Return values of this kind that begin with `prefix`, each with its meaning, for shell completion.

        At most 200, found within 50 ms on this machine. It never fails: empty if there are none, or if the database
        cannot be read at once.
        """

    def scratch_copy(self, directory: Path) -> Location:
        """Return a copy in an empty directory for a dry run if the database is not current.

        Raises DatabaseError where the engine makes no copies.
        """

    def foreign_values(self) -> list[str]:
        """Return, in words, the columns with values of a type that is never written; empty if the engine refuses those.

        It reads the whole database, of any version. Raises DatabaseError if it cannot be read.
        """

    def known_migrations(self) -> tuple[str, ...]:
        """Return the names of all migrations of this version, oldest first. Nothing is opened."""

    def copies(self) -> DatabaseCopies:
        """Return the database's backups: making and restoring them."""
