"""The record of every version ever seen of a skill."""

from __future__ import annotations

# 0008: every version ever seen of a skill, whatever happened to it since, to detect different code under the same
# version. `version` is without invisible characters. The base is the newest version and not included.
VERSIONS_REMEMBERED = 1000
# Not OR IGNORE: in a trigger SQLite replaces it with the policy of the statement that fires it.
REMEMBER_OLD = """
        INSERT INTO skill_seen (skill_id, content_digest, exec_digest, version)
        SELECT old.skill_id, old.content_digest, old.exec_digest, old.version WHERE NOT EXISTS
        (SELECT 1 FROM skill_seen WHERE skill_id = old.skill_id AND content_digest = old.content_digest);
"""


def remember(statements: str) -> tuple[str, ...]:
    """Return the statements for the triggers that add a replaced or removed base to skill_seen."""
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


FORGET_DIGESTS = f"""
    CREATE TRIGGER skill_seen_after_insert AFTER INSERT ON skill_seen
    WHEN (SELECT count(*) FROM skill_seen WHERE skill_id = new.skill_id) > {VERSIONS_REMEMBERED}
    BEGIN
        DELETE FROM skill_seen WHERE skill_id = new.skill_id AND content_digest IN (
            SELECT content_digest FROM skill_seen WHERE skill_id = new.skill_id
            ORDER BY seen_at DESC LIMIT -1 OFFSET {VERSIONS_REMEMBERED});
    END
    """  # noqa: S608 - built from constants

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
    *remember(REMEMBER_OLD),
    FORGET_DIGESTS,
)
DROP_REMEMBERING = ("DROP TRIGGER skill_base_after_delete", "DROP TRIGGER skill_base_after_update")
FORGET_SEEN_VERSIONS = (
    *DROP_REMEMBERING,
    "DROP TABLE skill_seen",
    "ALTER TABLE skill_base DROP COLUMN version",
)
# 0012: the signature is copied with the base.
SIGN_OLD = """
        UPDATE skill_seen SET signature = old.signature
        WHERE skill_id = old.skill_id AND content_digest = old.content_digest AND exec_digest = old.exec_digest
            AND version = old.version AND old.signature IS NOT NULL;
"""
