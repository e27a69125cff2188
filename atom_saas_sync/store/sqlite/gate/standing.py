"""How a skill stands with the gate, for a hint."""

from __future__ import annotations

from typing import Literal

from atom_saas_sync.store.sqlite.database import Database

Standing = Literal["quarantined", "hold", "refuse"]

_STANDING = """
    SELECT 'quarantined' FROM gate_quarantine WHERE skill_id = ?1
    UNION ALL SELECT kind FROM skill_offer WHERE skill_id = ?1
"""


def standing_of(database: Database, skill_id: str) -> Standing | None:
    """Return whether a skill is in quarantine, or whether a version of it waits or was refused."""
    with database.reading() as connection:
        row = connection.execute(_STANDING, (skill_id,)).fetchone()
        return None if row is None else row[0]
