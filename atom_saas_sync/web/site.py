"""Shared by the routes of `serve-health`: the settings, the clock, and the database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from atom_saas_sync.config import Settings
from atom_saas_sync.config.gate import SettingsFiles, policy_of
from atom_saas_sync.core.health import check_health
from atom_saas_sync.core.signing import Signer
from atom_saas_sync.model import Health, Status
from atom_saas_sync.store import engine_at
from atom_saas_sync.usecases.binding import runs_for
from atom_saas_sync.usecases.gate.desk import GateDesk
from atom_saas_sync.usecases.gate.loading import load_gate
from atom_saas_sync.web.sharing import Shared

if TYPE_CHECKING:
    from atom_saas_sync.usecases.ports import ListedConflicts, Store


_READINGS_AT_ONCE = 2
"""One more than needed: while a broken connection keeps one reading waiting, others get through."""


class State(NamedTuple):
    """The whole state, and whether there is a database (without tables, its status is empty)."""

    status: Status
    exists: bool


class Site:
    """Opens resources for one request. Its methods raise DatabaseError.

    Each reading connects anew to a server: a kept connection could be one to a host that has failed since, on which a
    probe would wait for 25 seconds, and it would not show whether commands can still log in. However many probes come
    at once, there are at most two such connections.
    """

    def __init__(self, settings: Settings, now: Callable[[], datetime]) -> None:
        self.settings = settings
        self.engine = engine_at(settings.database)
        self.now = now
        self._state = Shared(self._read, at_once=_READINGS_AT_ONCE)

    def read(self) -> Status:
        """Return the whole state."""
        return self.state().status

    def state(self) -> State:
        """Return the whole state, read after this call by it or by a request that came at the same time."""
        return self._state.get()

    def _read(self) -> State:
        settings = self.settings
        status = self.engine.status(
            self.now(),
            per_minute=settings.rate_limit_per_minute,
            per_hour=settings.rate_limit_per_hour,
            admission=settings.admission,
            admission_scope=settings.admission_scope,
        )
        return State(status, status.revision is not None or self.engine.exists())

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

    def store(self) -> Store:
        """Open the database for writing; it must exist."""
        return self.engine.open(create=False)

    def refuse_other_marketplace(self) -> None:
        """Raise WrongMarketplace if the database belongs to a marketplace other than that of the settings."""
        if self.engine.exists():
            with self.engine.open(migrate=False, read_only=True) as store:
                if store.schema().current():
                    runs_for(self.settings.api_url, store)

    @contextmanager
    def conflict_log(self) -> Iterator[ListedConflicts]:
        """Open the conflict log."""
        with self.store() as store:
            yield store.conflicts(history_versions=self.settings.history_versions, signer=self._signer())

    @contextmanager
    def gate_desk(self) -> Iterator[GateDesk]:
        """Open what decisions about updates need. They never run the scan command."""
        settings = self.settings
        policy, files = policy_of(settings), SettingsFiles(settings)
        with self.store() as store:
            gate = store.gate(history_versions=settings.history_versions, signer=self._signer())
            yield GateDesk(gate, lambda: load_gate(policy, files, gate, for_user=False), settings.conflict_strategy)

    def _signer(self) -> Signer | None:
        key = self.settings.digest_key
        return None if key is None else Signer(bytes.fromhex(key.reveal()))
