"""The pages of the marketplace's list: their skills, validators and times of confirmation."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from datetime import datetime

import psycopg

from atom_saas_sync.model import PageRecord
from atom_saas_sync.store.postgresql.connection import Connection
from atom_saas_sync.store.postgresql.resolutions import OPEN
from atom_saas_sync.store.postgresql.rows import Row

# For a skill with an offer, the offer's digest: seeing the base again would be a change.
_DIGESTS = f"""
    SELECT skill_id, wire_digest FROM (
        SELECT skill_id, wire_digest FROM skill_base AS b
        WHERE page = %(page)s AND deleted_at IS NULL
            AND NOT EXISTS (SELECT FROM skill_offer AS o WHERE o.skill_id = b.skill_id)
        UNION ALL SELECT skill_id, wire_digest FROM skill_offer WHERE page = %(page)s
    ) AS listed
    WHERE wire_digest <> ''::bytea
        AND NOT EXISTS (SELECT FROM conflict_log AS w WHERE w.skill_id = listed.skill_id AND {OPEN})
"""  # noqa: S608 - constants
_IDS = """
    SELECT skill_id FROM skill_base WHERE page = %(page)s UNION SELECT skill_id FROM skill_offer WHERE page = %(page)s
"""
_LISTED = ("skill_base", "skill_offer")
_LEAVE_PAGE = """
    UPDATE {table} AS t SET
        confirmed_at = greatest(
            t.confirmed_at, (SELECT v.checked_at FROM http_validator AS v WHERE v.page = t.page)),
        page = NULL
"""
_VALIDATE = f"""
    INSERT INTO http_validator (resource, etag, page, items, total, checked_at, read_at)
    VALUES (%(resource)s,
        CASE WHEN (SELECT count(*) FROM ({_IDS}) AS here WHERE skill_id = ANY(%(ids)b)) = %(number)s THEN %(etag)s END,
        %(page)s, %(number)s, %(total)s, %(now)s, %(now)s)
    ON CONFLICT (resource) DO UPDATE SET (etag, items, total, checked_at, read_at)
        = (excluded.etag, excluded.items, excluded.total, excluded.checked_at, excluded.read_at)
"""  # noqa: S608 - constants
_COME_TO_PAGE = """
    UPDATE {table} SET page = %(page)s, confirmed_at = %(now)s
    WHERE skill_id = ANY(%(ids)b) AND page IS DISTINCT FROM %(page)s
"""


def page_records(database: Connection, list_key: str) -> dict[int, PageRecord]:
    """Return the stored pages of the list that `list_key` names."""
    rows = database.ask(
        "SELECT page, etag, items, total, read_at FROM http_validator "
        "WHERE page IS NOT NULL AND resource = %s || page::text",
        (list_key,),
    )
    return {row["page"]: PageRecord(row["etag"], row["items"], row["total"], row["read_at"]) for row in rows}


def has_other_lists(database: Connection, list_key: str) -> bool:
    """Tell whether pages of another list than `list_key` are stored."""
    query = "SELECT FROM http_validator WHERE page IS NOT NULL AND resource <> %s || page::text LIMIT 1"
    return bool(database.ask(query, (list_key,)))


def ids_on_page(database: Connection, page: int) -> list[str]:
    """Return the skills that were last seen on `page`."""
    return [row[0] for row in database.ask(_IDS, {"page": page})]


def digests_on_page(database: Connection, page: int) -> dict[bytes, str]:
    """Return the skill of each wire digest on `page`, without skills with an open conflict."""
    return {row["wire_digest"]: row["skill_id"] for row in database.ask(_DIGESTS, {"page": page})}


def leave_pages(connection: psycopg.Connection[Row], first: int) -> None:
    """Forget the pages from `first` on; their skills keep their time of confirmation."""
    for table in _LISTED:
        connection.execute(f"{_LEAVE_PAGE.format(table=table)} WHERE page >= %s", (first,))
    connection.execute("DELETE FROM http_validator WHERE page >= %s", (first,))


def confirm_page(connection: psycopg.Connection[Row], page: int, now: datetime) -> None:
    """Record that the marketplace has confirmed a page, and so every skill on it, as unchanged."""
    connection.execute("UPDATE http_validator SET checked_at = %s WHERE page = %s", (now.replace(microsecond=0), page))


def record_page(
    connection: psycopg.Connection[Row],
    page: int,
    ids: AbstractSet[str],
    *,
    list_key: str,
    etag: str | None,
    total: int | None,
    now: datetime,
) -> None:
    """Record, as the last step, that a page was stored: its validator and its skills.

    If one of them has neither base nor offer, because it was purged after the page was read, the page gets no
    validator, so it will be read completely.
    """
    moment = now.replace(microsecond=0)
    values = {
        "page": page,
        "ids": list(ids),
        "number": len(ids),
        "now": moment,
        "resource": f"{list_key}{page}",
        "etag": etag,
        "total": total,
    }
    for table in _LISTED:
        connection.execute(
            f"{_LEAVE_PAGE.format(table=table)} WHERE page = %(page)s AND skill_id <> ALL(%(ids)b)", values
        )
        connection.execute(_COME_TO_PAGE.format(table=table), values)
    connection.execute(_VALIDATE, values)
