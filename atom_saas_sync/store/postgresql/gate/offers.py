"""Versions from the marketplace that are not admitted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import psycopg

from atom_saas_sync.core.gate.stored import WaitingOffer
from atom_saas_sync.core.gate.types import Offer
from atom_saas_sync.store.packing import pack
from atom_saas_sync.store.postgresql.gate.rows import OFFERED, offer_of
from atom_saas_sync.store.postgresql.history import drop_oldest
from atom_saas_sync.store.postgresql.rows import Row

_PUT = """
    INSERT INTO skill_offer AS o (skill_id, page, wire_digest, content_digest, exec_digest, version, kind, reason,
        due_at, first_seen_at, offered_at, confirmed_at, abnormal, note, data)
    SELECT skill_id, page, wire_digest, content_digest, exec_digest, version, kind, reason, due_at, first_seen_at,
        offered_at, %s, abnormal, note, data
    FROM unnest(%s::text[], %s::bigint[], %s::bytea[], %s::bytea[], %s::bytea[], %s::text[], %s::text[], %s::text[],
        %s::timestamptz[], %s::timestamptz[], %s::timestamptz[], %s::boolean[], %s::text[], %s::bytea[])
        WITH ORDINALITY AS new (skill_id, page, wire_digest, content_digest, exec_digest, version, kind, reason,
        due_at, first_seen_at, offered_at, abnormal, note, data, place)
    ORDER BY place
    ON CONFLICT (skill_id) DO UPDATE SET
        page = coalesce(excluded.page, o.page), wire_digest = excluded.wire_digest,
        content_digest = excluded.content_digest, exec_digest = excluded.exec_digest, version = excluded.version,
        kind = excluded.kind, reason = excluded.reason, due_at = excluded.due_at,
        first_seen_at = excluded.first_seen_at,
        -- The time at which this version began to wait.
        offered_at = CASE WHEN o.content_digest = excluded.content_digest THEN o.offered_at
            ELSE excluded.offered_at END,
        confirmed_at = excluded.confirmed_at, abnormal = excluded.abnormal, note = excluded.note, data = excluded.data
"""
# Both are compressed in the same way.
_KEEP_AS_NEVER_SERVED = """
    INSERT INTO skill_version (skill_id, version, content_digest, exec_digest, ended_at, ended_by, data, origin)
    SELECT o.skill_id, o.version, o.content_digest, o.exec_digest, %s, 'not_admitted', o.data, 'offer'
    FROM unnest(%s::text[], %s::bytea[]) WITH ORDINALITY AS ended (skill_id, digest, place)
    JOIN skill_offer AS o ON o.skill_id = ended.skill_id AND o.content_digest IS DISTINCT FROM ended.digest
    ORDER BY ended.place
"""
_TO_JUDGE = """
    SELECT skill_id FROM skill_offer AS o WHERE %(everything)s OR (o.kind = 'hold' AND (
        o.due_at <= %(now)s
        OR (o.reason = 'pinned' AND NOT EXISTS (SELECT FROM gate_pin AS p WHERE p.skill_id = o.skill_id))
        OR (o.reason = 'quarantined' AND NOT EXISTS (
            SELECT FROM gate_quarantine AS q WHERE q.skill_id = o.skill_id AND q.reason = 'quarantined'))
        OR (o.reason = 'scan'
            AND EXISTS (SELECT FROM gate_scan AS s WHERE s.content_digest = o.content_digest AND s.passed))
    ))
    ORDER BY o.first_seen_at, o.id
"""
_SEEN = """
    INSERT INTO skill_seen (skill_id, content_digest, exec_digest, version, first_seen_at, signature)
    SELECT * FROM unnest(%s::text[], %s::bytea[], %s::bytea[], %s::text[], %s::timestamptz[], %s::bytea[])
    ON CONFLICT (skill_id, content_digest) DO UPDATE SET signature = excluded.signature
    WHERE excluded.signature IS NOT NULL
