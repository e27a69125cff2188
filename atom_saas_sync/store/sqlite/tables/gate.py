"""Migration 0022: offers, users' decisions, and who admitted the served versions (docs/TRUST.md).

All digests are 32 bytes; texts of skills in `data` are compressed (zstd). A version that is not admitted is in
skill_offer only. Three times describe a version: `first_seen_at` (when this machine first saw it, whatever happened to
it since), `admitted_at` (when it last became the base) and the decision's `at`. They have microseconds: their order
decides.
"""

from __future__ import annotations

from atom_saas_sync.store.sqlite import backend_schema
from atom_saas_sync.store.sqlite.tables.shared import NOT_OURS
from atom_saas_sync.store.sqlite.tables.versions import (
    DROP_REMEMBERING,
    FORGET_DIGESTS,
    REMEMBER_OLD,
    SIGN_OLD,
    VERSIONS_REMEMBERED,
    remember,
)

_NOW = "strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z'"

_OFFERS = (
    # Versions from the marketplace that are not admitted, one per skill. `page` and `confirmed_at` are as in
    # skill_base. `abnormal` is 1 if the run that found it was abnormal.
    """
    CREATE TABLE skill_offer (
        skill_id TEXT NOT NULL PRIMARY KEY,
        page INTEGER,
        wire_digest BLOB NOT NULL,
        content_digest BLOB NOT NULL,
        exec_digest BLOB NOT NULL,
        version TEXT NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('hold', 'refuse')),
        reason TEXT NOT NULL,
        due_at TEXT,
        first_seen_at TEXT NOT NULL,
        offered_at TEXT NOT NULL,
        confirmed_at TEXT NOT NULL,
        abnormal INTEGER NOT NULL DEFAULT 0,
        note TEXT,
        data BLOB NOT NULL
    )
    """,
    "CREATE INDEX idx_skill_offer_page ON skill_offer(page)",
    "CREATE INDEX idx_skill_offer_due_at ON skill_offer(due_at) WHERE due_at IS NOT NULL",
    "CREATE INDEX idx_skill_offer_waiting ON skill_offer(kind, reason, first_seen_at)",
)
_WORDS_OF_PEOPLE = (
    # The newest decision on a digest counts. Decisions outlive the skill. They are signed like digests (0011): with a
    # key, an approval without its signature does not count.
    """
    CREATE TABLE gate_decision (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        skill_id TEXT NOT NULL,
        content_digest BLOB NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('approve', 'reject')),
        at TEXT NOT NULL,
        by TEXT NOT NULL,
        note TEXT,
        signature BLOB
    )
    """,
    "CREATE INDEX idx_gate_decision_digest ON gate_decision(skill_id, content_digest)",
    """
    CREATE TABLE gate_pin (
        skill_id TEXT NOT NULL PRIMARY KEY,
        content_digest BLOB NOT NULL,
        version TEXT NOT NULL,
        at TEXT NOT NULL,
        by TEXT NOT NULL,
        note TEXT
    )
    """,
    # Rows with the source `file` are the last valid list of the revocations file, replaced as a whole.
    """
    CREATE TABLE gate_revocation (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        skill_id TEXT,
        version TEXT,
        digest BLOB,
        publisher TEXT,
        note TEXT,
        source TEXT NOT NULL CHECK (source IN ('command', 'file')),
        added_at TEXT NOT NULL,
        added_by TEXT NOT NULL
    )
    """,
    # Evidence: the served text, and the marketplace's if that was edited here.
    """
    CREATE TABLE gate_quarantine (
        skill_id TEXT NOT NULL PRIMARY KEY,
        skill_data TEXT NOT NULL,
        base_data TEXT,
        content_digest BLOB NOT NULL,
        reason TEXT NOT NULL CHECK (reason IN ('quarantined', 'revoked', 'denied')),
        served_source TEXT NOT NULL CHECK (served_source IN ('marketplace', 'edited', 'local')),
        at TEXT NOT NULL,
        by TEXT NOT NULL,
        note TEXT
    )
    """,
    """
    CREATE TABLE gate_scan (
        content_digest BLOB NOT NULL PRIMARY KEY,
        passed INTEGER NOT NULL,
        note TEXT,
        at TEXT NOT NULL
    ) WITHOUT ROWID
    """,
)

