"""Write the conflict log."""

from __future__ import annotations

from datetime import datetime

import psycopg

from atom_saas_sync.model import ConflictEntry
from atom_saas_sync.store.postgresql import resolutions
from atom_saas_sync.store.postgresql.counters import increment
from atom_saas_sync.store.postgresql.rows import Row

RESOLVED_CONFLICTS_KEPT = 20
"""Per skill: many new versions of an edited skill must not fill the disk. Each row holds up to three texts of 1 MiB."""

_INSERT = """
    INSERT INTO conflict_log
        (skill_id, conflict_type, severity, local_data, remote_data, base_data, resolved, applied,
         resolution_strategy, resolved_data, resolved_at, resolved_by, replaced_unseen, created_at, updated_at)
    VALUES (%(skill_id)s, %(type)s, %(severity)s, coalesce(%(local)s::text, '{}'), %(remote)s, %(base)s, %(resolved)s,
        %(resolved)s, %(strategy)s, %(result)s, %(resolved_at)s, %(resolved_by)s, %(unseen)s, %(moment)s, %(moment)s)
    RETURNING id
"""
_UPDATE = """
    UPDATE conflict_log SET conflict_type = %(type)s, severity = %(severity)s,
        local_data = coalesce(%(local)s::text, local_data),
        undone_at = CASE WHEN %(resolved)s THEN NULL ELSE undone_at END,
        undone_by = CASE WHEN %(resolved)s THEN NULL ELSE undone_by END,
        remote_data = %(remote)s, base_data = %(base)s, resolved = %(resolved)s, applied = %(resolved)s,
        resolution_strategy = %(strategy)s, resolved_data = %(result)s, resolved_at = %(resolved_at)s,
        resolved_by = %(resolved_by)s, replaced_unseen = %(unseen)s, updated_at = %(moment)s
    WHERE id = %(id)s
"""
_DROP_OLDEST = """
    DELETE FROM conflict_log WHERE skill_id = %(skill_id)s AND applied AND id NOT IN (
        SELECT id FROM conflict_log WHERE skill_id = %(skill_id)s AND applied ORDER BY id DESC LIMIT %(number)s)
"""


def log_conflict(
    connection: psycopg.Connection[Row], skill_id: str, entry: ConflictEntry, now: datetime, *, resolved_by: str
) -> int:
    """Log a conflict with its three versions, or update the open one; return its id."""
    conflict, resolution = entry.conflict, entry.resolution
    moment = now.replace(microsecond=0)
    values = {
        "skill_id": skill_id,
        "type": conflict.type,
        "severity": conflict.severity,
        "local": conflict.local_text,
        "remote": resolutions.NO_VERSION if conflict.remote_text is None else conflict.remote_text,
        "base": conflict.base_text,
        "resolved": resolution is not None,
        "strategy": resolution.strategy if resolution else None,
        "result": resolution.result_text if resolution else None,
        "resolved_at": moment if resolution else None,
        "resolved_by": resolved_by if resolution else None,
        "unseen": bool(resolution and resolution.replaces_edit),
        "moment": moment,
        "id": entry.waiting_id,
    }
    if entry.waiting_id is None:
        row = connection.execute(_INSERT, values).fetchone()
        assert row is not None
        conflict_id = int(row[0])
        increment(connection, "atom_saas_conflicts_detected_total", type=conflict.type)
        connection.execute(_DROP_OLDEST, {"skill_id": skill_id, "number": RESOLVED_CONFLICTS_KEPT})
    else:
        connection.execute(_UPDATE, values)
        conflict_id = entry.waiting_id
    if resolution is not None:
        resolutions.close_older(connection, skill_id, conflict_id)
        increment(connection, "atom_saas_conflicts_resolved_total", strategy=resolution.strategy)
    return conflict_id
