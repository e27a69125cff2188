"""The cached skills and categories, their bases, their history, and the view for readers."""

from __future__ import annotations

from atom_saas_sync.store.sqlite.tables.search import (
    BEFORE_INSERT,
    INDEX_DELETE,
    INDEX_INSERT,
    INDEX_SETTINGS,
    INDEX_TABLE,
    INDEX_UPDATE,
    INDEX_VIEW,
)
from atom_saas_sync.store.sqlite.tables.shared import NOW

CREATE_CATALOGUE = (
    f"""
    CREATE TABLE skill_cache (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        skill_id TEXT NOT NULL,
        skill_data TEXT NOT NULL,
        expires_at TEXT,
        created_at TEXT NOT NULL DEFAULT ({NOW}),
        updated_at TEXT NOT NULL DEFAULT ({NOW}),
        tenant_id TEXT NOT NULL DEFAULT 'default',
        hit_count INTEGER NOT NULL DEFAULT 0,
        last_hit_at TEXT
    )
    """,
    "CREATE UNIQUE INDEX idx_skill_cache_skill_id ON skill_cache(skill_id)",
    "CREATE INDEX idx_skill_cache_expires_at ON skill_cache(expires_at)",
    f"""
    CREATE TABLE category_cache (
        id INTEGER PRIMARY KEY,
        category_name TEXT NOT NULL,
        category_data TEXT NOT NULL,
        expires_at TEXT,
        created_at TEXT NOT NULL DEFAULT ({NOW}),
        updated_at TEXT NOT NULL DEFAULT ({NOW}),
        tenant_id TEXT NOT NULL DEFAULT 'default',
        hit_count INTEGER NOT NULL DEFAULT 0,
        last_hit_at TEXT
    )
    """,
    "CREATE UNIQUE INDEX idx_category_cache_name ON category_cache(category_name)",
    # The base of each skill that the marketplace has sent. `page` is its last page in the list. `wire_digest` is
    # SHA-256 of the received bytes: equal bytes need no parsing.
    """
    CREATE TABLE skill_base (
        id INTEGER PRIMARY KEY,
        skill_id TEXT NOT NULL UNIQUE,
        page INTEGER,
        wire_digest BLOB NOT NULL,
        content_digest BLOB NOT NULL,
        exec_digest BLOB NOT NULL,
        confirmed_at TEXT NOT NULL,
        deleted_at TEXT,
        data TEXT
    )
    """,
    "CREATE INDEX idx_skill_base_page ON skill_base(page)",
    "CREATE INDEX idx_skill_base_touched ON skill_base(skill_id) WHERE data IS NOT NULL",
    # Versions that the marketplace sent and has since replaced or deleted; `data` is compressed (zstd).
    """
    CREATE TABLE skill_version (
        id INTEGER PRIMARY KEY,
        skill_id TEXT NOT NULL,
        version TEXT,
        content_digest BLOB NOT NULL,
        exec_digest BLOB NOT NULL,
        ended_at TEXT NOT NULL,
        ended_by TEXT NOT NULL CHECK (ended_by IN ('superseded', 'deleted')),
        data BLOB NOT NULL
    )
    """,
    "CREATE INDEX idx_skill_version_skill_id ON skill_version(skill_id)",
    # The validator of each HTTP resource. For a page of the list also its number of items; `checked_at` is when the
    # marketplace last confirmed it (200 or 304), and so all skills whose skill_base.page it is.
    """
    CREATE TABLE http_validator (
        resource TEXT PRIMARY KEY,
        etag TEXT,
        page INTEGER,
        items INTEGER,
        total INTEGER,
        checked_at TEXT NOT NULL
    ) WITHOUT ROWID
    """,
    "CREATE UNIQUE INDEX idx_http_validator_page ON http_validator(page) WHERE page IS NOT NULL",
    INDEX_TABLE,
    *INDEX_SETTINGS,
    INDEX_VIEW,
    "CREATE TABLE bulk_write (process INTEGER NOT NULL)",
    # The rows that one INSERT would replace with OR REPLACE. Whether it did is known only afterwards: OR IGNORE and an
    # upsert begin the same way.
    "CREATE TABLE insert_over (id INTEGER PRIMARY KEY, skill_id TEXT NOT NULL, skill_data TEXT NOT NULL)",
    BEFORE_INSERT,
    INDEX_INSERT,
    INDEX_UPDATE,
    INDEX_DELETE,
    # `stale` entries could have been confirmed by a sync in the last 24 hours but were not; local edits and local
    # skills do not age (rule 6). The view as it is today: tables/gate.py.
    """
    CREATE VIEW usable_skill AS
    SELECT
        c.skill_id,
        CASE WHEN json_valid(c.skill_data) THEN json_extract(c.skill_data, '$.name') END AS name,
        CASE WHEN json_valid(c.skill_data) THEN json_extract(c.skill_data, '$.version') END AS version,
        CASE WHEN json_valid(c.skill_data) THEN json_extract(c.skill_data, '$.category') END AS category,
        c.skill_data,
        CASE
            WHEN b.skill_id IS NULL THEN 'local'
            WHEN b.data IS NULL OR b.data = c.skill_data THEN 'marketplace'
            ELSE 'edited'
        END AS source,
        max(b.confirmed_at, coalesce(v.checked_at, '')) AS confirmed_at,
        (
            b.skill_id IS NOT NULL
            AND (b.data IS NULL OR b.data = c.skill_data)
            AND max(b.confirmed_at, coalesce(v.checked_at, ''))
                < strftime('%Y-%m-%dT%H:%M:%SZ', 'now', '-24 hours')
        ) AS stale
    FROM skill_cache AS c
    LEFT JOIN skill_base AS b ON b.skill_id = c.skill_id
    LEFT JOIN http_validator AS v ON v.page = b.page
    WHERE b.deleted_at IS NULL
    """,
)