# The former base was admitted when it became the base; only a version that had waited was seen earlier.
_REMEMBER_ADMITTED = """
        INSERT INTO skill_seen (skill_id, content_digest, exec_digest, version, first_seen_at, admitted_at)
        SELECT old.skill_id, old.content_digest, old.exec_digest, old.version, old.admitted_at, old.admitted_at
        WHERE NOT EXISTS
        (SELECT 1 FROM skill_seen WHERE skill_id = old.skill_id AND content_digest = old.content_digest);
        UPDATE skill_seen SET admitted_at = old.admitted_at
        WHERE skill_id = old.skill_id AND content_digest = old.content_digest AND old.admitted_at IS NOT NULL;
"""
_FORGET_UNNAMED_DIGESTS = FORGET_DIGESTS.replace(
    f"OFFSET {VERSIONS_REMEMBERED});",
    f"""OFFSET {VERSIONS_REMEMBERED}) AND content_digest NOT IN (
            SELECT content_digest FROM gate_decision WHERE skill_id = new.skill_id
            UNION ALL SELECT content_digest FROM gate_pin WHERE skill_id = new.skill_id
            UNION ALL SELECT content_digest FROM skill_offer WHERE skill_id = new.skill_id);""",  # noqa: S608 - constants
)

# The second line of defence: whatever another program writes, the view hides what is quarantined or revoked. It joins
# `c` again, as `k`, so that rows can be counted with an index alone if both tables are empty.
_AUTHOR = "CASE WHEN json_valid(k.skill_data) THEN json_extract(k.skill_data, '$.metadata.author') END"
_VERSION = "CASE WHEN json_valid(k.skill_data) THEN json_extract(k.skill_data, '$.version') END"
_UNCHANGED = "b.skill_id IS NOT NULL AND (b.data IS NULL OR b.data = c.skill_data)"
# The only interface for readers, as it is today.
_VIEW = f"""
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
        ) AS stale,
        CASE WHEN {_UNCHANGED} THEN lower(hex(b.content_digest)) END AS content_digest,
        CASE WHEN {_UNCHANGED} THEN lower(hex(b.exec_digest)) END AS exec_digest,
        substr(b.admitted_at, 1, 19) || 'Z' AS admitted_at,
        CASE WHEN b.skill_id IS NOT NULL THEN coalesce(b.admitted_by, 'policy') END AS admitted_by
    FROM skill_cache AS c
    LEFT JOIN skill_base AS b ON b.skill_id = c.skill_id
    LEFT JOIN http_validator AS v ON v.page = b.page
    WHERE b.deleted_at IS NULL
    AND (
        NOT EXISTS (SELECT 1 FROM gate_quarantine)
        OR NOT EXISTS (
            SELECT 1 FROM gate_quarantine AS q JOIN skill_cache AS k ON k.skill_id = q.skill_id
            WHERE q.skill_id = c.skill_id AND (
                q.reason = 'quarantined' OR q.skill_data = k.skill_data OR q.content_digest = b.content_digest)
        )
    )
    AND (
        NOT EXISTS (SELECT 1 FROM gate_revocation)
        OR NOT EXISTS (
            SELECT 1 FROM gate_revocation AS r JOIN skill_cache AS k ON k.skill_id = c.skill_id
            WHERE (r.skill_id = c.skill_id AND (r.version IS NULL OR r.version = b.version OR r.version = {_VERSION}))
                OR r.digest = b.content_digest
                OR r.publisher = {_AUTHOR} COLLATE NOCASE
        )
    )
    """  # noqa: S608 - built from constants

# Migration 0024: the capabilities of versions, by digest, as the program of that version found them; only a memory.
CREATE_FACTS = """
    CREATE TABLE gate_facts (
        content_digest BLOB NOT NULL PRIMARY KEY,
        program TEXT NOT NULL,
        facts TEXT NOT NULL
    ) WITHOUT ROWID
    """

# Migration 0027: the trigger runs its statements for each row. A sync remembers all bases that it replaces with one
# statement (bases.py), and the trigger stands aside for it.
_REMEMBER_EACH = remember(_REMEMBER_ADMITTED + SIGN_OLD)[0]
REMEMBER_OTHERS = ("DROP TRIGGER skill_base_after_update", _REMEMBER_EACH.replace("WHEN ", f"WHEN {NOT_OURS} AND "))
REMEMBER_EACH = ("DROP TRIGGER skill_base_after_update", _REMEMBER_EACH)

_DROP_TRIGGERS = (*DROP_REMEMBERING, "DROP TRIGGER skill_seen_after_insert")
_NEVER_SERVED = "'superseded', 'deleted', 'deleted_here', 'not_admitted'"