"""


def put_offers(
    connection: psycopg.Connection[Row],
    offers: Sequence[Offer],
    now: datetime,
    *,
    history_versions: int,
    signatures: Sequence[bytes | None] | None = None,
) -> None:
    """Store offers; each replaces the skill's previous offer, which goes into the history as never served."""
    ids, digests = [each.skill_id for each in offers], [each.content_digest for each in offers]
    executables, versions = [each.exec_digest for each in offers], [each.version for each in offers]
    first_seen = [each.first_seen_at for each in offers]
    if history_versions:
        connection.execute(_KEEP_AS_NEVER_SERVED, (now.replace(microsecond=0), ids, digests))
        drop_oldest(connection, ids, "offer", number=history_versions)
    connection.execute(
        _PUT,
        (
            now.replace(microsecond=0),
            ids,
            [each.page for each in offers],
            [each.wire_digest for each in offers],
            digests,
            executables,
            versions,
            [each.kind for each in offers],
            [each.reason for each in offers],
            [each.due_at for each in offers],
            first_seen,
            [each.offered_at for each in offers],
            [each.abnormal for each in offers],
            [each.note for each in offers],
            [pack(each.text.encode()) for each in offers],
        ),
    )
    signed = list(signatures or [None] * len(offers))
    connection.execute(_SEEN, (ids, digests, executables, versions, first_seen, signed))


def drop_offers(
    connection: psycopg.Connection[Row], skill_ids: Sequence[str], now: datetime, *, history_versions: int
) -> None:
    """Remove offers; with `history_versions`, the history keeps that many texts as never served."""
    ids = list(skill_ids)
    if history_versions:
        connection.execute(_KEEP_AS_NEVER_SERVED, (now.replace(microsecond=0), ids, [None] * len(ids)))
        drop_oldest(connection, ids, "offer", number=history_versions)
    connection.execute("DELETE FROM skill_offer WHERE skill_id = ANY(%s)", (ids,))


def offers(connection: psycopg.Connection[Row], skill_ids: Iterable[str]) -> dict[str, Offer]:
    """Return the held or refused versions of these skills."""
    rows = connection.execute(f"SELECT {OFFERED} FROM skill_offer AS o WHERE o.skill_id = ANY(%s)", (list(skill_ids),))  # noqa: S608 - constant
    return {row["skill_id"]: offer_of(row) for row in rows}


def waiting(
    connection: psycopg.Connection[Row], *, reason: str | None = None, skill_ids: Sequence[str] | None = None
) -> list[WaitingOffer]:
    """Return the waiting versions, oldest first, each with the served one."""
    rows = connection.execute(
        f"""
        SELECT {OFFERED}, b.content_digest AS served_digest, b.exec_digest AS served_exec_digest,
            c.skill_data AS served_text
        FROM skill_offer AS o
        LEFT JOIN skill_cache AS c ON c.skill_id = o.skill_id
        LEFT JOIN skill_base AS b ON b.skill_id = o.skill_id AND c.skill_id IS NOT NULL AND b.deleted_at IS NULL
        WHERE o.kind = 'hold' AND (%(reason)s::text IS NULL OR o.reason = %(reason)s::text)
            AND (%(ids)s::text[] IS NULL OR o.skill_id = ANY(%(ids)s::text[]))
        ORDER BY o.first_seen_at, o.id
        """,  # noqa: S608 - constants
        {"reason": reason, "ids": None if skill_ids is None else list(skill_ids)},
    )
    return [
        WaitingOffer(
            offer=offer_of(row),
            served_digest=row["served_digest"],
            served_exec_digest=row["served_exec_digest"],
            served_text=row["served_text"],
        )
        for row in rows
    ]


def ids_to_judge(connection: psycopg.Connection[Row], now: datetime, *, everything: bool) -> list[str]:
    """Return the skills whose offer is due or whose reason for being held is gone, or all with an offer."""
    return [row[0] for row in connection.execute(_TO_JUDGE, {"everything": everything, "now": now})]


def spoiled(connection: psycopg.Connection[Row]) -> list[str]:
    """Return, sorted, the skills whose offered text does not match its digest: another program changed it."""
    rows = connection.execute(f"SELECT {OFFERED} FROM skill_offer AS o ORDER BY skill_id")  # noqa: S608 - constant
    return [offer.skill_id for offer in map(offer_of, rows) if not offer.text]


def count_waiting(connection: psycopg.Connection[Row]) -> dict[str, int]:
    """Return the number of waiting updates by reason."""
    rows = connection.execute("SELECT reason, count(*) FROM skill_offer WHERE kind = 'hold' GROUP BY reason")
    return {row[0]: int(row[1]) for row in rows}
