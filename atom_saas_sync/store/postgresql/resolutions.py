"""Open conflicts of skills, and resolutions of other programs that are still to be applied.

The Atom backend resolves a conflict by writing its row: it is open exactly as long as `resolved_at` is NULL. `applied`
says whether the resolution has been applied to cache and base.
"""

from __future__ import annotations

from typing import Any

import psycopg

from atom_saas_sync.model import LoggedConflict
from atom_saas_sync.store.postgresql.rows import Row
from atom_saas_sync.times import time_text

NO_VERSION = "{}"
"""The `remote_data` of a skill that the marketplace has deleted: the Atom backend needs an object there."""

OPEN = "resolved_at IS NULL AND about_skill"
"""The condition for an open conflict of a skill, as in the partial index."""

UNAPPLIED = "resolved_at IS NOT NULL AND NOT applied"


def unapplied(connection: psycopg.Connection[Row]) -> list[LoggedConflict]:
    """Return the resolutions of other programs that are still to be applied, in the order of the conflicts."""
    rows = connection.execute(f"SELECT * FROM conflict_log WHERE {UNAPPLIED} ORDER BY id").fetchall()  # noqa: S608 - constant
    return [logged_conflict(row) for row in rows if row["about_skill"]]


def mark_applied(connection: psycopg.Connection[Row]) -> None:
    """Record that all resolutions were applied."""
    connection.execute(f"UPDATE conflict_log SET applied = true WHERE {UNAPPLIED}")  # noqa: S608 - constant


def close_older(connection: psycopg.Connection[Row], skill_id: str, conflict_id: int) -> None:
    """Close the older open conflicts of a skill with the resolution of this one."""
    connection.execute(
        """
        UPDATE conflict_log AS log
        SET resolved = true, applied = true, resolution_strategy = n.resolution_strategy, resolved_at = n.resolved_at,
            resolved_by = n.resolved_by, updated_at = n.updated_at
        FROM (SELECT * FROM conflict_log WHERE id = %(id)s) AS n
        WHERE log.skill_id = %(skill)s AND log.id < %(id)s AND log.resolved_at IS NULL AND log.about_skill
        """,
        {"skill": skill_id, "id": conflict_id},
    )


def logged_conflict(row: Row) -> LoggedConflict:
    """Return a row of the log; versions that were not selected are None, like those that do not exist."""

    def value(name: str) -> Any:  # noqa: ANN401 - a column
        return row[name] if name in row.names else None

    def version(name: str) -> Any:  # noqa: ANN401 - a column
        found = value(name)
        return None if found in (NO_VERSION, "null") else found

    return LoggedConflict(
        id=row["id"],
        skill_id=row["skill_id"],
        type=row["conflict_type"],
        severity=row["severity"],
        local_text=version("local_data"),
        remote_text=version("remote_data"),
        base_text=version("base_data"),
        resolved=row["resolved_at"] is not None,
        strategy=row["resolution_strategy"],
        result_text=version("resolved_data"),
        resolved_at=row["resolved_at"],
        resolved_by=row["resolved_by"],
        undone_at=row["undone_at"],
        undone_by=row["undone_by"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        cached_text=value("cached_text"),
        cached_at=time_text(value("cached_at")),
    )