# `admitted_by` is NULL if a policy admitted the base. `origin` of a version that was never served is `offer`.
CREATE_GATE = (
    *_OFFERS,
    *_WORDS_OF_PEOPLE,
    "ALTER TABLE skill_base ADD COLUMN admitted_at TEXT",
    "ALTER TABLE skill_base ADD COLUMN admitted_by TEXT",
    f"UPDATE skill_base SET admitted_at = {_NOW}, admitted_by = 'adopted'",  # noqa: S608 - constants
    "ALTER TABLE skill_seen ADD COLUMN first_seen_at TEXT",
    "ALTER TABLE skill_seen ADD COLUMN admitted_at TEXT",
    "UPDATE skill_seen SET first_seen_at = seen_at",
    *_DROP_TRIGGERS,
    *remember(_REMEMBER_ADMITTED + SIGN_OLD),
    _FORGET_UNNAMED_DIGESTS,
    *backend_schema.versions(_NEVER_SERVED),
    "DROP VIEW usable_skill",
    _VIEW,
)


# What people have decided outlives a downgrade below 0022, as JSON in `fact`: 0026 puts it back. Digests are in hex.
_KEPT: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "gate_decision": (("id", "skill_id", "kind", "at", "by", "note"), ("content_digest", "signature")),
    "gate_pin": (("skill_id", "version", "at", "by", "note"), ("content_digest",)),
    "gate_revocation": (
        ("id", "skill_id", "version", "publisher", "note", "source", "added_at", "added_by"),
        ("digest",),
    ),
    "gate_quarantine": (
        ("skill_id", "skill_data", "base_data", "reason", "served_source", "at", "by", "note"),
        ("content_digest",),
    ),
}
WORDS_OF_PEOPLE = tuple(_KEPT)


def _keep(table: str) -> str:
    plain, blobs = _KEPT[table]
    pairs = [f"'{each}', {each}" for each in plain] + [
        f"'{each}', CASE WHEN {each} IS NOT NULL THEN hex({each}) END" for each in blobs
    ]
    return f"""
        INSERT OR REPLACE INTO fact (name, value, updated_at)
        SELECT 'kept_{table}', json_group_array(json_object({", ".join(pairs)})), {_NOW} FROM {table}
        HAVING count(*) > 0
    """  # noqa: S608 - constants


def _put_back(table: str) -> tuple[str, str]:
    plain, blobs = _KEPT[table]
    values = [f"json_extract(kept.value, '$.{each}')" for each in plain] + [
        f"atom_sync_bytes(json_extract(kept.value, '$.{each}'))" for each in blobs
    ]
    return (
        f"""
        INSERT OR IGNORE INTO {table} ({", ".join([*plain, *blobs])})
        SELECT {", ".join(values)} FROM fact, json_each(fact.value) AS kept WHERE fact.name = 'kept_{table}'
        """,  # noqa: S608 - constants
        f"DELETE FROM fact WHERE name = 'kept_{table}'",  # noqa: S608 - constants
    )


PUT_BACK_WORDS = tuple(statement for table in WORDS_OF_PEOPLE for statement in _put_back(table))
"""Migration 0026."""


def drop_gate(view: str) -> tuple[str, ...]:
    """Return the statements that revert 0022; `view` recreates usable_skill."""
    return (
        *(_keep(table) for table in WORDS_OF_PEOPLE),
        # A page with an offer must be read again: what waited is dropped.
        "UPDATE http_validator SET etag = NULL WHERE page IN (SELECT page FROM skill_offer)",
        "DROP VIEW usable_skill",
        "DELETE FROM skill_version WHERE ended_by = 'not_admitted'",
        *backend_schema.versions("'superseded', 'deleted', 'deleted_here'"),
        *_DROP_TRIGGERS,
        *(f"ALTER TABLE skill_seen DROP COLUMN {column}" for column in ("admitted_at", "first_seen_at")),
        *(f"ALTER TABLE skill_base DROP COLUMN {column}" for column in ("admitted_by", "admitted_at")),
        *remember(REMEMBER_OLD + SIGN_OLD),
        FORGET_DIGESTS,
        *(
            f"DROP TABLE {table}"
            for table in (
                "gate_scan",
                "gate_quarantine",
                "gate_revocation",
                "gate_pin",
                "gate_decision",
                "skill_offer",
            )
        ),
        view,
    )
