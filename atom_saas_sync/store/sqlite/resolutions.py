"""Open conflicts of skills, and resolutions by other programs that are not applied yet.

The Atom backend resolves a conflict by writing its row: it is open exactly as long as `resolved_at` is NULL. `applied`
tells whether cache and base reflect the resolution.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from atom_saas_sync.model import LoggedConflict
from atom_saas_sync.store.backend_tables import NO_VERSION
from atom_saas_sync.times import parse_time, utc_text

OPEN = "resolved_at IS NULL AND about_skill = 1"
"""The condition for an open conflict of a skill, as in the partial index."""

NEWEST_OPEN = f"(SELECT max(id) FROM conflict_log WHERE skill_id = {{skill_id}} AND {OPEN})"  # noqa: S608 - constants
"""The newest open conflict, if the backend has logged several of the same skill."""

_UNAPPLIED = "resolved_at IS NOT NULL AND applied = 0"


def unapplied(connection: sqlite3.Connection) -> list[LoggedConflict]:
    """Return the resolutions by other programs that are not applied yet, in the order of the conflicts."""
    rows = connection.execute(f"SELECT * FROM conflict_log WHERE {_UNAPPLIED} ORDER BY id").fetchall()  # noqa: S608
    return [logged_conflict(row) for row in rows if row["about_skill"]]


def mark_applied(connection: sqlite3.Connection) -> None:
    """Record that all resolutions are applied."""
    connection.execute(f"UPDATE conflict_log SET applied = 1 WHERE {_UNAPPLIED}")  # noqa: S608 - constants


def close_older(connection: sqlite3.Connection, skill_id: str, conflict_id: int) -> None:
    """Close the older open conflicts of a skill with the resolution of this one."""
    connection.execute(
        f"""
        UPDATE conflict_log SET resolved = 1, applied = 1, (resolution_strategy, resolved_at, resolved_by, updated_at) =
            (SELECT resolution_strategy, resolved_at, resolved_by, updated_at FROM conflict_log WHERE id = ?2)
        WHERE skill_id = ?1 AND id < ?2 AND {OPEN}
        """,  # noqa: S608 - constants
        (skill_id, conflict_id),
    )


def logged_conflict(row: sqlite3.Row) -> LoggedConflict:
    """Return a row of the log; versions that were not selected are None, like those that do not exist."""
    given = set(row.keys())

    def value(name: str) -> Any:  # noqa: ANN401 - a column
        found = row[name] if name in given else None
        return found.decode(errors="replace") if isinstance(found, bytes) else found

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
        resolved_at=parse_time(row["resolved_at"]),
        resolved_by=row["resolved_by"],
        undone_at=parse_time(row["undone_at"]),
        undone_by=row["undone_by"],
        created_at=parse_time(row["created_at"]),
        updated_at=parse_time(row["updated_at"]),
        cached_text=value("cached_text"),
        cached_at=utc_text(value("cached_at")),
    )
