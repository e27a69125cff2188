"""Reading the cache: list, search, one skill; and counting the reads.

Everything is read through the view `usable_skill`, the one door for readers (data-model.md, rule 12).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from atom_saas_sync.model import TIME_TO_LIVE, CachedSkill
from atom_saas_sync.store.counters import increment
from atom_saas_sync.store.database import Database
from atom_saas_sync.times import format_time

Sort = Literal["rating", "name", "updated"]
ReadResult = Literal["hit", "miss", "stale"]

# How long counting a read may wait for another program that writes.
_COUNT_WAIT_MILLISECONDS = 25
# Beyond so many matches a query is made of words that are everywhere: ranking them all would cost more than it tells.
_MOST_RANKED = 2000
_MOST_TERMS = 32
# A shorter beginning of a word fits so many words of code that it is not looked for there.
_SHORTEST_PREFIX = 4
_RANK = "bm25(skill_fts, 10.0, 3.0, 5.0, 3.0, 1.0)"

_ROW = """
    u.skill_id, u.name, u.version, u.category, u.skill_data, u.source, u.confirmed_at,
    (u.source = 'marketplace' AND u.confirmed_at < :oldest) AS stale
"""
_FILTER = """
    (:category IS NULL OR u.category = :category COLLATE NOCASE)
    AND (:tag IS NULL OR (json_valid(u.skill_data) AND EXISTS (
        SELECT 1 FROM json_each(u.skill_data, '$.tags') WHERE value = :tag COLLATE NOCASE)))
    AND (NOT :modified OR u.source != 'marketplace')
"""
# What the view hides: edited here and deleted there. To count without looking each row up in the view.
_HIDDEN = """
    SELECT c.id FROM skill_base AS b JOIN skill_cache AS c ON c.skill_id = b.skill_id
    WHERE b.data IS NOT NULL AND b.deleted_at IS NOT NULL
"""
_ORDER = {
    "name": "u.name COLLATE NOCASE, u.skill_id",
    "rating": """
        CASE WHEN json_valid(u.skill_data) THEN json_extract(u.skill_data, '$.average_rating') END DESC,
        CASE WHEN json_valid(u.skill_data) THEN json_extract(u.skill_data, '$.rating_count') END DESC, u.skill_id
    """,
    "updated": """
        CASE WHEN json_valid(u.skill_data) THEN json_extract(u.skill_data, '$.updated_at') END DESC, u.skill_id
    """,
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which skills are asked for: each given condition must hold."""

    category: str | None = None
    tag: str | None = None
    modified: bool = False

    @property
    def everything(self) -> bool:
        """Tell whether there is no condition."""
        return self.category is None and self.tag is None and not self.modified


