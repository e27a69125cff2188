"""The cached categories."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import psycopg

from atom_saas_sync.model import TIME_TO_LIVE, Category
from atom_saas_sync.store.postgresql.rows import Row

_EXPIRY_SLACK = timedelta(hours=1)  # not each row at each run: the server keeps every version of a row until vacuum


def apply_categories(
    connection: psycopg.Connection[Row],
    categories: Sequence[Category] | None,
    *,
    whole: bool,
    resource: str,
    etag: str | None,
    now: datetime,
) -> int:
    """Store the listed categories (None: unchanged); return how many changed.

    Unlisted ones are removed if the `whole` list was read. An empty list removes nothing: it does not prove that all
    were deleted.
    """
    changed = 0
    moment = now.replace(microsecond=0)
    if categories is not None:
        changed = _write_categories(connection, categories, moment, whole=whole)
        connection.execute(
            "INSERT INTO http_validator (resource, etag, checked_at) VALUES (%s, %s, %s) ON CONFLICT (resource) "
            "DO UPDATE SET (etag, checked_at) = (excluded.etag, excluded.checked_at)",
            (resource, etag, moment),
        )
    until = moment + TIME_TO_LIVE
    connection.execute(
        "UPDATE category_cache SET expires_at = %s WHERE expires_at NOT BETWEEN %s AND %s",
        (until, until - _EXPIRY_SLACK, until),
    )
    return changed


def changed_categories(connection: psycopg.Connection[Row], categories: Sequence[Category], *, whole: bool) -> int:
    """Return how many categories `apply_categories` would change."""
    rows = connection.execute("SELECT category_name, category_data FROM category_cache").fetchall()
    stored: dict[str, str] = dict(rows)
    listed = {category.name: category.text for category in categories}
    gone = len(stored.keys() - listed.keys()) if listed and whole else 0
    return gone + sum(1 for name, text in listed.items() if stored.get(name) != text)


def _write_categories(
    connection: psycopg.Connection[Row], categories: Sequence[Category], moment: datetime, *, whole: bool
) -> int:
    listed = {category.name: category.text for category in categories}
    changed = connection.execute(
        """
        INSERT INTO category_cache AS c (category_name, category_data, created_at, updated_at)
        SELECT name, data, %(now)s, %(now)s FROM unnest(%(names)s::text[], %(texts)s::text[]) AS new (name, data)
        ON CONFLICT (category_name) DO UPDATE
            SET (category_data, updated_at) = (excluded.category_data, excluded.updated_at)
        WHERE c.category_data IS DISTINCT FROM excluded.category_data
        """,
        {"now": moment, "names": list(listed), "texts": list(listed.values())},
    ).rowcount
    if categories and whole:
        changed += connection.execute(
            "DELETE FROM category_cache WHERE category_name <> ALL(%s)", (list(listed),)
        ).rowcount
    return changed
