"""The gate's queries on served skills: which ones a revocation matches, and which are adopted."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import psycopg

from atom_saas_sync.core.canonical import stored_version, version_key
from atom_saas_sync.core.gate.names import folded, publisher_of
from atom_saas_sync.core.gate.revocations import revoked
from atom_saas_sync.core.gate.types import ADOPTED, Revocations
from atom_saas_sync.store.postgresql.counters import increment
from atom_saas_sync.store.postgresql.rows import Row

_ROWS = """
    SELECT c.skill_id, c.skill_data AS text, b.data AS base_text
    FROM skill_cache AS c LEFT JOIN skill_base AS b ON b.skill_id = c.skill_id
    WHERE c.skill_id = ANY(%s) ORDER BY c.skill_id
"""
_AUTHORS = """
    SELECT skill_id, atom_sync_author(skill_data) FROM skill_cache
    UNION ALL SELECT skill_id, atom_sync_author(data) FROM skill_base WHERE data IS NOT NULL
"""
# Local versions: their digest is not stored.
_WRITTEN_HERE = """
    SELECT c.skill_id FROM skill_cache AS c LEFT JOIN skill_base AS b ON b.skill_id = c.skill_id
    WHERE b.skill_id IS NULL OR b.data IS NOT NULL
"""


def revoked_skills(connection: psycopg.Connection[Row], revocations: Revocations) -> list[str]:
    """Return, sorted, the cached skills whose text or base is revoked."""
    found = []
    for row in connection.execute(_ROWS, (list(_candidates(connection, revocations)),)):
        for text in filter(None, (row["text"], row["base_text"])):
            version = stored_version(row["skill_id"], text)
            fields = version.fields if version is not None else {}
            digest = version.content_digest if version is not None else b""
            if revoked(revocations, row["skill_id"], version_key(fields), digest, publisher_of(fields)):
                found.append(row["skill_id"])
                break
    return found


def _candidates(connection: psycopg.Connection[Row], revocations: Revocations) -> set[str]:
    """Return all skills that a revocation could match, found without reading every text."""
    ids = set(revocations.by_skill)
    if revocations.by_digest:
        digests = list(revocations.by_digest)
        rows = connection.execute("SELECT skill_id FROM skill_base WHERE content_digest = ANY(%s)", (digests,))
        ids |= {row[0] for row in rows}
        ids |= {row[0] for row in connection.execute(_WRITTEN_HERE)}
    if revocations.by_publisher:
        ids |= {
            skill_id
            for skill_id, author in connection.execute(_AUTHORS)
            if author is not None and folded(author) in revocations.by_publisher
        }
    return ids


def adopt(connection: psycopg.Connection[Row], now: datetime) -> int:
    """Mark everything that a policy admitted so far as adopted; return the number of skills."""
    row = connection.execute(
        "WITH adopted AS (UPDATE skill_base SET admitted_by = %s, admitted_at = coalesce(admitted_at, %s) "
        "WHERE admitted_by IS NULL RETURNING 1) SELECT count(*) FROM adopted",
        (ADOPTED, now),
    ).fetchone()
    assert row is not None
    adopted = int(row[0])
    increment(connection, "atom_saas_admissions_total", adopted, verdict="admit", by=ADOPTED)
    return adopted


def note_admissions(connection: psycopg.Connection[Row], skill_ids: Sequence[str], by: str) -> None:
    """Record who admitted the bases of these skills."""
    connection.execute("UPDATE skill_base SET admitted_by = %s WHERE skill_id = ANY(%s)", (by, list(skill_ids)))


def served_marketplace_skills(connection: psycopg.Connection[Row]) -> int:
    """Return the number of served marketplace skills."""
    row = connection.execute(
        "SELECT count(*) FROM skill_base AS b JOIN skill_cache AS c ON c.skill_id = b.skill_id "
        "WHERE b.deleted_at IS NULL"
    ).fetchone()
    assert row is not None
    return int(row[0])
