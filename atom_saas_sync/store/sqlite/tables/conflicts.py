"""The conflict log and the audit log."""

from __future__ import annotations

from atom_saas_sync.store.sqlite.tables.shared import NOW

CREATE_CONFLICTS = (
    f"""
    CREATE TABLE conflict_log (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        skill_id TEXT NOT NULL,
        conflict_type TEXT NOT NULL,
        severity TEXT NOT NULL,
        local_data TEXT,
        remote_data TEXT,
        base_data TEXT,
        resolved INTEGER NOT NULL DEFAULT 0,
        resolution_strategy TEXT,
        resolved_data TEXT,
        resolved_at TEXT,
        resolved_by TEXT,
        undone_at TEXT,
        undone_by TEXT,
        created_at TEXT NOT NULL DEFAULT ({NOW}),
        updated_at TEXT NOT NULL DEFAULT ({NOW}),
        tenant_id TEXT NOT NULL DEFAULT 'default'
    )
    """,
    "CREATE INDEX idx_conflict_log_skill_id ON conflict_log(skill_id)",
    "CREATE INDEX idx_conflict_log_resolved ON conflict_log(resolved)",
    # One open conflict for each skill, even under concurrency.
    "CREATE UNIQUE INDEX idx_conflict_log_open ON conflict_log(skill_id) WHERE resolved = 0",
    # Users' actions.
    """
    CREATE TABLE audit_log (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at TEXT NOT NULL,
        actor TEXT NOT NULL,
        action TEXT NOT NULL,
        subject TEXT NOT NULL,
        details TEXT NOT NULL DEFAULT '{}'
    )
    """,
    "CREATE INDEX idx_audit_log_subject ON audit_log(subject)",
)
