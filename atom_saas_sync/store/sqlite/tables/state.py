"""Persistent state: runs, counters, facts, jobs, the request budget, and the state of `watch`."""

from __future__ import annotations

from atom_saas_sync.store.sqlite.tables.shared import NOW

CREATE_SYNC_STATE = (
    f"""
    CREATE TABLE sync_state (
        id INTEGER PRIMARY KEY,
        device_id TEXT NOT NULL,
        user_id TEXT,
        status TEXT NOT NULL DEFAULT 'idle',
        last_sync_at TEXT,
        last_successful_sync_at TEXT,
        total_syncs INTEGER NOT NULL DEFAULT 0,
        successful_syncs INTEGER NOT NULL DEFAULT 0,
        failed_syncs INTEGER NOT NULL DEFAULT 0,
        skills_cached INTEGER NOT NULL DEFAULT 0,
        categories_cached INTEGER NOT NULL DEFAULT 0,
        last_error TEXT,
        error_count INTEGER NOT NULL DEFAULT 0,
        created_at TEXT NOT NULL DEFAULT ({NOW}),
        updated_at TEXT NOT NULL DEFAULT ({NOW}),
        tenant_id TEXT NOT NULL DEFAULT 'default'
    )
    """,
    "CREATE UNIQUE INDEX idx_sync_state_device_id ON sync_state(device_id)",
    "INSERT INTO sync_state (id, device_id) VALUES (1, 'marketplace_sync')",
    """
    CREATE TABLE websocket_state (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        connected INTEGER NOT NULL DEFAULT 0,
        ws_url TEXT,
        last_connected_at TEXT,
        last_message_at TEXT,
        disconnect_reason TEXT,
        reconnect_attempts INTEGER NOT NULL DEFAULT 0,
        consecutive_failures INTEGER NOT NULL DEFAULT 0,
        fallback_to_polling INTEGER NOT NULL DEFAULT 0,
        fallback_started_at TEXT,
        next_ws_attempt_at TEXT,
        websocket_enabled INTEGER NOT NULL DEFAULT 1,
        pid INTEGER,
        started_at TEXT,
        stopped_at TEXT,
        heartbeat_at TEXT,
        tenant_id TEXT NOT NULL DEFAULT 'default'
    )
    """,
    "INSERT INTO websocket_state (id) VALUES (1)",
    # The last applied WebSocket message about each key: when it was sent, which orders messages; and when it was
    # applied, which tells a poll whether its page is older. `kind` is skill, rating or category. The row of a deletion
    # stays for a day, so that no older message restores the skill.
    """
    CREATE TABLE last_message (
        kind TEXT NOT NULL,
        key TEXT NOT NULL,
        sent_at TEXT,
        applied_at TEXT NOT NULL,
        deleted INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (kind, key)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX idx_last_message_applied_at ON last_message(applied_at)",
    # The audit trail: one row for each run. `counts` and `proof` are JSON objects, `reasons` a JSON list.
    """
    CREATE TABLE sync_run (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL,
        started_at TEXT NOT NULL,
        finished_at TEXT,
        duration_seconds REAL,
        status TEXT NOT NULL,
        started_by TEXT NOT NULL,
        pid INTEGER NOT NULL,
        counts TEXT NOT NULL DEFAULT '{}',
        proof TEXT NOT NULL DEFAULT '{}',
        reasons TEXT NOT NULL DEFAULT '[]',
        error_type TEXT,
        error_message TEXT
    )
    """,
    "CREATE INDEX idx_sync_run_kind_started_at ON sync_run(kind, started_at)",
    # The stored counters behind the metrics; `labels` is a canonical JSON object.
    """
    CREATE TABLE counter (
        name TEXT NOT NULL,
        labels TEXT NOT NULL DEFAULT '{}',
        value REAL NOT NULL DEFAULT 0,
        PRIMARY KEY (name, labels)
    ) WITHOUT ROWID
    """,
    # Requests by second: the budget that all processes share. Rows older than an hour are dropped.
    """
    CREATE TABLE request_budget (
        second INTEGER PRIMARY KEY,
        requests INTEGER NOT NULL
    )
    """,
    # Small persistent facts: the limit declared by the marketplace, when it was last reached, its clock skew, the
    # emergency stop.
    """
    CREATE TABLE fact (
        name TEXT PRIMARY KEY,
        value TEXT NOT NULL,
        updated_at TEXT NOT NULL
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE scheduled_job (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        minutes INTEGER NOT NULL,
        next_run_time TEXT,
        last_run_at TEXT,
        updated_at TEXT NOT NULL
    ) WITHOUT ROWID
    """,
)
