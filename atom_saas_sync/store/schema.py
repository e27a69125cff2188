"""The tables, as SQL: what each migration adds and how it is taken back.

Public tables: those of backend_tables.py, which the Atom backend reads and writes too, and the view usable_skill. The
others are ours alone. All times are UTC text, ISO 8601 with `Z`, so that they order as text; but in public tables other
programs write them in other forms (clauses.py compares them).

How a local edit is found, whoever made it: `skill_base.data` is NULL as long as the cached text *is* what the
marketplace last sent, so that the common case stores each skill once. The first write to a cached row by another
program, or by a person through us, makes a trigger save the text that it replaces there. Triggers keep the full-text
index right, too.

A sync does both by itself, in bulk (a trigger would flush the index at every row): it holds a row in `bulk_write`
while its transaction lasts, and the triggers stand aside. Writers exclude each other and a rollback takes the row
away, so no other program's write can ever see it.
"""

from __future__ import annotations

from dataclasses import dataclass

from atom_saas_sync.store import backend_schema, digests, search_index

_NOW = "strftime('%Y-%m-%dT%H:%M:%SZ', 'now')"

# The text that full-text search covers, as it was indexed before 0006.
_FIELDS = ("name", "description", "tags", "category", "code")
_INDEXED = ", ".join(f"json_extract({{row}}skill_data, '$.{field}') AS {field}" for field in _FIELDS)

_NEW_ENTRY = (
    "INSERT INTO skill_fts(rowid, name, description, tags, category, code) "
    f"SELECT new.id, {_INDEXED.format(row='new.')} WHERE json_valid(new.skill_data);"
)
_OLD_ENTRY = (
    "INSERT INTO skill_fts(skill_fts, rowid, name, description, tags, category, code) "
    f"SELECT 'delete', old.id, {_INDEXED.format(row='old.')} WHERE json_valid(old.skill_data);"
)
_SAVE_BASE = "UPDATE skill_base SET data = {text} WHERE skill_id = {row}.skill_id AND data IS NULL;"
_NOT_OURS = "NOT EXISTS (SELECT 1 FROM bulk_write)"
_NEW_VERSION = "lower(hex(randomblob(16)))"

_INDEX_TABLE = """
    CREATE VIRTUAL TABLE skill_fts USING fts5(
        name, description, tags, category, code, content='', tokenize='unicode61 remove_diacritics 2'
    )
    """
_INDEX_INSERT = f"""
    CREATE TRIGGER skill_cache_after_insert AFTER INSERT ON skill_cache
    WHEN {_NOT_OURS}
    BEGIN
        INSERT INTO skill_fts(skill_fts, rowid, name, description, tags, category, code)
        SELECT 'delete', id, {_INDEXED.format(row="")} FROM insert_over
        WHERE json_valid(skill_data) AND (id = new.id OR id NOT IN (SELECT id FROM skill_cache));
        DELETE FROM insert_over;
        {_NEW_ENTRY}
    END
    """  # noqa: S608 - built from constants
# The key columns too: an entry of the index belongs to an id, and a renamed skill is gone under its old name.
_INDEX_UPDATE = f"""
    CREATE TRIGGER skill_cache_after_update AFTER UPDATE OF id, skill_id, skill_data ON skill_cache
    WHEN {_NOT_OURS} AND (
        new.skill_data IS NOT old.skill_data OR new.id IS NOT old.id OR new.skill_id IS NOT old.skill_id
    )
    BEGIN
        {_SAVE_BASE.format(text="old.skill_data", row="old")}
        {_OLD_ENTRY}
        {_NEW_ENTRY}
    END
    """
_INDEX_DELETE = f"""
    CREATE TRIGGER skill_cache_after_delete AFTER DELETE ON skill_cache
    WHEN {_NOT_OURS}
    BEGIN
        {_SAVE_BASE.format(text="old.skill_data", row="old")}
        {_OLD_ENTRY}
        -- With PRAGMA recursive_triggers (sqlite-utils sets it) the delete half of a replacement does fire this.
        DELETE FROM insert_over WHERE id = old.id;
    END
    """  # noqa: S608 - built from constants
