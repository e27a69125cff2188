"""What the gate of each run is loaded from; imports little, because most runs need nothing else of the gate."""

from __future__ import annotations

import sqlite3

from atom_saas_sync.core.gate.stored import GateState
from atom_saas_sync.core.gate.types import Revocation
from atom_saas_sync.store.sqlite.gate.marks import read_marks

_STANDING = """
    SELECT EXISTS (SELECT 1 FROM skill_offer) OR EXISTS (SELECT 1 FROM gate_decision)
        OR EXISTS (SELECT 1 FROM gate_pin) OR EXISTS (SELECT 1 FROM gate_quarantine),
        (SELECT coalesce(max(id), 0) FROM gate_revocation)
"""


def standing(connection: sqlite3.Connection) -> tuple[bool, int]:
    """Return whether the gate has anything to look at, and the id of the newest revocation, 0 without any."""
    row = connection.execute(_STANDING).fetchone()
    return bool(row[0]), row[1]


def read_state(connection: sqlite3.Connection) -> GateState:
    """Return what the gate of a run is loaded from."""
    synced = connection.execute("SELECT 1 FROM sync_state WHERE last_successful_sync_at IS NOT NULL").fetchone()
    anything, _ = standing(connection)
    return GateState(_revocations(connection), read_marks(connection), anything, synced is not None)


def _revocations(connection: sqlite3.Connection) -> tuple[Revocation, ...]:
    if connection.execute("SELECT 1 FROM gate_revocation LIMIT 1").fetchone() is None:
        return ()
    from atom_saas_sync.store.sqlite.gate.people import revocations

    return tuple(revocations(connection))
