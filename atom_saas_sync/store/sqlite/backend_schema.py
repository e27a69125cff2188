"""Migrations that added all columns of the Atom backend's models to our tables (backend_tables.py)."""

from __future__ import annotations

from collections.abc import Sequence

from atom_saas_sync.store import backend_tables

_NOW = backend_tables.NOW
_NEW_ID = "lower(hex(randomblob(16)))"

# 0013: sync_state only mirrors sync_run from now on. The counter `runs` and the fact `last_success` keep what sync_run
# no longer contains.
_SYNC_STATE_INDEX = "CREATE UNIQUE INDEX idx_sync_state_device_id ON sync_state(device_id)"
_SHARED_STATE = (
    "device_id, user_id, status, last_sync_at, last_successful_sync_at, total_syncs, successful_syncs, failed_syncs, "
    "skills_cached, categories_cached, last_error, error_count, created_at, updated_at, tenant_id"
)
_WEBSOCKET_COLUMNS = (
    "max_reconnect_attempts INTEGER NOT NULL DEFAULT 10",
    "rate_limit_messages_per_sec INTEGER NOT NULL DEFAULT 100",
)
STATE = (
    "CREATE TABLE sync_state_before AS SELECT * FROM sync_state",
    "DROP TABLE sync_state",
    f"""
    CREATE TABLE sync_state (
        {backend_tables.definitions("sync_state", without=("id",))},
        id TEXT NOT NULL PRIMARY KEY,
        tenant_id TEXT NOT NULL DEFAULT 'default'
    )
    """,
    _SYNC_STATE_INDEX,
    f"""
    INSERT INTO sync_state (id, last_sync, {_SHARED_STATE})
    SELECT device_id, last_successful_sync_at, {_SHARED_STATE} FROM sync_state_before
    """,  # noqa: S608 - constants
    """
    INSERT INTO counter (name, labels, value)
    SELECT 'runs', '{"result": "success"}', successful_syncs FROM sync_state_before WHERE successful_syncs > 0
    UNION ALL SELECT 'runs', '{"result": "failed"}', failed_syncs FROM sync_state_before WHERE failed_syncs > 0
    """,
    """
    INSERT INTO fact (name, value, updated_at)
    SELECT 'last_success', last_successful_sync_at, updated_at FROM sync_state_before
    WHERE last_successful_sync_at IS NOT NULL
    """,
    "DROP TABLE sync_state_before",
    *(f"ALTER TABLE websocket_state ADD COLUMN {column}" for column in _WEBSOCKET_COLUMNS),
)


def former_state(create: Sequence[str]) -> tuple[str, ...]:
    """Return the statements that revert 0013; `create` are those of 0002."""
    return (
        *(f"ALTER TABLE websocket_state DROP COLUMN {column.split()[0]}" for column in _WEBSOCKET_COLUMNS),
        "CREATE TABLE sync_state_before AS SELECT * FROM sync_state",
        "DROP TABLE sync_state",
        create[0],
        _SYNC_STATE_INDEX,
        f"""
        INSERT INTO sync_state (id, {_SHARED_STATE})
        SELECT 1, {_SHARED_STATE} FROM sync_state_before WHERE device_id = 'marketplace_sync'
        """,  # noqa: S608 - constants
        "DROP TABLE sync_state_before",
        "INSERT OR IGNORE INTO sync_state (id, device_id) VALUES (1, 'marketplace_sync')",
        "DELETE FROM counter WHERE name = 'runs'",
        "DELETE FROM fact WHERE name = 'last_success'",
    )