_INDEX_SETTINGS = (
    # A page of skills fits into memory before it is written, and its segments are merged seldom: together a third less
    # time for a first sync (docs/PERFORMANCE.md), and the same for a search.
    "INSERT INTO skill_fts (skill_fts, rank) VALUES ('hashsize', 16777216)",
    "INSERT INTO skill_fts (skill_fts, rank) VALUES ('automerge', 64)",
    "INSERT INTO skill_fts (skill_fts, rank) VALUES ('crisismerge', 128)",
)
_INDEX_VIEW = f"""
    CREATE VIEW skill_text AS
    SELECT id, skill_id, {_INDEXED.format(row="")} FROM skill_cache WHERE json_valid(skill_data)
    """  # noqa: S608 - built from constants

CREATE_CATALOGUE = (
    f"""
    CREATE TABLE skill_cache (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        skill_id TEXT NOT NULL,
        skill_data TEXT NOT NULL,
        expires_at TEXT,
        created_at TEXT NOT NULL DEFAULT ({_NOW}),
        updated_at TEXT NOT NULL DEFAULT ({_NOW}),
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
        created_at TEXT NOT NULL DEFAULT ({_NOW}),
        updated_at TEXT NOT NULL DEFAULT ({_NOW}),
        tenant_id TEXT NOT NULL DEFAULT 'default',
        hit_count INTEGER NOT NULL DEFAULT 0,
        last_hit_at TEXT
    )
    """,
    "CREATE UNIQUE INDEX idx_category_cache_name ON category_cache(category_name)",
    # The common base of each skill that the marketplace has sent. `page` is the page of the list that held it last.
    # `wire_digest` is SHA-256 of the bytes as they came: equal bytes need no parsing.
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
    # What we know of each HTTP resource. A page of the list also says how many items it had; `checked_at` is when
    # the marketplace last confirmed it (200 or 304), and with it all skills whose skill_base.page it is.
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
    _INDEX_TABLE,
    *_INDEX_SETTINGS,
    _INDEX_VIEW,
    "CREATE TABLE bulk_write (process INTEGER NOT NULL)",
    # Of one INSERT, the rows that it replaces if it says OR REPLACE. Whether they are gone is known only afterwards:
    # OR IGNORE and an upsert begin in the same way.
    "CREATE TABLE insert_over (id INTEGER PRIMARY KEY, skill_id TEXT NOT NULL, skill_data TEXT NOT NULL)",
    f"""
    CREATE TRIGGER skill_cache_before_insert BEFORE INSERT ON skill_cache
    WHEN {_NOT_OURS}
    BEGIN
        -- INSERT OR REPLACE by another program: its delete half fires no trigger, as a rule.
        DELETE FROM insert_over;
        INSERT INTO insert_over
        SELECT id, skill_id, skill_data FROM skill_cache WHERE skill_id = new.skill_id OR id = new.id;
        UPDATE skill_base
        SET data = (SELECT skill_data FROM insert_over WHERE insert_over.skill_id = skill_base.skill_id)
        WHERE skill_id IN (SELECT skill_id FROM insert_over) AND data IS NULL;
    END
    """,  # noqa: S608 - built from constants
    _INDEX_INSERT,
    _INDEX_UPDATE,
    _INDEX_DELETE,
    # The one door for readers. `stale` is for entries that a sync could have confirmed in the last 24 hours and did
    # not; what was edited here or exists only here does not age (rule 6).
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
        created_at TEXT NOT NULL DEFAULT ({_NOW}),
        updated_at TEXT NOT NULL DEFAULT ({_NOW}),
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
    # The last WebSocket message about each thing that was applied: when it was sent, which orders messages; and when
    # it was applied, which tells a poll whether the page that it asked for is older. `kind` is skill, rating or
    # category; of what a message deleted the row stays for a day, so that no older message brings it back.
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
    # Small facts that outlive a process: the limit that the marketplace declared, when it was last reached, its
    # clock's distance from ours, the emergency stop.
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
        created_at TEXT NOT NULL DEFAULT ({_NOW}),
        updated_at TEXT NOT NULL DEFAULT ({_NOW}),
        tenant_id TEXT NOT NULL DEFAULT 'default'
    )
    """,
    "CREATE INDEX idx_conflict_log_skill_id ON conflict_log(skill_id)",
    "CREATE INDEX idx_conflict_log_resolved ON conflict_log(resolved)",
    # One waiting conflict for each skill, whatever happens at once.
    "CREATE UNIQUE INDEX idx_conflict_log_open ON conflict_log(skill_id) WHERE resolved = 0",
    # What people did, and who they were.
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

CREATE_RATINGS = (
    f"""
    CREATE TABLE skill_rating (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        skill_id TEXT NOT NULL,
        user_id TEXT NOT NULL,
        rating INTEGER NOT NULL CHECK (rating BETWEEN 1 AND 5),
        review TEXT,
        synced_to_saas INTEGER NOT NULL DEFAULT 0,
        synced_at TEXT,
        remote_rating_id TEXT,
        created_at TEXT NOT NULL DEFAULT ({_NOW}),
        updated_at TEXT NOT NULL DEFAULT ({_NOW}),
        tenant_id TEXT NOT NULL DEFAULT 'default',
        version TEXT,
        base_digest BLOB,
        note TEXT,
        UNIQUE (skill_id, user_id)
    )
    """,
    "CREATE INDEX idx_skill_rating_pending ON skill_rating(updated_at) WHERE synced_to_saas = 0",
    """
    CREATE TABLE failed_rating_upload (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        rating_id INTEGER NOT NULL UNIQUE REFERENCES skill_rating(id) ON DELETE CASCADE,
        error_message TEXT NOT NULL,
        error_type TEXT NOT NULL DEFAULT 'api_error',
        failed_at TEXT NOT NULL,
        last_retry_at TEXT,
        next_retry_at TEXT,
        retry_count INTEGER NOT NULL DEFAULT 0,
        max_retries INTEGER NOT NULL DEFAULT 5,
        tenant_id TEXT NOT NULL DEFAULT 'default'
    )
    """,
    # Whoever writes a rating makes it pending, and gives this version a name of its own, from which the idempotency
    # key of its upload is made: it is stored before anybody can send it, and lasts as long as the version.
    f"""
    CREATE TRIGGER skill_rating_after_insert AFTER INSERT ON skill_rating
    WHEN {_NOT_OURS}
    BEGIN
        UPDATE skill_rating SET
            version = {_NEW_VERSION}, synced_to_saas = 0, synced_at = NULL, note = NULL,
            updated_at = CASE WHEN julianday(new.updated_at) IS NULL THEN {_NOW} ELSE new.updated_at END
        WHERE id = new.id;
    END
    """,  # noqa: S608 - built from constants
    f"""
    CREATE TRIGGER skill_rating_after_update AFTER UPDATE OF skill_id, user_id, rating, review ON skill_rating
    WHEN {_NOT_OURS} AND (
        new.rating IS NOT old.rating OR new.review IS NOT old.review
        OR new.skill_id IS NOT old.skill_id OR new.user_id IS NOT old.user_id
    )
    BEGIN
        UPDATE skill_rating SET
            version = {_NEW_VERSION}, synced_to_saas = 0, note = NULL,
            -- A writer that leaves the time as it was has changed the rating now.
            updated_at = CASE
                WHEN new.updated_at IS old.updated_at OR julianday(new.updated_at) IS NULL THEN {_NOW}
                ELSE new.updated_at
            END,
            remote_rating_id = CASE
                WHEN new.skill_id IS old.skill_id AND new.user_id IS old.user_id THEN new.remote_rating_id
            END,
            base_digest = CASE
                WHEN new.skill_id IS old.skill_id AND new.user_id IS old.user_id THEN new.base_digest
            END
        WHERE id = new.id;
        DELETE FROM failed_rating_upload WHERE rating_id = new.id;
    END
    """,  # noqa: S608 - built from constants
    # For programs that do not switch foreign keys on.
    """
    CREATE TRIGGER skill_rating_after_delete AFTER DELETE ON skill_rating
    BEGIN
        DELETE FROM failed_rating_upload WHERE rating_id = old.id;
    END
    """,
)

# 0006: the same index with decoded values, and with one token a character for scripts without spaces.
_INDEX_NEW = f"""
        INSERT INTO skill_fts(rowid, {search_index.COLUMNS})
        {search_index.entries("(SELECT new.id AS id, new.skill_data AS skill_data)")};
