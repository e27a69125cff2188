"""The cached categories."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime

from atom_saas_sync.model import TIME_TO_LIVE, Category
from atom_saas_sync.times import format_time


def apply_categories(
    connection: sqlite3.Connection,
    categories: Sequence[Category] | None,
    *,
    whole: bool,
    resource: str,
    etag: str | None,
    now: datetime,
) -> int:
    """Store the marketplace's categories (None: unchanged); return how many changed.

    If the `whole` list was read, other categories are removed. An empty list removes nothing: it does not prove that
    all were deleted.
    """
    changed = 0
    if categories is not None:
        changed = _write_categories(connection, categories, format_time(now), whole=whole)
        connection.execute(
            "INSERT INTO http_validator (resource, etag, checked_at) VALUES (?, ?, ?) ON CONFLICT (resource) "
            "DO UPDATE SET etag = excluded.etag, checked_at = excluded.checked_at",
            (resource, etag, format_time(now)),
        )
    connection.execute("UPDATE category_cache SET expires_at = ?", (format_time(now + TIME_TO_LIVE),))
    return changed


def changed_categories(connection: sqlite3.Connection, categories: Sequence[Category], *, whole: bool) -> int:
    """Return how many categories `apply_categories` would change."""
    stored = dict(connection.execute("SELECT category_name, category_data FROM category_cache").fetchall())
    listed = {category.name: category.text for category in categories}
    gone = len(stored.keys() - listed.keys()) if listed and whole else 0
    return gone + sum(1 for name, text in listed.items() if stored.get(name) != text)


def _write_categories(
    connection: sqlite3.Connection, categories: Sequence[Category], moment: str, *, whole: bool
) -> int:
    changed = 0
    for category in categories:
        cursor = connection.execute(
            """
            INSERT INTO category_cache (category_name, category_data, created_at, updated_at) VALUES (?1, ?2, ?3, ?3)
            ON CONFLICT (category_name) DO UPDATE SET category_data = excluded.category_data, updated_at = ?3
            WHERE category_data IS NOT excluded.category_data
            """,
            (category.name, category.text, moment),
        )
        changed += cursor.rowcount
    if categories and whole:
        names = json.dumps([category.name for category in categories])
        changed += connection.execute(
            "DELETE FROM category_cache WHERE category_name NOT IN (SELECT value FROM json_each(?))", (names,)
        ).rowcount
    return changed