# 0015: the guide's rating tables become views over the backend's tables, whose ids are text. A rating without an id
# gets its decimal `number`; the backend's ratings have UUIDs.
_RATING = (
    *("skill_id", "user_id", "rating", "review", "synced_to_saas", "synced_at", "remote_rating_id", "created_at"),
    *("updated_at", "tenant_id", "version", "base_digest", "note", "replaced"),
)
_FAILURE = (
    *("error_message", "error_type", "failed_at", "last_retry_at", "next_retry_at", "retry_count", "max_retries"),
    "tenant_id",
)
_RATING_DEFAULTS = {"synced_to_saas": "0", "created_at": _NOW, "updated_at": _NOW, "tenant_id": "'default'"}
_FAILURE_DEFAULTS = {
    "id": _NEW_ID,
    "error_type": "'api_error'",
    "retry_count": "0",
    "max_retries": "5",
    "tenant_id": "'default'",
}
_NUMBER = """CASE
                WHEN CAST(new.id AS TEXT) NOT GLOB '*[^0-9]*' AND length(new.id) BETWEEN 1 AND 15
                    AND NOT EXISTS (SELECT 1 FROM skill_ratings WHERE number = CAST(new.id AS INTEGER))
                THEN CAST(new.id AS INTEGER)
            END"""
_SELECT_RATINGS, _SELECT_FAILURES = ", ".join(_RATING), ", ".join(_FAILURE)


def ratings(create: Sequence[str]) -> tuple[str, ...]:
    """Return the statements of 0015; `create` are those of 0004, whose triggers stay as they are."""
    return (
        f"""
        CREATE TABLE skill_ratings (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT UNIQUE,
            {backend_tables.definitions("skill_ratings", without=("id",))},
            version TEXT,
            base_digest BLOB,
            note TEXT,
            replaced TEXT,
            CONSTRAINT uq_skill_user_rating UNIQUE (skill_id, user_id)
        )
        """,
        "CREATE INDEX idx_skill_ratings_pending ON skill_ratings(updated_at) WHERE synced_to_saas = 0",
        f"""
        CREATE TABLE failed_rating_uploads (
            {backend_tables.definitions("failed_rating_uploads", without=("id", "rating_id"))},
            id TEXT NOT NULL PRIMARY KEY DEFAULT ({_NEW_ID}),
            rating_id TEXT NOT NULL REFERENCES skill_ratings(id) ON DELETE CASCADE,
            error_type TEXT NOT NULL DEFAULT 'api_error',
            next_retry_at TEXT
        )
        """,
        "CREATE INDEX idx_failed_rating_uploads_rating_id ON failed_rating_uploads(rating_id)",
        f"""
        INSERT INTO skill_ratings (number, id, {_SELECT_RATINGS})
        SELECT id, CAST(id AS TEXT), {_SELECT_RATINGS} FROM skill_rating
        """,  # noqa: S608 - constants
        f"""
        INSERT INTO failed_rating_uploads (id, rating_id, {_SELECT_FAILURES})
        SELECT CAST(id AS TEXT), CAST(rating_id AS TEXT), {_SELECT_FAILURES} FROM failed_rating_upload
        """,  # noqa: S608 - constants
        "DROP TABLE failed_rating_upload",
        "DROP TABLE skill_rating",
        *(_on_ratings(statement) for statement in create if "CREATE TRIGGER" in statement),
        # The backend does not store the time of the next retry: its retries are due at once.
        """
        CREATE TRIGGER failed_rating_uploads_after_insert AFTER INSERT ON failed_rating_uploads
        WHEN new.next_retry_at IS NULL AND new.retry_count < new.max_retries
            AND NOT EXISTS (SELECT 1 FROM bulk_write)
        BEGIN
            UPDATE failed_rating_uploads SET next_retry_at = strftime('%Y-%m-%dT%H:%M:%SZ', 'now')
            WHERE id = new.id;
        END
        """,
        f"CREATE VIEW skill_rating AS SELECT id, {_SELECT_RATINGS} FROM skill_ratings",  # noqa: S608 - constants
        *_writable("skill_rating", ("number", "id", *_RATING), _RATING_DEFAULTS),
        f"CREATE VIEW failed_rating_upload AS SELECT id, rating_id, {_SELECT_FAILURES} FROM failed_rating_uploads",  # noqa: S608 - constants
        *_writable("failed_rating_upload", ("id", "rating_id", *_FAILURE), _FAILURE_DEFAULTS),
    )