"""
_UNINDEX_OLD = f"""
        INSERT INTO skill_fts(skill_fts, rowid, {search_index.COLUMNS})
        SELECT 'delete', * FROM ({search_index.entries("(SELECT old.id AS id, old.skill_data AS skill_data)")});
"""  # noqa: S608 - built from constants
_INDEX_TRIGGERS = ("skill_cache_after_insert", "skill_cache_after_update", "skill_cache_after_delete")
_DROP_INDEX = (
    *(f"DROP TRIGGER IF EXISTS {trigger}" for trigger in _INDEX_TRIGGERS),
    "DROP VIEW IF EXISTS skill_text",
    "DROP TABLE IF EXISTS skill_fts",
)
INDEX_CHARACTERS = (
    *_DROP_INDEX,
    search_index.create_table("skill_fts"),
    *_INDEX_SETTINGS,
    f"CREATE VIEW skill_text AS {search_index.entries('skill_cache')}",
    f"""
    CREATE TRIGGER skill_cache_after_insert AFTER INSERT ON skill_cache
    WHEN {_NOT_OURS}
    BEGIN
        INSERT INTO skill_fts(skill_fts, rowid, {search_index.COLUMNS})
        SELECT 'delete', * FROM ({search_index.entries("insert_over")})
        WHERE id = new.id OR id NOT IN (SELECT id FROM skill_cache);
        DELETE FROM insert_over;
        {_INDEX_NEW}
    END
    """,  # noqa: S608 - built from constants
    _INDEX_UPDATE.replace(_OLD_ENTRY, _UNINDEX_OLD).replace(_NEW_ENTRY, _INDEX_NEW),
    _INDEX_DELETE.replace(_OLD_ENTRY, _UNINDEX_OLD),
    search_index.REBUILD,
)
INDEX_WORDS = (
    *_DROP_INDEX,
    _INDEX_TABLE,
    *_INDEX_SETTINGS,
    _INDEX_VIEW,
    _INDEX_INSERT,
    _INDEX_UPDATE,
    _INDEX_DELETE,
    f"INSERT INTO skill_fts(rowid, {search_index.COLUMNS}) SELECT id, {search_index.COLUMNS} FROM skill_text",  # noqa: S608
)

# 0008: every version ever seen of a skill, whatever happened to it since, so that other code under the same version is
# noticed. `version` is without invisible characters. The base is the newest and is not among them.
_VERSIONS_REMEMBERED = 1000
# Not OR IGNORE: in a trigger SQLite replaces it with the policy of the statement that fires it.
_REMEMBER_OLD = """
        INSERT INTO skill_seen (skill_id, content_digest, exec_digest, version)
        SELECT old.skill_id, old.content_digest, old.exec_digest, old.version WHERE NOT EXISTS
        (SELECT 1 FROM skill_seen WHERE skill_id = old.skill_id AND content_digest = old.content_digest);
