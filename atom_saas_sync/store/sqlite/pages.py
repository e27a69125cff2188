"""The pages of the marketplace's list: their skills, validators and confirmation times."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Set as AbstractSet
from datetime import datetime

import msgspec

from atom_saas_sync.model import PageRecord
from atom_saas_sync.store.sqlite import resolutions
from atom_saas_sync.times import format_time, parse_time

_DIGEST_BYTES = 32

_BASES = "SELECT skill_id, wire_digest FROM skill_base WHERE page = ?1 AND deleted_at IS NULL"
# For a skill with an offer, the offer's digest: receiving the base again would be a change.
_BASES_AND_OFFERS = f"""
    {_BASES} AND skill_id NOT IN (SELECT skill_id FROM skill_offer)
    UNION ALL SELECT skill_id, wire_digest FROM skill_offer WHERE page = ?1
"""  # noqa: S608 - constants
_DIGESTS = """
    SELECT json_group_array(skill_id), group_concat(hex(wire_digest), '') FROM ({rows}) WHERE wire_digest != x''
"""
_OPEN = f"SELECT skill_id FROM conflict_log WHERE {resolutions.OPEN}"  # noqa: S608 - constants
_IDS = "SELECT json_group_array(skill_id) FROM {table} WHERE page = ?"
_LEAVE_PAGE = """
    UPDATE {table} SET
        confirmed_at = max(confirmed_at, coalesce(
            (SELECT checked_at FROM http_validator AS v WHERE v.page = {table}.page), '')),
        page = NULL
"""
_AMONG = "WHERE skill_id IN (SELECT value FROM json_each(?))"
_LISTED = ("skill_base", "skill_offer")
_COME_TO_PAGE = """
    UPDATE {table} SET page = ?1, confirmed_at = ?3 WHERE skill_id IN (SELECT value FROM json_each(?2))
"""

decode_list = msgspec.json.Decoder(list[str]).decode


def page_records(connection: sqlite3.Connection, list_key: str) -> dict[int, PageRecord]:
    """Return the stored pages of the list with this key."""
    rows = connection.execute(
        "SELECT page, etag, items, total, read_at FROM http_validator WHERE page IS NOT NULL AND resource = ? || page",
        (list_key,),
    )
    return {
        row["page"]: PageRecord(row["etag"], row["items"], row["total"], parse_time(row["read_at"])) for row in rows
    }


def ids_on_page(connection: sqlite3.Connection, page: int) -> list[str]:
    """Return the skills that were last seen on `page`."""
    based, offered = (_listed_on(connection, table, page) for table in _LISTED)
    return [*based, *offered.difference(based)]


def _listed_on(connection: sqlite3.Connection, table: str, page: int) -> set[str]:
    return set(decode_list(connection.execute(_IDS.format(table=table), (page,)).fetchone()[0]))


def digests_on_page(connection: sqlite3.Connection, page: int) -> dict[bytes, str]:
    """Return the wire digests on `page`, each with its skill, without skills with an open conflict."""
    # As two values instead of rows: each row would release the GIL to the fetching thread and take it back.
    query = _DIGESTS.format(rows=_BASES_AND_OFFERS if _exists(connection, "SELECT 1 FROM skill_offer") else _BASES)
    if _exists(connection, _OPEN):  # even an empty list to compare with costs a fifth
        query += f"AND skill_id NOT IN ({_OPEN})"
    names, digests = connection.execute(query, (page,)).fetchone()
    joined = bytes.fromhex(digests or "")
    starts = range(0, len(joined), _DIGEST_BYTES)
    return dict(zip([joined[start : start + _DIGEST_BYTES] for start in starts], decode_list(names), strict=True))


def leave_pages(connection: sqlite3.Connection, first: int) -> None:
    """Forget the pages from `first` on; their skills keep the time of their confirmation."""
    for table in _LISTED:
        connection.execute(_LEAVE_PAGE.format(table=table) + "WHERE page >= ?", (first,))
    connection.execute("DELETE FROM http_validator WHERE page >= ?", (first,))


def confirm_page(connection: sqlite3.Connection, page: int, now: datetime) -> None:
    """Record that the marketplace has confirmed a page, and so every skill on it, as unchanged."""
    connection.execute("UPDATE http_validator SET checked_at = ? WHERE page = ?", (format_time(now), page))


def record_page(
    connection: sqlite3.Connection,
    page: int,
    ids: AbstractSet[str],
    *,
    list_key: str,
    etag: str | None,
    total: int | None,
    now: datetime,
) -> None:
    """Record a page that was read: its validator and its skills; called last.

    If one of them no longer has a base or an offer because it was purged meanwhile, the page is stored without its
    validator: it must be read in full again.
    """
    moment = format_time(now)
    based, offered = (_listed_on(connection, table, page) for table in _LISTED)
    before = based | offered
    new = ids - before
    for table in _LISTED:
        connection.execute(_LEAVE_PAGE.format(table=table) + _AMONG, (json.dumps(list(before - ids)),))
    for table, missing in (("skill_base", ids - based), ("skill_offer", new)):
        connection.execute(_COME_TO_PAGE.format(table=table), (page, json.dumps(list(missing)), moment))
    # An offer that a message brought has no page. The `+` makes it look up those few, and not all of the page.
    brought = _COME_TO_PAGE.format(table="skill_offer").replace("WHERE skill_id", "WHERE page IS NULL AND +skill_id")
    connection.execute(brought, (page, json.dumps(list(ids)), moment))
    found = set(ids_on_page(connection, page)) if new else before
    if not ids <= found:
        etag = None
    connection.execute(
        """
        INSERT INTO http_validator (resource, etag, page, items, total, checked_at, read_at)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)
        ON CONFLICT (resource) DO UPDATE SET etag = excluded.etag, items = excluded.items, total = excluded.total,
            checked_at = excluded.checked_at, read_at = excluded.read_at
        """,
        (f"{list_key}{page}", etag, page, len(ids), total, moment),
    )


def _exists(connection: sqlite3.Connection, query: str) -> bool:
    """Tell whether a query has any row; a page without anything to leave out is looked up faster."""
    return bool(connection.execute(f"SELECT EXISTS ({query})").fetchone()[0])