def former_ratings(create: Sequence[str]) -> tuple[str, ...]:
    """Return the statements that revert 0015; `create` are those of 0004."""
    return (
        "DROP VIEW failed_rating_upload",
        "DROP VIEW skill_rating",
        *create,
        "ALTER TABLE skill_rating ADD COLUMN replaced TEXT",
        "INSERT INTO bulk_write (process) VALUES (1)",
        f"""
        INSERT INTO skill_rating (id, {_SELECT_RATINGS})
        SELECT number, {_SELECT_RATINGS} FROM skill_ratings WHERE rating BETWEEN 1 AND 5
        """,  # noqa: S608 - constants
        f"""
        INSERT OR REPLACE INTO failed_rating_upload (rating_id, {_SELECT_FAILURES})
        SELECT r.number, {", ".join(f"f.{name}" for name in _FAILURE)}
        FROM failed_rating_uploads AS f JOIN skill_ratings AS r ON r.id = f.rating_id
        WHERE r.number IN (SELECT id FROM skill_rating) ORDER BY f.rowid
        """,  # noqa: S608 - constants
        "DELETE FROM bulk_write",
        "DROP TABLE failed_rating_uploads",
        "DROP TABLE skill_ratings",
    )


def _on_ratings(trigger: str) -> str:
    """Convert a trigger of skill_rating to skill_ratings; it also gives an id to rows without one."""
    for before, after in (
        ("skill_rating", "skill_ratings"),
        ("failed_rating_upload", "failed_rating_uploads"),
        ("WHERE id = new.id", "WHERE number = new.number"),
        ("synced_at = NULL,", "synced_at = NULL, id = coalesce(id, CAST(number AS TEXT)),"),
    ):
        trigger = trigger.replace(before, after)
    return trigger


def _writable(view: str, columns: Sequence[str], defaults: dict[str, str]) -> tuple[str, ...]:
    """Return the triggers that make a view with the guide's name write to the backend's table."""
    table = f"{view}s"
    values = [_NUMBER if name == "number" else _or_default(f"new.{name}", defaults.get(name)) for name in columns]
    changes = [f"{name} = new.{name}" for name in columns if name != "number"]
    return (
        f"""
        CREATE TRIGGER {view}_insert INSTEAD OF INSERT ON {view}
        BEGIN
            INSERT INTO {table} ({", ".join(columns)}) VALUES ({", ".join(values)});
        END
        """,  # noqa: S608 - constants
        f"""
        CREATE TRIGGER {view}_update INSTEAD OF UPDATE ON {view}
        BEGIN
            UPDATE {table} SET {", ".join(changes)} WHERE id = old.id;
        END
        """,  # noqa: S608 - constants
        f"""
        CREATE TRIGGER {view}_delete INSTEAD OF DELETE ON {view}
        BEGIN
            DELETE FROM {table} WHERE id = old.id;
        END
        """,  # noqa: S608 - constants
    )


def _or_default(value: str, default: str | None) -> str:
    return value if default is None else f"coalesce({value}, {default})"


# 0019: a conflict is open exactly as long as `resolved_at` is NULL; `resolved` follows. `applied`: cache and base
# reflect the resolution. `about_skill` is 0 for the backend's conflicts of ratings. `{}` means "no such version".
_KEEP_VERSIONS = """
        UPDATE conflict_log SET
            local_data = coalesce(nullif(new.local_data, 'null'), '{}'),
            remote_data = coalesce(nullif(new.remote_data, 'null'), '{}')
        WHERE id = new.id"""