"""


def _remember(statements: str) -> tuple[str, ...]:
    """Return what makes the triggers through which a base that is replaced or removed gets into skill_seen."""
    return (
        f"""
        CREATE TRIGGER skill_base_after_update AFTER UPDATE OF content_digest ON skill_base
        WHEN new.content_digest IS NOT old.content_digest
        BEGIN
            {statements}
        END
        """,
        f"""
        CREATE TRIGGER skill_base_after_delete AFTER DELETE ON skill_base
        BEGIN
            {statements}
        END
        """,
    )


SEEN_VERSIONS = (
    "ALTER TABLE skill_base ADD COLUMN version TEXT NOT NULL DEFAULT ''",
    """
    UPDATE skill_base AS b SET version = atom_sync_version(
        CAST(coalesce(data, (SELECT skill_data FROM skill_cache AS c WHERE c.skill_id = b.skill_id)) AS BLOB))
    """,
    """
    CREATE TABLE skill_seen (
        skill_id TEXT NOT NULL,
        content_digest BLOB NOT NULL,
        exec_digest BLOB NOT NULL,
        version TEXT NOT NULL,
        seen_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
        PRIMARY KEY (skill_id, content_digest)
    ) WITHOUT ROWID
    """,
    """
    INSERT OR IGNORE INTO skill_seen
    SELECT skill_id, content_digest, exec_digest, atom_sync_version(data), ended_at FROM skill_version
    """,
    *_remember(_REMEMBER_OLD),
    f"""
    CREATE TRIGGER skill_seen_after_insert AFTER INSERT ON skill_seen
    WHEN (SELECT count(*) FROM skill_seen WHERE skill_id = new.skill_id) > {_VERSIONS_REMEMBERED}
    BEGIN
        DELETE FROM skill_seen WHERE skill_id = new.skill_id AND content_digest IN (
            SELECT content_digest FROM skill_seen WHERE skill_id = new.skill_id
            ORDER BY seen_at DESC LIMIT -1 OFFSET {_VERSIONS_REMEMBERED});
    END
    """,  # noqa: S608 - built from constants
)
_DROP_REMEMBERING = ("DROP TRIGGER skill_base_after_delete", "DROP TRIGGER skill_base_after_update")
FORGET_SEEN_VERSIONS = (
    *_DROP_REMEMBERING,
    "DROP TABLE skill_seen",
    "ALTER TABLE skill_base DROP COLUMN version",
)

# 0012: a base takes its signature along.
_SIGN_OLD = """
        UPDATE skill_seen SET signature = old.signature
        WHERE skill_id = old.skill_id AND content_digest = old.content_digest AND exec_digest = old.exec_digest
            AND version = old.version AND old.signature IS NOT NULL;
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema and its way back, as SQL statements.

    The way back returns the rows of the tables in `hands_over` to those of earlier migrations.
    `loses` names what the way back drops besides whole tables, each with a statement that counts it.
    """

    name: str
    up: tuple[str, ...]
    down: tuple[str, ...]
    hands_over: tuple[str, ...] = ()
    loses: tuple[tuple[str, str], ...] = ()


MIGRATIONS = (
    Migration(
        name="0001_catalogue",
        up=CREATE_CATALOGUE,
        down=(
            "DROP VIEW usable_skill",
            "DROP VIEW skill_text",
            "DROP TABLE skill_cache",
            "DROP TABLE insert_over",
            "DROP TABLE bulk_write",
            "DROP TABLE skill_fts",
            "DROP TABLE http_validator",
            "DROP TABLE skill_version",
            "DROP TABLE skill_base",
            "DROP TABLE category_cache",
        ),
    ),
    Migration(
        name="0002_sync_state",
        up=CREATE_SYNC_STATE,
        down=tuple(
            f"DROP TABLE {table}"
            for table in (
                "scheduled_job",
                "fact",
                "request_budget",
                "counter",
                "sync_run",
                "last_message",
                "websocket_state",
                "sync_state",
            )
        ),
    ),
    Migration(
        name="0003_conflicts",
        up=CREATE_CONFLICTS,
        down=("DROP TABLE audit_log", "DROP TABLE conflict_log"),
    ),
    Migration(
        name="0004_ratings",
        up=CREATE_RATINGS,
        down=("DROP TABLE failed_rating_upload", "DROP TABLE skill_rating"),
    ),
    # What was written here until a newer rating of the marketplace took its place: a JSON object with `rating`,
    # `comment`, `updated_at`, `replaced_at`, and the `version` that the row has had since.
    Migration(
        name="0005_replaced_ratings",
        up=("ALTER TABLE skill_rating ADD COLUMN replaced TEXT",),
        down=("ALTER TABLE skill_rating DROP COLUMN replaced",),
        loses=(("replaced ratings", "SELECT count(*) FROM skill_rating WHERE replaced IS NOT NULL"),),
    ),
    Migration(name="0006_index_characters", up=INDEX_CHARACTERS, down=INDEX_WORDS),
    # The digests of all stored versions in their final form (docs/TRUST.md).
    Migration(name="0007_digests", up=digests.recompute(), down=digests.recompute(" until 0007")),
    Migration(name="0008_seen_versions", up=SEEN_VERSIONS, down=FORGET_SEEN_VERSIONS),
    # Stored texts in which SQL readers could see something else than others (docs/TRUST.md): in our own encoding.
    Migration(name="0009_one_meaning", up=digests.respell(), down=()),
    # Which rows were written since the last run compared texts with digests.
    Migration(
        name="0010_written_rows",
        up=("CREATE INDEX idx_skill_cache_updated_at ON skill_cache(updated_at)",),
        down=("DROP INDEX idx_skill_cache_updated_at",),
    ),
    # What stands beside the digests if there is a key for it: eight bytes that name the key, and an HMAC
    # (docs/TRUST.md). NULL where it was written without a key.
    Migration(
        name="0011_signatures",
        up=("ALTER TABLE skill_base ADD COLUMN signature BLOB",),
        down=("ALTER TABLE skill_base DROP COLUMN signature",),
    ),
    # The signature that a version had as a base, or got when it came and waited in a conflict: with it, the version
    # can become the base again. NULL if there was none.
    Migration(
        name="0012_seen_signatures",
        up=(
            "ALTER TABLE skill_seen ADD COLUMN signature BLOB",
            *_DROP_REMEMBERING,
            *_remember(_REMEMBER_OLD + _SIGN_OLD),
        ),
        down=(
            *_DROP_REMEMBERING,
            "ALTER TABLE skill_seen DROP COLUMN signature",
            *_remember(_REMEMBER_OLD),
        ),
    ),
    # The tables that the Atom backend reads and writes too, with all columns of its models (backend_schema.py).
    Migration(name="0013_backend_state", up=backend_schema.STATE, down=backend_schema.former_state(CREATE_SYNC_STATE)),
    # websocket_enabled is the administrators' switch from now on; before, `watch` wrote ATOM_SAAS_WS_ENABLED there.
    Migration(
        name="0014_websocket_switch",
        up=("UPDATE websocket_state SET websocket_enabled = 1 WHERE started_at IS NOT NULL",),
        down=(),
    ),
    Migration(
        name="0015_backend_ratings",
        up=backend_schema.ratings(CREATE_RATINGS),
        down=backend_schema.former_ratings(CREATE_RATINGS),
        hands_over=("skill_ratings", "failed_rating_uploads"),
    ),
    # Who wrote a former version: the marketplace, or somebody here (`local`) whose text was replaced or deleted.
    Migration(
        name="0016_local_versions",
        up=("ALTER TABLE skill_version ADD COLUMN origin TEXT NOT NULL DEFAULT 'marketplace'",),
        down=(
            "DELETE FROM skill_version WHERE origin != 'marketplace'",
            "ALTER TABLE skill_version DROP COLUMN origin",
        ),
        loses=(("former local versions", "SELECT count(*) FROM skill_version WHERE origin != 'marketplace'"),),
    ),
    # 1 where a strategy has replaced what was written here, until somebody has looked at that conflict.
    Migration(
        name="0017_replaced_edits",
        up=(
            "ALTER TABLE conflict_log ADD COLUMN replaced_unseen INTEGER NOT NULL DEFAULT 0",
            "CREATE INDEX idx_conflict_log_unseen ON conflict_log(id) WHERE replaced_unseen = 1",
        ),
        down=("DROP INDEX idx_conflict_log_unseen", "ALTER TABLE conflict_log DROP COLUMN replaced_unseen"),
    ),
    # A skill's newest versions of either origin are found without reading their texts.
    Migration(
        name="0018_history_index",
        up=(
            "DROP INDEX idx_skill_version_skill_id",
            "CREATE INDEX idx_skill_version_origin ON skill_version(skill_id, origin)",
        ),
        down=(
            "DROP INDEX idx_skill_version_origin",
            "CREATE INDEX idx_skill_version_skill_id ON skill_version(skill_id)",
        ),
    ),
    Migration(name="0019_backend_conflicts", up=backend_schema.CONFLICTS, down=backend_schema.FORMER_CONFLICTS),
    Migration(name="0020_expiry", up=backend_schema.EXPIRY, down=backend_schema.FORMER_EXPIRY),
    Migration(
        name="0021_deleted_edits",
        up=backend_schema.DELETED_EDITS,
        down=backend_schema.FORMER_DELETED_EDITS,
        loses=(("deleted local edits", "SELECT count(*) FROM skill_version WHERE ended_by = 'deleted_here'"),),
    ),
)
