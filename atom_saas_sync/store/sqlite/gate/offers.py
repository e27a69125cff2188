"""Versions from the marketplace that are not admitted."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime

from atom_saas_sync.core.gate.stored import WaitingOffer
from atom_saas_sync.core.gate.types import Offer
from atom_saas_sync.store.packing import pack
from atom_saas_sync.store.sqlite.gate.rows import OFFERED, offer_of
from atom_saas_sync.times import format_exact_time, format_time

_PUT = """
    INSERT INTO skill_offer (skill_id, page, wire_digest, content_digest, exec_digest, version, kind, reason, due_at,
        first_seen_at, offered_at, confirmed_at, abnormal, note, data)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)
    ON CONFLICT (skill_id) DO UPDATE SET
        page = coalesce(excluded.page, page), wire_digest = excluded.wire_digest,
        content_digest = excluded.content_digest, exec_digest = excluded.exec_digest, version = excluded.version,
        kind = excluded.kind, reason = excluded.reason, due_at = excluded.due_at,
        first_seen_at = excluded.first_seen_at,
        -- The time at which this version began to wait.
        offered_at = CASE WHEN content_digest = excluded.content_digest THEN offered_at ELSE excluded.offered_at END,
        confirmed_at = excluded.confirmed_at, abnormal = excluded.abnormal, note = excluded.note, data = excluded.data
"""
# Both are compressed the same way.
_KEEP_AS_NEVER_SERVED = """
    INSERT INTO skill_version (skill_id, version, content_digest, exec_digest, ended_at, ended_by, data, origin)
    SELECT skill_id, version, content_digest, exec_digest, ?2, 'not_admitted', data, 'offer' FROM skill_offer
    WHERE skill_id = ?1 AND content_digest IS NOT ?3
"""
_KEEP_NEWEST = """
    DELETE FROM skill_version WHERE skill_id = ?1 AND origin = 'offer' AND id <= (
        SELECT id FROM skill_version WHERE skill_id = ?1 AND origin = 'offer' ORDER BY id DESC LIMIT 1 OFFSET ?2)
"""
_TO_JUDGE = """
    SELECT skill_id FROM skill_offer AS o WHERE ?1 OR (o.kind = 'hold' AND (
        o.due_at <= ?2
        OR (o.reason = 'pinned' AND NOT EXISTS (SELECT 1 FROM gate_pin AS p WHERE p.skill_id = o.skill_id))
        OR (o.reason = 'quarantined' AND NOT EXISTS (
            SELECT 1 FROM gate_quarantine AS q WHERE q.skill_id = o.skill_id AND q.reason = 'quarantined'))
        OR (o.reason = 'scan'
            AND EXISTS (SELECT 1 FROM gate_scan AS s WHERE s.content_digest = o.content_digest AND s.passed))
    ))
    ORDER BY o.first_seen_at, o.rowid
"""
_SEEN = """
    INSERT INTO skill_seen (skill_id, content_digest, exec_digest, version, first_seen_at, signature)
    VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (skill_id, content_digest) DO UPDATE SET signature = excluded.signature
    WHERE excluded.signature IS NOT NULL
"""


def put_offers(
    connection: sqlite3.Connection,
    offers: Sequence[Offer],
    now: datetime,
    *,
    history_versions: int,
    signatures: Sequence[bytes | None] | None = None,
) -> None:
    """Store offers; each replaces the skill's previous offer, which goes into the history as never served."""
    moment = format_time(now)
    if history_versions:
        ended = [(each.skill_id, moment, each.content_digest) for each in offers]
        connection.executemany(_KEEP_AS_NEVER_SERVED, ended)
        connection.executemany(_KEEP_NEWEST, [(each.skill_id, history_versions) for each in offers])
    connection.executemany(
        _PUT,
        [
            (
                each.skill_id,
                each.page,
                each.wire_digest,
                each.content_digest,
                each.exec_digest,
                each.version,
                each.kind,
                each.reason,
                format_exact_time(each.due_at) if each.due_at else None,
                format_exact_time(each.first_seen_at),
                format_exact_time(each.offered_at),
                moment,
                each.abnormal,
                each.note,
                pack(each.text.encode()),
            )
            for each in offers
        ],
    )
    connection.executemany(
        _SEEN,
        [
            (
                each.skill_id,
                each.content_digest,
                each.exec_digest,
                each.version,
                format_exact_time(each.first_seen_at),
                signature,
            )
            for each, signature in zip(offers, signatures or [None] * len(offers), strict=True)
        ],
    )


