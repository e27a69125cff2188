"""Shared by the routes of `serve-health`: the settings, the clock, and the database."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from atom_saas_sync.config import Settings
from atom_saas_sync.config.gate import SettingsFiles, policy_of
from atom_saas_sync.core.health import check_health
from atom_saas_sync.core.signing import Signer
from atom_saas_sync.errors import DatabaseError
from atom_saas_sync.model import Health, Status
from atom_saas_sync.store.sqlite.conflicts import ConflictLog
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.store.sqlite.files import exists, free_disk_gb
from atom_saas_sync.store.sqlite.gate.desk import GateDatabase
from atom_saas_sync.store.sqlite.migrations import current
from atom_saas_sync.store.sqlite.runs import runs_for
from atom_saas_sync.store.sqlite.status import read_status
from atom_saas_sync.usecases.gate.desk import GateDesk
from atom_saas_sync.usecases.gate.loading import load_gate

_log = logging.getLogger(__name__)


class Site:
    """Opens resources for one request. Its methods raise DatabaseError."""

    def __init__(self, settings: Settings, now: Callable[[], datetime]) -> None:
        self.settings = settings
        self.now = now

    def read(self) -> Status:
        """Return the whole state."""
        settings = self.settings
        return read_status(
            settings.database_path,
            now=self.now(),
            per_minute=settings.rate_limit_per_minute,
            per_hour=settings.rate_limit_per_hour,
            admission=settings.admission,
            admission_scope=settings.admission_scope,
        )

    def health(self, status: Status) -> Health:
        """Return the health verdict for a status."""
        settings = self.settings
        return check_health(
            status,
            self.now(),
            sync_interval_minutes=settings.sync_interval_minutes,
            enabled=settings.enabled,
            websocket_enabled=settings.ws_enabled,
            api_url=settings.api_url,
        )

    def free_disk_gb(self) -> float | None:
        """Return the free disk space in GB; None, and an error in the log, if it cannot be read."""
        try:
            return round(free_disk_gb(self.settings.database_path), 1)
        except DatabaseError as error:
            _log.error("not ready: %s", error.message)
            return None

    def database(self) -> Database:
        """Open the database for writing; it must exist."""
        return Database.open(self.settings.database_path, create=False)

    def refuse_other_marketplace(self) -> None:
        """Raise WrongMarketplace if the database belongs to a marketplace other than that of the settings."""
        if exists(self.settings.database_path):
            with Database.open(self.settings.database_path, migrate=False, read_only=True) as database:
                if current(database):
                    runs_for(self.settings.api_url, database)

    @contextmanager
    def conflict_log(self) -> Iterator[ConflictLog]:
        """Open the conflict log."""
        with self.database() as database:
            yield ConflictLog(database, history_versions=self.settings.history_versions, signer=self._signer())

    @contextmanager
    def gate_desk(self) -> Iterator[GateDesk]:
        """Open what decisions about updates need. They never run the scan command."""
        settings = self.settings
        policy, files = policy_of(settings), SettingsFiles(settings)
        with self.database() as database:
            store = GateDatabase(database, history_versions=settings.history_versions, signer=self._signer())
            yield GateDesk(store, lambda: load_gate(policy, files, store, persons=False), settings.conflict_strategy)

    def _signer(self) -> Signer | None:
        key = self.settings.digest_key
        return None if key is None else Signer(bytes.fromhex(key.reveal()))
