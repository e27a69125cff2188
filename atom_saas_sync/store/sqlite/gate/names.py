"""Find ids that look alike, with a temporary table of the skeletons of all known ids."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from atom_saas_sync.core.gate.lookalikes import skeleton

_CREATE = (
    "CREATE TEMP TABLE IF NOT EXISTS known_name (skill_id TEXT PRIMARY KEY, skeleton TEXT NOT NULL) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS temp.idx_known_name_skeleton ON known_name(skeleton)",
    "CREATE TEMP TABLE IF NOT EXISTS known_until (base INTEGER NOT NULL, offer INTEGER NOT NULL)",
)
_FORMER = "SELECT DISTINCT skill_id FROM skill_seen"
_NEW = """
    SELECT skill_id FROM skill_base WHERE id > (SELECT base FROM known_until)
    UNION SELECT skill_id FROM skill_offer WHERE rowid > (SELECT offer FROM known_until)
"""
_UNTIL = """
    SELECT coalesce((SELECT max(id) FROM skill_base), 0), coalesce((SELECT max(rowid) FROM skill_offer), 0)
"""
# When an id was first known. If several became known together, the served one is older, then the one waiting longest.
_SINCE = """
    SELECT min(at), CASE
        WHEN EXISTS (SELECT 1 FROM skill_base WHERE skill_id = ?1) THEN 0
        ELSE coalesce((SELECT rowid FROM skill_offer WHERE skill_id = ?1), 0)
    END
    FROM (
        SELECT admitted_at AS at FROM skill_base WHERE skill_id = ?1
        UNION ALL SELECT coalesce(first_seen_at, seen_at) FROM skill_seen WHERE skill_id = ?1
    )
"""


def lookalikes(connection: sqlite3.Connection, skill_ids: Sequence[str]) -> dict[str, str]:
    """Return those of these skills that look like an id known earlier, each with that id.

    A skill with a base counts as a lookalike of none. Of two new skills, the first in the list counts as known earlier.
    """
    new = _without_base(connection, skill_ids)
    if not new:
        return {}
    _read_names(connection)
    found = {}
    before: dict[str, str] = {}
    for skill_id in new:
        bones = skeleton(skill_id)
        since = _since(connection, skill_id)
        others = connection.execute(
            "SELECT skill_id FROM known_name WHERE skeleton = ? AND skill_id != ? ORDER BY skill_id", (bones, skill_id)
        ).fetchall()
        for (other,) in others:
            if since is None or ((earlier := _since(connection, other)) is not None and earlier < since):
                found[skill_id] = other
                break
        else:
            if since is None and bones in before:
                found[skill_id] = before[bones]
        before.setdefault(bones, skill_id)
        connection.execute("INSERT OR IGNORE INTO known_name VALUES (?, ?)", (skill_id, bones))
    return found


def _without_base(connection: sqlite3.Connection, skill_ids: Sequence[str]) -> list[str]:
    rows = connection.execute(
        "SELECT w.value FROM json_each(?) AS w WHERE w.value NOT IN (SELECT skill_id FROM skill_base) ORDER BY w.key",
        (json.dumps(list(skill_ids)),),
    )
    return [row[0] for row in rows]


def _read_names(connection: sqlite3.Connection) -> None:
    """Update the temporary table: rows added since, by any program, have higher row ids."""
    for statement in _CREATE:
        connection.execute(statement)
    if connection.execute("SELECT 1 FROM known_until").fetchone() is None:
        connection.execute("INSERT INTO known_until VALUES (0, 0)")
        _add(connection, _FORMER)
    _add(connection, _NEW)
    connection.execute("UPDATE known_until SET base = ?, offer = ?", connection.execute(_UNTIL).fetchone()[:2])


def _add(connection: sqlite3.Connection, query: str) -> None:
    names = [(row[0], skeleton(row[0])) for row in connection.execute(query)]
    connection.executemany("INSERT OR IGNORE INTO known_name VALUES (?, ?)", names)


def _since(connection: sqlite3.Connection, skill_id: str) -> tuple[str, int] | None:
    at, place = connection.execute(_SINCE, (skill_id,)).fetchone()
    return None if at is None else (at, place)