_NO_VERSIONS = "coalesce(new.local_data, 'null') = 'null' OR coalesce(new.remote_data, 'null') = 'null'"
CONFLICTS = (
    "DROP INDEX idx_conflict_log_open",
    "UPDATE conflict_log SET local_data = coalesce(local_data, '{}'), remote_data = coalesce(remote_data, '{}')",
    f"UPDATE conflict_log SET resolved_at = coalesce(resolved_at, updated_at, {_NOW}) WHERE resolved != 0",  # noqa: S608
    "UPDATE conflict_log SET resolved_at = NULL WHERE resolved = 0",
    "ALTER TABLE conflict_log ADD COLUMN applied INTEGER NOT NULL DEFAULT 0",
    "UPDATE conflict_log SET applied = 1 WHERE resolved_at IS NOT NULL",
    """
    ALTER TABLE conflict_log ADD COLUMN about_skill INTEGER GENERATED ALWAYS AS (
        NOT (
            (CASE WHEN typeof(local_data) = 'text' AND json_valid(local_data) THEN
                json_type(local_data, '$.rating_id') IS NOT NULL AND json_type(local_data, '$.name') IS NULL
            END) IS 1
            OR (CASE WHEN typeof(remote_data) = 'text' AND json_valid(remote_data) THEN
                json_type(remote_data, '$.rating_id') IS NOT NULL AND json_type(remote_data, '$.name') IS NULL
            END) IS 1
        )
    ) VIRTUAL
    """,
    "CREATE INDEX idx_conflict_log_open ON conflict_log(skill_id) WHERE resolved_at IS NULL AND about_skill = 1",
    "CREATE INDEX idx_conflict_log_unapplied ON conflict_log(id) WHERE resolved_at IS NOT NULL AND applied = 0",
    f"""
    CREATE TRIGGER conflict_log_after_insert AFTER INSERT ON conflict_log
    WHEN new.resolved != (new.resolved_at IS NOT NULL) OR {_NO_VERSIONS}
    BEGIN
        UPDATE conflict_log SET
            resolved = new.resolved != 0 OR new.resolved_at IS NOT NULL,
            resolved_at = CASE WHEN new.resolved != 0 THEN coalesce(new.resolved_at, {_NOW}) ELSE new.resolved_at END
        WHERE id = new.id;
        {_KEEP_VERSIONS};
    END
    """,  # noqa: S608 - constants
    f"""
    CREATE TRIGGER conflict_log_after_version AFTER UPDATE OF local_data, remote_data ON conflict_log
    WHEN {_NO_VERSIONS}
    BEGIN
        {_KEEP_VERSIONS};
    END
    """,
    """
    CREATE TRIGGER conflict_log_after_resolution AFTER UPDATE OF resolved_at ON conflict_log
    WHEN new.resolved_at IS NOT old.resolved_at
        AND (new.resolved != (new.resolved_at IS NOT NULL) OR (new.resolved_at IS NULL AND new.applied != 0))
    BEGIN
        UPDATE conflict_log SET resolved = new.resolved_at IS NOT NULL,
            applied = CASE WHEN new.resolved_at IS NULL THEN 0 ELSE new.applied END
        WHERE id = new.id;
    END
    """,
    f"""
    CREATE TRIGGER conflict_log_after_resolved AFTER UPDATE OF resolved ON conflict_log
    WHEN new.resolved IS NOT old.resolved AND new.resolved_at IS old.resolved_at
        AND new.resolved != (new.resolved_at IS NOT NULL)
    BEGIN
        UPDATE conflict_log SET
            resolved_at = CASE WHEN new.resolved != 0 THEN {_NOW} END,
            applied = CASE WHEN new.resolved != 0 THEN new.applied ELSE 0 END
        WHERE id = new.id;
    END
    """,  # noqa: S608 - constants
)
FORMER_CONFLICTS = (
    *(f"DROP TRIGGER conflict_log_after_{event}" for event in ("insert", "version", "resolution", "resolved")),
    "DROP INDEX idx_conflict_log_unapplied",
    "DROP INDEX idx_conflict_log_open",
    # Earlier versions allowed only one open conflict per skill: keep the newest one open.
    f"""
    UPDATE conflict_log SET
        resolved = 1, resolution_strategy = 'superseded', resolved_at = {_NOW}, resolved_by = 'atom-sync'
    WHERE resolved = 0 AND (about_skill = 0 OR id NOT IN
        (SELECT max(id) FROM conflict_log WHERE resolved = 0 AND about_skill = 1 GROUP BY skill_id))
    """,  # noqa: S608 - constants
    "ALTER TABLE conflict_log DROP COLUMN about_skill",
    "ALTER TABLE conflict_log DROP COLUMN applied",
    "UPDATE conflict_log SET remote_data = NULL WHERE remote_data = '{}'",
    "CREATE UNIQUE INDEX idx_conflict_log_open ON conflict_log(skill_id) WHERE resolved = 0",
)