class Reading:
    """Reads skills; `now` decides what is stale."""

    def __init__(self, database: Database, *, now: datetime) -> None:
        self._database = database
        self._now = now

    def list_skills(self, wanted: Wanted, *, sort: Sort = "name", limit: int | None = None) -> list[CachedSkill]:
        """Return the skills that fit, `limit` of them at most."""
        with self._database.reading() as connection:
            # Order the ids first: sorting whole skills would move them all through memory.
            ids = connection.execute(
                f"SELECT c.id FROM usable_skill AS u JOIN skill_cache AS c ON c.skill_id = u.skill_id "  # noqa: S608 - constants
                f"WHERE {_FILTER} ORDER BY {_ORDER[sort]} LIMIT :limit",
                {**self._values(wanted), "limit": -1 if limit is None else limit},
            ).fetchall()
            return list(self._fetch(connection, [row[0] for row in ids], self._values(wanted)))

    def count(self, wanted: Wanted) -> int:
        """Return how many skills fit."""
        with self._database.reading() as connection:
            if wanted.everything:
                return _number(connection, f"SELECT (SELECT count(*) FROM skill_cache) - count(*) FROM ({_HIDDEN})", {})  # noqa: S608 - constants
            return _number(
                connection,
                f"SELECT count(*) FROM usable_skill AS u WHERE {_FILTER}",  # noqa: S608 - constants
                self._values(wanted),
            )

    def search(
        self, text: str, wanted: Wanted, *, sort: Sort | None = None, limit: int | None = None
    ) -> tuple[list[CachedSkill], int]:
        """Return the skills that hold every word of `text`, the best first unless `sort`; and how many there are.

        The last word may be the beginning of one. Nothing in `text` has a special meaning.
        """
        expression = match_expression(text, wanted)
        if expression is None:
            return [], 0
        values = {**self._values(wanted), "match": expression}
        with self._database.reading() as connection:
            total = self._count_found(connection, values, wanted)
            if sort is not None:
                found = connection.execute(
                    f"""
                    SELECT {_ROW} FROM usable_skill AS u
                    WHERE u.skill_id IN (SELECT skill_id FROM skill_cache WHERE id IN (
                        SELECT rowid FROM skill_fts WHERE skill_fts MATCH :match)) AND {_FILTER}
                    ORDER BY {_ORDER[sort]} LIMIT :limit
                    """,  # noqa: S608 - constants
                    {**values, "limit": -1 if limit is None else limit},
                )
                return [_skill(row) for row in found], total
            wanted_rows = total if limit is None else min(limit, total)
            skills: list[CachedSkill] = []
            for ids in _ranked(connection, expression, total, wanted_rows):
                skills += self._fetch(connection, ids, values)
                if len(skills) >= wanted_rows:
                    break
            return skills[:wanted_rows], total

    def skill(self, skill_id: str) -> CachedSkill | None:
        """Return one skill, None if there is none."""
        with self._database.reading() as connection:
            row = connection.execute(
                f"SELECT {_ROW} FROM usable_skill AS u WHERE u.skill_id = :skill_id",  # noqa: S608 - constants
                {**self._values(Wanted()), "skill_id": skill_id},
            ).fetchone()
            return None if row is None else _skill(row)

    def count_read(self, skills: Sequence[CachedSkill]) -> None:
        """Count one read that found these skills, or nothing.

        A read must not fail or wait noticeably because another program is writing, and one read more or less does not
        matter: if the database is busy, or may not be written at all, this gives up in silence.
        """
        result: ReadResult = "miss"
        if skills:
            result = "stale" if any(skill.stale for skill in skills) else "hit"
        connection = self._database.connection
        before = connection.execute("PRAGMA busy_timeout").fetchone()[0]
        connection.execute(f"PRAGMA busy_timeout = {_COUNT_WAIT_MILLISECONDS}")
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "UPDATE skill_cache SET hit_count = hit_count + 1, last_hit_at = ? WHERE skill_id = ?",
                [(format_time(self._now), skill.skill_id) for skill in skills],
            )
            increment(connection, "atom_saas_cache_requests_total", result=result)
            connection.execute("COMMIT")
        except sqlite3.OperationalError:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        finally:
            connection.execute(f"PRAGMA busy_timeout = {int(before)}")

    def _values(self, wanted: Wanted) -> dict[str, Any]:
        return {
            "category": wanted.category,
            "tag": wanted.tag,
            "modified": wanted.modified,
            "oldest": format_time(self._now - TIME_TO_LIVE),
        }

    def _count_found(self, connection: sqlite3.Connection, values: Mapping[str, Any], wanted: Wanted) -> int:
        if not wanted.everything:
            return _number(
                connection,
                f"""
                SELECT count(*) FROM usable_skill AS u WHERE u.skill_id IN (
                    SELECT skill_id FROM skill_cache WHERE id IN (
                        SELECT rowid FROM skill_fts WHERE skill_fts MATCH :match)) AND {_FILTER}
                """,  # noqa: S608 - constants
                values,
            )
        return _number(
            connection,
            f"SELECT count(*) FROM skill_fts WHERE skill_fts MATCH :match AND rowid NOT IN ({_HIDDEN})",  # noqa: S608 - constants
            values,
        )

    def _fetch(
        self, connection: sqlite3.Connection, ids: Sequence[int], values: Mapping[str, Any]
    ) -> Iterator[CachedSkill]:
        rows = connection.execute(
            f"""
            SELECT {_ROW} FROM json_each(:ids) AS wanted
            CROSS JOIN skill_cache AS c ON c.id = wanted.value
            JOIN usable_skill AS u ON u.skill_id = c.skill_id
            WHERE {_FILTER} ORDER BY wanted.key
            """,  # noqa: S608 - constants
            {**values, "ids": json.dumps(ids)},
        )
        return (_skill(row) for row in rows)


