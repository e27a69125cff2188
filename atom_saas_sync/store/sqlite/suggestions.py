"""Shell completion from the database: ids and names with a prefix."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

_MOST = 200
_SECONDS = 0.05
_INSTRUCTIONS_BETWEEN_LOOKS = 1000
_ABOVE = "\U0010ffff"

# Each yields values and their meanings; ?1 and ?2 are the bounds of the values, ?3 is the limit.
_STATEMENTS = {
    "skill": "SELECT skill_id, CASE WHEN json_valid(skill_data) THEN skill_data ->> '$.name' END FROM skill_cache "
    "WHERE skill_id >= ?1 AND skill_id < ?2 ORDER BY skill_id LIMIT ?3",
    "category": "SELECT category_name, NULL FROM category_cache "
    "WHERE category_name >= ?1 AND category_name < ?2 ORDER BY category_name LIMIT ?3",
    "conflict": "SELECT id, skill_id || ' ' || conflict_type FROM conflict_log "
    "WHERE NOT resolved AND CAST(id AS TEXT) >= ?1 AND CAST(id AS TEXT) < ?2 ORDER BY id DESC LIMIT ?3",
    "resolved conflict": "SELECT id, skill_id || ' ' || conflict_type FROM conflict_log "
    "WHERE resolved AND CAST(id AS TEXT) >= ?1 AND CAST(id AS TEXT) < ?2 ORDER BY id DESC LIMIT ?3",
    "waiting": "SELECT skill_id, reason FROM skill_offer "
    "WHERE kind = 'hold' AND skill_id >= ?1 AND skill_id < ?2 ORDER BY skill_id LIMIT ?3",
    "pinned": "SELECT skill_id, version FROM gate_pin "
    "WHERE skill_id >= ?1 AND skill_id < ?2 ORDER BY skill_id LIMIT ?3",
    "quarantined": "SELECT skill_id, reason FROM gate_quarantine "
    "WHERE skill_id >= ?1 AND skill_id < ?2 ORDER BY skill_id LIMIT ?3",
    "judged": "SELECT skill_id, NULL FROM skill_cache WHERE skill_id >= ?1 AND skill_id < ?2 "
    "UNION SELECT skill_id, NULL FROM skill_offer WHERE skill_id >= ?1 AND skill_id < ?2 "
    "UNION SELECT skill_id, NULL FROM gate_quarantine WHERE skill_id >= ?1 AND skill_id < ?2 ORDER BY 1 LIMIT ?3",
    "revocation": "SELECT id, coalesce(skill_id || ' ', '') || coalesce(version, '') || "
    "substr(lower(hex(digest)), 1, 12) || coalesce(publisher, '') FROM gate_revocation "
    "WHERE source = 'command' AND CAST(id AS TEXT) >= ?1 AND CAST(id AS TEXT) < ?2 ORDER BY id DESC LIMIT ?3",
    "rating": "SELECT id, skill_id || ' ' || rating FROM skill_rating "
    "WHERE CAST(id AS TEXT) >= ?1 AND CAST(id AS TEXT) < ?2 ORDER BY id DESC LIMIT ?3",
    "run": "SELECT id, kind || ' ' || started_at FROM sync_run "
    "WHERE CAST(id AS TEXT) >= ?1 AND CAST(id AS TEXT) < ?2 ORDER BY id DESC LIMIT ?3",
}


def suggestions(path: Path, kind: str, prefix: str) -> list[tuple[str, str]]:
    """Return values of this kind that begin with `prefix`, each with its meaning.

    At most 200, found within 50 ms: later ones are useless to a user who pressed the tab key. Empty if there are none,
    or if the database cannot be read at once.
    """
    end = time.monotonic() + _SECONDS
    found: list[tuple[str, str]] = []
    real = os.path.realpath(path)
    files = [f"{real}{suffix}" for suffix in ("", "-journal", "-wal", "-shm")]
    if any(os.path.exists(each) and not os.path.isfile(each) for each in files):  # noqa: PTH110, PTH113 - fewer imports
        return found  # SQLite would wait for a pipe
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_SECONDS)
    except sqlite3.Error:
        return found
    try:
        connection.set_progress_handler(lambda: time.monotonic() > end, _INSTRUCTIONS_BETWEEN_LOOKS)
        for value, meaning in connection.execute(_STATEMENTS[kind], (prefix, prefix + _ABOVE, _MOST)):
            found.append((str(value), str(meaning or "")))
    except sqlite3.Error:
        return found  # those found in time
    finally:
        connection.close()
    return found