# 0020: `expires_at` is never NULL, as in the backend's models.
EXPIRY = tuple(
    statement
    for table in ("skill_cache", "category_cache")
    for statement in (
        f"UPDATE {table} SET expires_at = '{backend_tables.NEVER_EXPIRES}' WHERE expires_at IS NULL",  # noqa: S608
        *(
            f"""
            CREATE TRIGGER {table}_expiry_after_{event.split()[0].lower()} AFTER {event} ON {table}
            WHEN new.expires_at IS NULL
            BEGIN
                UPDATE {table} SET expires_at = '{backend_tables.NEVER_EXPIRES}' WHERE id = new.id;
            END
            """  # noqa: S608 - constants
            for event in ("INSERT", "UPDATE OF expires_at")
        ),
    )
)
FORMER_EXPIRY = tuple(
    statement
    for table in ("skill_cache", "category_cache")
    for statement in (
        f"DROP TRIGGER {table}_expiry_after_insert",
        f"DROP TRIGGER {table}_expiry_after_update",
        f"UPDATE {table} SET expires_at = NULL WHERE expires_at = '{backend_tables.NEVER_EXPIRES}'",  # noqa: S608
    )
)


# 0021: the text of an edited row that another program deleted. `data` is NULL once it is in the history; the row stays
# until a user has seen it.
def versions(ended_by: str) -> tuple[str, ...]:
    """Return the statements that rebuild skill_version with these values of `ended_by`."""
    columns = "id, skill_id, version, content_digest, exec_digest, ended_at, ended_by, data, origin"
    return (
        "CREATE TABLE skill_version_before AS SELECT * FROM skill_version",
        "DROP TABLE skill_version",
        f"""
        CREATE TABLE skill_version (
            id INTEGER PRIMARY KEY,
            skill_id TEXT NOT NULL,
            version TEXT,
            content_digest BLOB NOT NULL,
            exec_digest BLOB NOT NULL,
            ended_at TEXT NOT NULL,
            ended_by TEXT NOT NULL CHECK (ended_by IN ({ended_by})),
            data BLOB NOT NULL,
            origin TEXT NOT NULL DEFAULT 'marketplace'
        )
        """,
        f"INSERT INTO skill_version ({columns}) SELECT {columns} FROM skill_version_before",  # noqa: S608 - constants
        "DROP TABLE skill_version_before",
        "CREATE INDEX idx_skill_version_origin ON skill_version(skill_id, origin)",
    )


DELETED_EDITS = (
    *versions("'superseded', 'deleted', 'deleted_here'"),
    """
    CREATE TABLE deleted_edit (
        id INTEGER PRIMARY KEY,
        skill_id TEXT NOT NULL,
        data TEXT,
        deleted_at TEXT NOT NULL
    )
    """,
    f"""
    CREATE TRIGGER skill_cache_deleted_edit AFTER DELETE ON skill_cache
    WHEN NOT EXISTS (SELECT 1 FROM bulk_write) AND coalesce(
        (SELECT data IS NOT NULL AND data != old.skill_data FROM skill_base WHERE skill_id = old.skill_id), 1)
    BEGIN
        INSERT INTO deleted_edit (skill_id, data, deleted_at)
        VALUES (old.skill_id, CAST(old.skill_data AS TEXT), {_NOW});
    END
    """,  # noqa: S608 - constants
)
FORMER_DELETED_EDITS = (
    "DROP TRIGGER skill_cache_deleted_edit",
    "DROP TABLE deleted_edit",
    "DELETE FROM skill_version WHERE ended_by = 'deleted_here'",
    *versions("'superseded', 'deleted'"),
)
