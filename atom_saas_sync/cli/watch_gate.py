"""Compose the gate of `watch`: for messages, and for its periodic work."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from atom_saas_sync.cli.runtime import RunClock
    from atom_saas_sync.config import Settings
    from atom_saas_sync.core.gate.types import Gate
    from atom_saas_sync.usecases.gate.current import CurrentGate
    from atom_saas_sync.usecases.gate.ticking import GateTicks
    from atom_saas_sync.usecases.ports import Store


class GateWork:
    """The gate's periodic work, over its own database connections.

    If the settings are replaced, everything composed from them is recreated.
    """

    def __init__(self, settings: Settings, clock: RunClock) -> None:
        self.settings = settings
        self._clock = clock
        self._made: dict[str, tuple[Settings, Store, GateTicks]] = {}
        self._at_work = {"tick": threading.Lock(), "scan": threading.Lock()}
        self._followed: tuple[Settings, CurrentGate] | None = None

    def require_policy(self, store: Store) -> None:
        """Raise ConfigError if the policy can't be read at the start; later, nothing new is admitted instead."""
        from atom_saas_sync.cli.gate_session import gate_desk

        gate_desk(self.settings, store, for_user=False).load()

    def for_messages(self, store: Store, now: datetime) -> Gate:
        """Return the gate for what messages say at `now`; `store` is that of the thread that writes."""
        from atom_saas_sync.cli.gate_session import current_gate

        settings = self.settings
        if self._followed is None or self._followed[0] is not settings:
            self._followed = settings, current_gate(settings, store)[1]
        return self._followed[1].get(now)

    def close(self) -> None:
        """Close the databases, except one that a thread still uses: that would crash the process."""
        for kind, (_, store, _) in self._made.items():
            if self._at_work[kind].acquire(timeout=1):
                store.close()

    def tick(self) -> None:
        """Apply changed files and rows, and judge what is due."""
        with self._at_work["tick"]:
            self._ticks("tick").tick()

    def scan(self) -> None:
        """Scan the versions that only lack a scan."""
        if self.settings.scan_command:
            with self._at_work["scan"]:
                self._ticks("scan").scan()

    def confirm(self, skill_ids: Sequence[str]) -> None:
        """Fetch the skills that messages named, and apply the result."""
        from atom_saas_sync.cli.gate_session import current_gate
        from atom_saas_sync.cli.runtime import marketplace_client, signer_of
        from atom_saas_sync.cli.session import budget_of
        from atom_saas_sync.core.deletions import MaxDelete
        from atom_saas_sync.store import open_store
        from atom_saas_sync.usecases.binding import runs_for
        from atom_saas_sync.usecases.confirm_messages import confirm_messages

        settings, clock = self.settings, self._clock
        with (
            open_store(settings.database) as store,
            budget_of(settings) as budget,
            marketplace_client(settings, budget, clock) as client,
        ):
            runs_for(settings.api_url, store)
            confirm_messages(
                client,
                store.confirmations(history_versions=settings.history_versions, signer=signer_of(settings)),
                current_gate(settings, store, check=clock.check)[1].get,
                clock,
                skill_ids,
                strategy=settings.conflict_strategy,
                max_delete=MaxDelete(),
                check=clock.check,
                connections=settings.connections,
            )

    @property
    def limits(self) -> tuple[int, int]:
        """Return the request limits per minute and per hour."""
        return self.settings.rate_limit_per_minute, self.settings.rate_limit_per_hour

    def _ticks(self, kind: str) -> GateTicks:
        from atom_saas_sync.cli.gate_session import current_gate
        from atom_saas_sync.store import open_store
        from atom_saas_sync.usecases.gate.ticking import GateTicks

        settings, made = self.settings, self._made.get(kind)
        if made is not None and made[0] is settings:
            return made[2]
        store = made[1] if made is not None else open_store(settings.database, any_thread=True)
        ticks = GateTicks(*current_gate(settings, store, check=self._clock.check), self._clock)
        self._made[kind] = settings, store, ticks
        return ticks