def drop_offers(
    connection: sqlite3.Connection, skill_ids: Sequence[str], now: datetime, *, history_versions: int
) -> None:
    """Remove offers; with `history_versions`, the history keeps that many texts as never served."""
    if history_versions:
        connection.executemany(_KEEP_AS_NEVER_SERVED, [(each, format_time(now), None) for each in skill_ids])
        connection.executemany(_KEEP_NEWEST, [(each, history_versions) for each in skill_ids])
    connection.executemany("DELETE FROM skill_offer WHERE skill_id = ?", [(each,) for each in skill_ids])


def offers(connection: sqlite3.Connection, skill_ids: Iterable[str], *, texts: bool = True) -> dict[str, Offer]:
    """Return the held or refused versions of these skills; without `texts`, their texts are empty."""
    columns = OFFERED if texts else OFFERED.replace("o.data", "NULL")
    rows = connection.execute(
        f"SELECT {columns} FROM skill_offer AS o WHERE o.skill_id IN (SELECT value FROM json_each(?))",  # noqa: S608
        (json.dumps(list(skill_ids)),),
    )
    return {row["skill_id"]: offer_of(row) for row in rows}


def waiting(
    connection: sqlite3.Connection, *, reason: str | None = None, skill_ids: Sequence[str] | None = None
) -> list[WaitingOffer]:
    """Return the waiting versions, oldest first, each with the served one."""
    rows = connection.execute(
        f"""
        SELECT {OFFERED}, b.content_digest AS served_digest, b.exec_digest AS served_exec_digest,
            CAST(c.skill_data AS TEXT) AS served_text
        FROM skill_offer AS o
        LEFT JOIN skill_cache AS c ON c.skill_id = o.skill_id
        LEFT JOIN skill_base AS b ON b.skill_id = o.skill_id AND c.skill_id IS NOT NULL AND b.deleted_at IS NULL
        WHERE o.kind = 'hold' AND (?1 IS NULL OR o.reason = ?1)
            AND (?2 IS NULL OR o.skill_id IN (SELECT value FROM json_each(?2)))
        ORDER BY o.first_seen_at, o.rowid
        """,  # noqa: S608 - constants
        (reason, None if skill_ids is None else json.dumps(list(skill_ids))),
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


def ids_to_judge(connection: sqlite3.Connection, now: datetime, *, everything: bool) -> list[str]:
    """Return the skills whose offer is due or whose reason for being held is gone, or all with an offer."""
    rows = connection.execute(_TO_JUDGE, (everything, format_exact_time(now)))
    return [row[0] for row in rows]


def spoiled(connection: sqlite3.Connection) -> list[str]:
    """Return, sorted, the skills whose offered text does not match its digest: another program changed it."""
    rows = connection.execute(f"SELECT {OFFERED} FROM skill_offer AS o ORDER BY skill_id")  # noqa: S608 - constants
    return [offer.skill_id for offer in map(offer_of, rows) if not offer.text]


def count_waiting(connection: sqlite3.Connection) -> dict[str, int]:
    """Return the number of waiting updates by reason."""
    rows = connection.execute("SELECT reason, count(*) FROM skill_offer WHERE kind = 'hold' GROUP BY reason")
    return {row[0]: row[1] for row in rows}
