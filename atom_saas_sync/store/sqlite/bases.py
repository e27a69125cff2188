"""Write the bases, and record which versions of the marketplace were seen."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime

from atom_saas_sync.core.signing import Signer
from atom_saas_sync.model import SkillVersion
from atom_saas_sync.model.effects import Identity, NoteSeen, Proof, SetBase
from atom_saas_sync.times import format_exact_time, format_time

_SET_BASE = """
    INSERT INTO skill_base
        (skill_id, page, wire_digest, content_digest, exec_digest, confirmed_at, deleted_at, data, version, signature,
         admitted_at, admitted_by)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, NULL, ?7, ?9, ?10, ?11, ?12)
    ON CONFLICT (skill_id) DO UPDATE SET
        page = coalesce(excluded.page, page), wire_digest = excluded.wire_digest,
        content_digest = excluded.content_digest, exec_digest = excluded.exec_digest,
        confirmed_at = CASE WHEN ?8 THEN excluded.confirmed_at ELSE confirmed_at END,
        deleted_at = NULL, data = excluded.data, version = excluded.version,
        -- Without a key the signature stays as long as what it signs.
        signature = CASE WHEN excluded.signature IS NULL AND version = excluded.version
            AND content_digest = excluded.content_digest AND exec_digest = excluded.exec_digest
            THEN signature ELSE excluded.signature END,
        admitted_at = CASE WHEN content_digest = excluded.content_digest THEN admitted_at
            ELSE excluded.admitted_at END,
        admitted_by = CASE WHEN content_digest = excluded.content_digest THEN admitted_by ELSE excluded.admitted_by END
"""
# As the trigger of skill_base, which stands aside for a sync, does it for a row.
_REMEMBER_REPLACED = """
    INSERT INTO skill_seen (skill_id, content_digest, exec_digest, version, first_seen_at, admitted_at, signature)
    SELECT old.skill_id, old.content_digest, old.exec_digest, old.version, old.admitted_at, old.admitted_at,
        CASE typeof(old.signature) WHEN 'blob' THEN old.signature END
    FROM json_each(?) AS new CROSS JOIN skill_base AS old ON old.skill_id = new.key
    WHERE hex(old.content_digest) != new.value
    ON CONFLICT (skill_id, content_digest) DO UPDATE SET
        admitted_at = coalesce(excluded.admitted_at, admitted_at),
        signature = CASE WHEN exec_digest = excluded.exec_digest AND version = excluded.version
            THEN coalesce(excluded.signature, signature) ELSE signature END
"""
_NOTE_SEEN = """
    INSERT INTO skill_seen (skill_id, content_digest, exec_digest, version, signature) VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT (skill_id, content_digest) DO UPDATE SET exec_digest = excluded.exec_digest,
        version = excluded.version, signature = excluded.signature WHERE excluded.signature IS NOT NULL
"""


def set_bases(
    connection: sqlite3.Connection,
    effects: Sequence[SetBase],
    now: datetime,
    *,
    page: int | None,
    signer: Signer | None,
) -> None:
    """Write a base for each of these skills, and remember those replaced; `page` is their page in the list, or None."""
    new = {each.skill_id: each.version.content_digest.hex().upper() for each in effects}
    connection.execute(_REMEMBER_REPLACED, (json.dumps(new),))
    moment, admitted_at = format_time(now), format_exact_time(now)
    connection.executemany(
        _SET_BASE,
        [
            (
                each.skill_id,
                each.page if page is None else page,
                each.version.wire_digest,
                each.version.content_digest,
                each.version.exec_digest,
                moment,
                each.kept_text,
                each.confirmed,
                each.version_key,
                signer and signature_of(connection, signer, each.version, each.version_key, each.proof),
                admitted_at,
                each.by,
            )
            for each in effects
        ],
    )


def note_seen(connection: sqlite3.Connection, effects: Sequence[NoteSeen], *, signer: Signer | None) -> None:
    """Record versions in open conflicts as seen."""
    connection.executemany(
        _NOTE_SEEN,
        [
            (
                each.skill_id,
                each.version.content_digest,
                each.version.exec_digest,
                each.version_key,
                signer and signature_of(connection, signer, each.version, each.version_key, each.proof),
            )
            for each in effects
        ],
    )


def signature_of(
    connection: sqlite3.Connection, signer: Signer, version: SkillVersion, key: str, proof: Proof
) -> bytes | None:
    """Sign a version if its proof allows it, else return None."""
    if isinstance(proof, Identity):
        relied_on = signer.sign(version.skill_id, proof.version, proof.content_digest, proof.exec_digest)
        if not _is_stored(connection, relied_on, version.skill_id):
            return None
    elif proof == "none":
        return None
    return signer.sign(version.skill_id, key, version.content_digest, version.exec_digest)


def _is_stored(connection: sqlite3.Connection, signature: bytes, skill_id: str) -> bool:
    return (
        connection.execute(
            "SELECT 1 FROM skill_base WHERE skill_id = ?1 AND signature = ?2 "
            "UNION ALL SELECT 1 FROM skill_seen WHERE skill_id = ?1 AND signature = ?2",
            (skill_id, signature),
        ).fetchone()
        is not None
    )
