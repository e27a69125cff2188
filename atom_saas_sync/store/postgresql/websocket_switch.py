"""The switch that controls the connection of `watch`, which reacts within one heartbeat."""

from __future__ import annotations

from datetime import datetime

from atom_saas_sync.store.postgresql.audit import write_audit
from atom_saas_sync.store.postgresql.database import Database

LOCK_ROW = "INSERT INTO websocket_state (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET id = excluded.id"
"""Locks the row until the transaction ends: nobody else changes or deletes it. Creates a deleted one."""


class WebSocketSwitch:
    """Writes to websocket_state, like administrators of the Atom backend."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def set(self, *, enabled: bool, actor: str, now: datetime) -> None:
        """Allow `watch` to connect, or restrict it to polling."""
        self._write(f"websocket_enabled = {enabled}", "enable" if enabled else "disable", actor, now)

    def reset(self, *, actor: str, now: datetime) -> None:
        """Make a `watch` that waits for its next attempt connect immediately."""
        self._write("reconnect_attempts = 0, fallback_to_polling = false", "reconnect", actor, now)

    def _write(self, values: str, verb: str, actor: str, now: datetime) -> None:
        with self._database.transaction() as connection:
            connection.execute(LOCK_ROW)
            connection.execute(f"UPDATE websocket_state SET {values} WHERE id = 1")  # noqa: S608 - constants
            write_audit(connection, actor, f"websocket {verb}", "", now, {})
