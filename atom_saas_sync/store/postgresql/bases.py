"""Write the bases and what else is stored about the marketplace's versions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import psycopg

from atom_saas_sync.core.signing import Signer
from atom_saas_sync.model import SkillVersion
from atom_saas_sync.model.effects import Identity, NoteSeen, Proof, SetBase
from atom_saas_sync.store.postgresql.rows import Row

_SET_BASE = """
    INSERT INTO skill_base AS b
        (skill_id, page, wire_digest, content_digest, exec_digest, confirmed_at, data, version, signature, admitted_at,
         admitted_by)
    SELECT skill_id, page, wire_digest, content_digest, exec_digest, %s, data, version, signature, %s, admitted_by
    FROM unnest(%b::text[], %b::bigint[], %b::bytea[], %b::bytea[], %b::bytea[], %b::text[], %b::text[], %b::bytea[],
        %b::text[])
        AS new (skill_id, page, wire_digest, content_digest, exec_digest, data, version, signature, admitted_by)
    ON CONFLICT (skill_id) DO UPDATE SET
        page = coalesce(excluded.page, b.page), wire_digest = excluded.wire_digest,
        content_digest = excluded.content_digest, exec_digest = excluded.exec_digest,
        confirmed_at = CASE WHEN %s THEN excluded.confirmed_at ELSE b.confirmed_at END,
        deleted_at = NULL, data = excluded.data, version = excluded.version,
        -- Without a key the signature stays as long as what it signs.
        signature = CASE WHEN excluded.signature IS NULL AND b.version = excluded.version
            AND b.content_digest = excluded.content_digest AND b.exec_digest = excluded.exec_digest
            THEN b.signature ELSE excluded.signature END,
        admitted_at = CASE WHEN b.content_digest = excluded.content_digest THEN b.admitted_at
            ELSE excluded.admitted_at END,
        admitted_by = CASE WHEN b.content_digest = excluded.content_digest THEN b.admitted_by
            ELSE excluded.admitted_by END
"""
_NOTE_SEEN = """
    INSERT INTO skill_seen (skill_id, content_digest, exec_digest, version, signature)
    SELECT * FROM unnest(%b::text[], %b::bytea[], %b::bytea[], %b::text[], %b::bytea[])
    ON CONFLICT (skill_id, content_digest) DO UPDATE SET exec_digest = excluded.exec_digest,
        version = excluded.version, signature = excluded.signature WHERE excluded.signature IS NOT NULL
"""


def set_bases(
    connection: psycopg.Connection[Row],
    effects: Sequence[SetBase],
    now: datetime,
    *,
    page: int | None,
    signer: Signer | None,
) -> None:
    """Write bases; `page` is their page in the list, or None."""
    for confirmed in (True, False):
        some = [each for each in effects if each.confirmed is confirmed]
        if not some:
            continue
        connection.execute(
            _SET_BASE,
            (
                now.replace(microsecond=0),
                now,
                [each.skill_id for each in some],
                [each.page if page is None else page for each in some],
                [each.version.wire_digest for each in some],
                [each.version.content_digest for each in some],
                [each.version.exec_digest for each in some],
                [each.kept_text for each in some],
                [each.version_key for each in some],
                _signatures(connection, some, signer),
                [each.by for each in some],
                confirmed,
            ),
        )


def note_seen(connection: psycopg.Connection[Row], effects: Sequence[NoteSeen], *, signer: Signer | None) -> None:
    """Record the remote versions of open conflicts."""
    connection.execute(
        _NOTE_SEEN,
        (
            [each.skill_id for each in effects],
            [each.version.content_digest for each in effects],
            [each.version.exec_digest for each in effects],
            [each.version_key for each in effects],
            _signatures(connection, effects, signer),
        ),
    )


def _signatures(
    connection: psycopg.Connection[Row], effects: Sequence[SetBase | NoteSeen], signer: Signer | None
) -> list[bytes | None]:
    if signer is None:
        return [None] * len(effects)
    return [signature_of(connection, signer, each.version, each.version_key, each.proof) for each in effects]


def signature_of(
    connection: psycopg.Connection[Row], signer: Signer, version: SkillVersion, key: str, proof: Proof
) -> bytes | None:
    """Return the signature of a version; None without evidence that the marketplace sent it."""
    if isinstance(proof, Identity):
        relied_on = signer.sign(version.skill_id, proof.version, proof.content_digest, proof.exec_digest)
        if not _is_stored(connection, relied_on, version.skill_id):
            return None
    elif proof == "none":
        return None
    return signer.sign(version.skill_id, key, version.content_digest, version.exec_digest)


def _is_stored(connection: psycopg.Connection[Row], signature: bytes, skill_id: str) -> bool:
    rows = connection.execute(
        "SELECT FROM skill_base WHERE skill_id = %(id)s AND signature = %(signature)s "
        "UNION ALL SELECT FROM skill_seen WHERE skill_id = %(id)s AND signature = %(signature)s",
        {"id": skill_id, "signature": signature},
    )
    return bool(rows.fetchall())
