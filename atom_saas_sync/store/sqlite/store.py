"""An open SQLite database as the contract has it (usecases/ports/engine.py). Rooms are imported when entered."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from atom_saas_sync.store.sqlite.database import Database

if TYPE_CHECKING:
    from atom_saas_sync.core.signing import Signer
    from atom_saas_sync.store.sqlite.administration import Schema, Upkeep
    from atom_saas_sync.store.sqlite.catalogue import Catalogue
    from atom_saas_sync.store.sqlite.conflicts import ConflictLog
    from atom_saas_sync.store.sqlite.gate.desk import GateDatabase
    from atom_saas_sync.store.sqlite.gate.verifying import Verifying
    from atom_saas_sync.store.sqlite.history import History
    from atom_saas_sync.store.sqlite.known_ids import KnownIds
    from atom_saas_sync.store.sqlite.lifetime import Lifetime
    from atom_saas_sync.store.sqlite.moving import RowsIn, RowsOut
    from atom_saas_sync.store.sqlite.ratings import Ratings
    from atom_saas_sync.store.sqlite.reading import Reading
    from atom_saas_sync.store.sqlite.realtime import RealtimeStore, Schedule
    from atom_saas_sync.store.sqlite.requests import StoredLimits
    from atom_saas_sync.store.sqlite.run_log import RunHistory
    from atom_saas_sync.store.sqlite.runs import Runs
    from atom_saas_sync.store.sqlite.websocket_switch import WebSocketSwitch


class SQLiteStore:
    """One connection to the database file, and the verbs of each subject over it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def location(self) -> Path:
        """Return the path of the file."""
        return self._database.path

    def close(self) -> None:
        """Close the connection; closing it again does nothing."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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
        """Hold the lock for runs of this kind during the block; wait for it up to `wait_seconds`."""
        from atom_saas_sync.store.sqlite.lock import run_lock

        return run_lock(
            self.location,
            kind,
            command=command,
            now=now,
            sleep=sleep,
            wait_seconds=wait_seconds,
            may_wait=may_wait,
        )

    def holder(self, kind: str) -> dict[str, Any] | None:
        """Return what the run that holds the lock of this kind has written, or None."""
        from atom_saas_sync.store.sqlite.lock import holder

        return holder(self.location, kind)

    def rebind(self, marketplace: str, *, deletions: int, actor: str, now: datetime) -> None:
        """Let the database belong to another marketplace, whose next sync may delete that many skills."""
        from atom_saas_sync.store.sqlite.rebind import rebind

        rebind(self._database, marketplace, deletions=deletions, actor=actor, now=now)

    def catalogue(self, *, history_versions: int, signer: Signer | None = None) -> Catalogue:
        """Return what runs read and write."""
        from atom_saas_sync.store.sqlite.catalogue import Catalogue

        return Catalogue(self._database, history_versions=history_versions, signer=signer)

    def edits(self, *, history_versions: int) -> Catalogue:
        """Return what people edit."""
        return self.catalogue(history_versions=history_versions)

    def conflicts(self, *, history_versions: int, signer: Signer | None = None) -> ConflictLog:
        """Return the conflict log."""
        from atom_saas_sync.store.sqlite.conflicts import ConflictLog

        return ConflictLog(self._database, history_versions=history_versions, signer=signer)

    def reading(self, now: datetime) -> Reading:
        """Return the cache as readers see it at a moment."""
        from atom_saas_sync.store.sqlite.reading import Reading

        return Reading(self._database, now=now)

    def history(self) -> History:
        """Return the versions of skills."""
        from atom_saas_sync.store.sqlite.history import History

        return History(self._database)

    def ids(self) -> KnownIds:
        """Return what finds ids and names."""
        from atom_saas_sync.store.sqlite.known_ids import KnownIds

        return KnownIds(self._database)

    def lifetime(self) -> Lifetime:
        """Return what purging needs."""
        from atom_saas_sync.store.sqlite.lifetime import Lifetime

        return Lifetime(self._database)

    def figures(self) -> Lifetime:
        """Return the figures of the cache."""
        return self.lifetime()

    def ratings(self) -> Ratings:
        """Return the ratings as sending them needs them."""
        from atom_saas_sync.store.sqlite.ratings import Ratings

        return Ratings(self._database)

    def own_ratings(self) -> Ratings:
        """Return the ratings as people see and change them."""
        return self.ratings()

    def runs(self, *, marketplace: str | None = None) -> Runs:
        """Return the audit trail of a database that belongs to `marketplace` from the first answer on."""
        from atom_saas_sync.store.sqlite.runs import Runs

        return Runs(self._database, marketplace=marketplace)

    def run_history(self) -> RunHistory:
        """Return the audit trail as it is shown."""
        from atom_saas_sync.store.sqlite.run_log import RunHistory

        return RunHistory(self._database)

    def budget(self) -> StoredLimits:
        """Return the request budget as people see it."""
        from atom_saas_sync.store.sqlite.requests import StoredLimits

        return StoredLimits(self._database)

    def events(self, *, history_versions: int, signer: Signer | None = None) -> RealtimeStore:
        """Return what applies messages."""
        from atom_saas_sync.store.sqlite.realtime import RealtimeStore

        return RealtimeStore(self._database, history_versions=history_versions, signer=signer)

    def confirmations(self, *, history_versions: int, signer: Signer | None = None) -> RealtimeStore:
        """Return the store for responses about skills that messages named."""
        return self.events(history_versions=history_versions, signer=signer)

    def watch_state(self) -> RealtimeStore:
        """Return the stored state of `watch`."""
        from atom_saas_sync.store.sqlite.realtime import RealtimeStore

        return RealtimeStore(self._database, history_versions=0)  # it stores no skills

    def switch(self) -> WebSocketSwitch:
        """Return the switch by which people control the connection of `watch`."""
        from atom_saas_sync.store.sqlite.websocket_switch import WebSocketSwitch

        return WebSocketSwitch(self._database)

    def schedule(self) -> Schedule:
        """Return the plan of the periodic jobs."""
        from atom_saas_sync.store.sqlite.realtime import Schedule

        return Schedule(self._database)

    def gate(self, *, history_versions: int, signer: Signer | None = None) -> GateDatabase:
        """Return what opens the transactions of the gate."""
        from atom_saas_sync.store.sqlite.gate.desk import GateDatabase

        return GateDatabase(self._database, history_versions=history_versions, signer=signer)

    def serving(self, signer: Signer | None = None) -> Verifying:
        """Return what is served, as it must be verified."""
        from atom_saas_sync.store.sqlite.gate.verifying import Verifying

        return Verifying(self._database, signer)

    def schema(self) -> Schema:
        """Return the migrations of the database."""
        from atom_saas_sync.store.sqlite.administration import Schema

        return Schema(self._database)

    def moving_out(self) -> AbstractContextManager[RowsOut]:
        """Open a snapshot of all rows, for another database."""
        from atom_saas_sync.store.sqlite.moving import moving_out

        return moving_out(self._database)

    def moving_in(self) -> AbstractContextManager[RowsIn]:
        """Open the transaction that fills this database from another one."""
        from atom_saas_sync.store.sqlite.moving import moving_in

        return moving_in(self._database)

    def maintenance(self) -> Upkeep:
        """Return checks and repairs."""
        from atom_saas_sync.store.sqlite.administration import Upkeep

        return Upkeep(self._database)
