"""Write the conflict log."""

from __future__ import annotations

import sqlite3

from atom_saas_sync.model import ConflictEntry
from atom_saas_sync.store.backend_tables import NO_VERSION
from atom_saas_sync.store.sqlite import resolutions
from atom_saas_sync.store.sqlite.counters import increment

RESOLVED_CONFLICTS_KEPT = 20
"""Per skill. New versions of an edited skill must not fill the disk: each row has three texts of up to 1 MiB."""


def log_conflict(
    connection: sqlite3.Connection, skill_id: str, entry: ConflictEntry, moment: str, *, resolved_by: str
) -> int:
    """Log a conflict with its three versions, or update the open one; return its id."""
    conflict, resolution = entry.conflict, entry.resolution
    values = {
        "skill_id": skill_id,
        "type": conflict.type,
        "severity": conflict.severity,
        "local": conflict.local_text,
        "remote": NO_VERSION if conflict.remote_text is None else conflict.remote_text,
        "base": conflict.base_text,
        "resolved": 0 if resolution is None else 1,
        "strategy": resolution.strategy if resolution else None,
        "result": resolution.result_text if resolution else None,
        "resolved_at": moment if resolution else None,
        "resolved_by": resolved_by if resolution else None,
        "unseen": 1 if resolution and resolution.replaces_edit else 0,
        "moment": moment,
        "id": entry.waiting_id,
    }
    if entry.waiting_id is None:
        cursor = connection.execute(
            """
            INSERT INTO conflict_log
                (skill_id, conflict_type, severity, local_data, remote_data, base_data, resolved, applied,
                 resolution_strategy, resolved_data, resolved_at, resolved_by, replaced_unseen, created_at, updated_at)
            VALUES (:skill_id, :type, :severity, coalesce(:local, '{}'), :remote, :base, :resolved, :resolved,
                    :strategy, :result, :resolved_at, :resolved_by, :unseen, :moment, :moment)
            """,
            values,
        )
        increment(connection, "atom_saas_conflicts_detected_total", type=conflict.type)
        conflict_id = cursor.lastrowid
        assert conflict_id is not None
        connection.execute(
            "DELETE FROM conflict_log WHERE skill_id = ?1 AND applied = 1 AND id NOT IN "
            "(SELECT id FROM conflict_log WHERE skill_id = ?1 AND applied = 1 ORDER BY id DESC LIMIT ?2)",
            (skill_id, RESOLVED_CONFLICTS_KEPT),
        )
    else:
        connection.execute(
            """
            UPDATE conflict_log SET conflict_type = :type, severity = :severity,
                local_data = coalesce(:local, local_data),
                undone_at = CASE WHEN :resolved THEN NULL ELSE undone_at END,
                undone_by = CASE WHEN :resolved THEN NULL ELSE undone_by END,
                remote_data = :remote, base_data = :base, resolved = :resolved, applied = :resolved,
                resolution_strategy = :strategy, resolved_data = :result, resolved_at = :resolved_at,
                resolved_by = :resolved_by, replaced_unseen = :unseen, updated_at = :moment
            WHERE id = :id
            """,
            values,
        )
        conflict_id = entry.waiting_id
    if resolution is not None:
        resolutions.close_older(connection, skill_id, conflict_id)
        increment(connection, "atom_saas_conflicts_resolved_total", strategy=resolution.strategy)
    return conflict_id
