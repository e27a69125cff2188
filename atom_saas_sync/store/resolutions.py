"""Which conflicts of skills are open, and which resolutions of other programs are still to be carried out.

The Atom backend resolves a conflict by writing its row: it is open exactly as long as `resolved_at` is NULL. `applied`
says whether cache and base follow the resolution already.
"""

from __future__ import annotations

import sqlite3

from atom_saas_sync.model import LoggedConflict

OPEN = "resolved_at IS NULL AND about_skill = 1"
"""The condition for an open conflict of a skill; as the partial index has it."""

NEWEST_OPEN = f"(SELECT max(id) FROM conflict_log WHERE skill_id = {{skill_id}} AND {OPEN})"  # noqa: S608 - constants
"""The one that waits, where the backend has logged several of the same skill."""

_UNAPPLIED = "resolved_at IS NOT NULL AND applied = 0"


def unapplied(connection: sqlite3.Connection) -> list[LoggedConflict]:
    """Return the resolutions of other programs that are still to be carried out, in the order of the conflicts."""
    rows = connection.execute(f"SELECT * FROM conflict_log WHERE {_UNAPPLIED} ORDER BY id").fetchall()  # noqa: S608
    if not rows:
        return []
    from atom_saas_sync.store.conflicts import logged_conflict

    return [logged_conflict(row) for row in rows if row["about_skill"]]


def mark_applied(connection: sqlite3.Connection) -> None:
    """Note that all resolutions are carried out."""
    connection.execute(f"UPDATE conflict_log SET applied = 1 WHERE {_UNAPPLIED}")  # noqa: S608 - constants


def close_older(connection: sqlite3.Connection, skill_id: str, conflict_id: int) -> None:
    """Close the older open conflicts of a skill in the way in which this one was resolved."""
    connection.execute(
        f"""
        UPDATE conflict_log SET resolved = 1, applied = 1, (resolution_strategy, resolved_at, resolved_by, updated_at) =
            (SELECT resolution_strategy, resolved_at, resolved_by, updated_at FROM conflict_log WHERE id = ?2)
        WHERE skill_id = ?1 AND id < ?2 AND {OPEN}
        """,  # noqa: S608 - constants
        (skill_id, conflict_id),
    )