def match_expression(text: str, wanted: Wanted | None = None) -> str | None:
    """Return the full-text expression for the words of `text`, all quoted; None if there is no word.

    What is wanted besides narrows the search, so that few rows are left to be looked at one by one.
    """
    words = _clean(text).split()[:_MOST_TERMS]
    if not words:
        return None
    *whole, last = map(_quoted, words)
    letters = sum(map(str.isalnum, words[-1]))
    if letters >= _SHORTEST_PREFIX:
        last = f"{last} *"
    elif letters > 1:
        last = f"({last} OR {{name description tags category}} : {last} *)"
    narrower = []
    # Lists are indexed as JSON text, in which other characters may be written in several ways.
    if wanted is not None and wanted.tag and wanted.tag.isascii() and wanted.tag.isalnum():
        narrower.append(f"{{tags}} : {_quoted(wanted.tag)}")
    if wanted is not None and wanted.category and wanted.category.isascii() and wanted.category.isalnum():
        narrower.append(f"{{category}} : {_quoted(wanted.category)}")
    return " AND ".join([*narrower, *whole, last])


def _quoted(word: str) -> str:
    doubled = word.replace('"', '""')
    return f'"{doubled}"'


def _clean(text: str) -> str:
    """Return `text` without what SQLite's texts can't hold: NUL, and half characters from odd command lines."""
    return text.replace("\0", " ").encode(errors="replace").decode()


def _ranked(connection: sqlite3.Connection, expression: str, total: int, wanted: int) -> Iterator[list[int]]:
    """Yield row ids, the best first, in slices; of too many, those with the words in their name come before all."""
    seen: set[int] = set()
    tiers = [expression] if total <= _MOST_RANKED else [f"{{name}} : ({expression})", expression]
    for tier in tiers:
        rows = connection.execute(
            f"SELECT id FROM (SELECT rowid AS id, {_RANK} AS score FROM skill_fts WHERE skill_fts MATCH ? LIMIT ?) "  # noqa: S608
            "ORDER BY score, id",
            (tier, max(_MOST_RANKED, wanted)),
        )
        ids = [row[0] for row in rows if row[0] not in seen]
        seen.update(ids)
        # With a filter many may fall out: the first slice is small, for the common case of none.
        step = max(wanted * 2, 50)
        yield from (ids[start : start + step] for start in range(0, len(ids), step))
    if total > len(seen):
        # A filter leaves fewer than were asked for among the best: take the rest as it comes.
        rest = [
            row[0] for row in connection.execute("SELECT rowid FROM skill_fts WHERE skill_fts MATCH ?", (expression,))
        ]
        yield [each for each in rest if each not in seen]


def _skill(row: sqlite3.Row) -> CachedSkill:
    return CachedSkill(
        skill_id=row["skill_id"],
        text=row["skill_data"],
        source=row["source"],
        confirmed_at=row["confirmed_at"],
        stale=bool(row["stale"]),
    )


def _number(connection: sqlite3.Connection, query: str, values: Mapping[str, Any]) -> int:
    number: int = connection.execute(query, values).fetchone()[0]
    return number
