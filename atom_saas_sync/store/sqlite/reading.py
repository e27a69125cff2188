"""Read the cache: lists, searches, single skills; count the reads.

Everything is read through the view `usable_skill`, the one door for readers (docs/API_DOCUMENTATION.md).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from atom_saas_sync.core.scripts import folded
from atom_saas_sync.model import BEST_RATING, LARGEST_COUNT, TIME_TO_LIVE, CachedSkill, SkillFilter, Sort
from atom_saas_sync.store.sqlite.counters import increment
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.store.sqlite.search_index import FOLDED, have_tokens, spaced
from atom_saas_sync.times import format_time, parse_time

ReadResult = Literal["hit", "miss", "stale"]

# Maximum time that counting a read may wait for a writer.
_COUNT_WAIT_MILLISECONDS = 25
# With more matches than this, the words are too common for ranking all of them.
_MOST_RANKED = 2000
_MOST_TERMS = 32
# A shorter prefix matches too many words of code to be searched there.
_SHORTEST_PREFIX = 4
_MOMENT = "atom_sync_moment"
_RANK = "bm25(skill_fts, 10.0, 3.0, 5.0, 3.0, 1.0)"

_ROW = """
    u.skill_id, u.name, u.version, u.category, CAST(u.skill_data AS TEXT) AS skill_data, u.source, u.confirmed_at,
    (u.source = 'marketplace' AND u.confirmed_at < :oldest) AS stale
"""
_FILTER = f"""
    (:category IS NULL OR {FOLDED}(CAST(u.category AS BLOB)) = :category)
    AND (:tag IS NULL OR (json_valid(u.skill_data) AND EXISTS (
        SELECT 1 FROM json_each(u.skill_data, '$.tags') WHERE {FOLDED}(CAST(atom AS BLOB)) = :tag)))
    AND (NOT :modified OR u.source != 'marketplace')
"""  # noqa: S608 - built from constants
# Names that contain all of the words.
_NAMED = f"""
    NOT EXISTS (SELECT 1 FROM json_each(:words) WHERE NOT instr(coalesce({FOLDED}(CAST(u.name AS BLOB)), ''), value))
"""  # noqa: S608 - built from constants
# Rows that the view hides (edited here, deleted there), to count without looking up each row in the view.
_HIDDEN = """
    SELECT c.id FROM skill_base AS b JOIN skill_cache AS c ON c.skill_id = b.skill_id
    WHERE b.data IS NOT NULL AND b.deleted_at IS NOT NULL
"""
_AVERAGE, _COUNT, _UPDATED = (
    f"CASE WHEN json_valid(u.skill_data) THEN json_extract(u.skill_data, '$.{name}') END"
    for name in ("average_rating", "rating_count", "updated_at")
)


def _figure(value: str, largest: int) -> str:
    """Return the SQL for a value if it is a number from 0 to `largest`, else NULL."""
    return f"CASE WHEN typeof({value}) IN ('integer', 'real') AND {value} BETWEEN 0 AND {largest} THEN {value} END"


_ORDER = {
    "name": f"{FOLDED}(CAST(u.name AS BLOB)), u.skill_id",
    "rating": f"""
        {_figure(_AVERAGE, BEST_RATING)} DESC NULLS LAST,
        {_figure(_COUNT, LARGEST_COUNT)} DESC NULLS LAST, u.skill_id
    """,
    # Text is passed to our function as a blob: it may be invalid UTF-8.
    "updated": f"""
        {_MOMENT}(CASE WHEN typeof({_UPDATED}) = 'text' THEN CAST({_UPDATED} AS BLOB) ELSE {_UPDATED} END)
        DESC NULLS LAST, u.skill_id
    """,
}


class Reading:
    """Reads skills; `now` decides what is stale."""

    def __init__(self, database: Database, *, now: datetime) -> None:
        self._database = database
        self._now = now
        database.connection.create_function(_MOMENT, 1, _moment, deterministic=True)

    def list_skills(self, wanted: SkillFilter, *, sort: Sort = "name", limit: int | None = None) -> list[CachedSkill]:
        """Return the matching skills, at most `limit`."""
        with self._database.reading() as connection:
            # Sort the ids first: sorting whole skills would load them all into memory.
            ids = connection.execute(
                f"SELECT c.id FROM usable_skill AS u JOIN skill_cache AS c ON c.skill_id = u.skill_id "  # noqa: S608 - constants
                f"WHERE {_FILTER} ORDER BY {_ORDER[sort]} LIMIT :limit",
                {**self._values(wanted), "limit": -1 if limit is None else limit},
            ).fetchall()
            return list(self._fetch(connection, [row[0] for row in ids], self._values(wanted)))

    def count(self, wanted: SkillFilter) -> int:
        """Return the number of matching skills."""
        with self._database.reading() as connection:
            if wanted.everything and not _keeps_back(connection):
                return _number(connection, f"SELECT (SELECT count(*) FROM skill_cache) - count(*) FROM ({_HIDDEN})", {})  # noqa: S608 - constants
            return _number(
                connection,
                f"SELECT count(*) FROM usable_skill AS u WHERE {_FILTER}",  # noqa: S608 - constants
                self._values(wanted),
            )

    def search(
        self, text: str, wanted: SkillFilter, *, sort: Sort | None = None, limit: int | None = None
    ) -> tuple[list[CachedSkill], int]:
        """Return the skills with every word of `text`, and how many there are."""
        expression = match_expression(text, wanted)
        if expression is None:
            return self._search_names(_clean(text).split()[:_MOST_TERMS], wanted, sort=sort or "name", limit=limit)
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

    def _search_names(
        self, words: Sequence[str], wanted: SkillFilter, *, sort: Sort, limit: int | None
    ) -> tuple[list[CachedSkill], int]:
        if not words:
            return [], 0
        values = {**self._values(wanted), "words": json.dumps([folded(word) for word in words])}
        with self._database.reading() as connection:
            ids = connection.execute(
                f"SELECT c.id FROM usable_skill AS u JOIN skill_cache AS c ON c.skill_id = u.skill_id "  # noqa: S608 - constants
                f"WHERE {_NAMED} AND {_FILTER} ORDER BY {_ORDER[sort]}",
                values,
            ).fetchall()
            return list(self._fetch(connection, [row[0] for row in ids[:limit]], values)), len(ids)

    def skill(self, skill_id: str) -> CachedSkill | None:
        """Return one skill, None if there is none."""
        with self._database.reading() as connection:
            row = connection.execute(
                f"SELECT {_ROW} FROM usable_skill AS u WHERE u.skill_id = :skill_id",  # noqa: S608 - constants
                {**self._values(SkillFilter()), "skill_id": skill_id},
            ).fetchone()
            return None if row is None else _skill(row)

    def count_read(self, skills: Sequence[CachedSkill]) -> None:
        """Count one read, unless another program is writing: the number need not be exact."""
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

    def _values(self, wanted: SkillFilter) -> dict[str, Any]:
        return {
            "category": None if wanted.category is None else folded(_clean(wanted.category)),
            "tag": None if wanted.tag is None else folded(_clean(wanted.tag)),
            "modified": wanted.modified,
            "oldest": format_time(self._now - TIME_TO_LIVE),
        }

    def _count_found(self, connection: sqlite3.Connection, values: Mapping[str, Any], wanted: SkillFilter) -> int:
        if not wanted.everything or _keeps_back(connection):
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


def _keeps_back(connection: sqlite3.Connection) -> bool:
    """Tell whether the view may hide cached rows because of a quarantine or a revocation: then the view must count."""
    query = "SELECT EXISTS (SELECT 1 FROM gate_quarantine) OR EXISTS (SELECT 1 FROM gate_revocation)"
    return bool(_number(connection, query, {}))


def match_expression(text: str, wanted: SkillFilter | None = None) -> str | None:
    """Return the full-text expression for the words of `text`, all quoted; None if there is no word.

    The filter narrows the search, so that few rows must be checked one by one.
    """
    words = _clean(text).split()[:_MOST_TERMS]
    *whole, last = [word for word, kept in zip(words, have_tokens(words), strict=True) if kept] or [""]
    if not last:
        return None
    narrower = []
    # Lists are indexed as JSON text, which can spell other characters in several ways.
    if wanted is not None and wanted.tag and wanted.tag.isascii() and wanted.tag.isalnum():
        narrower.append(f"{{tags}} : {_quoted(wanted.tag)}")
    if wanted is not None and wanted.category and wanted.category.isascii() and wanted.category.isalnum():
        narrower.append(f"{{category}} : {_quoted(wanted.category)}")
    terms = [_either(map(_quoted, _spellings(word))) for word in whole]
    return " AND ".join([*narrower, *terms, _either(map(_beginning, _spellings(last)))])


def _spellings(word: str) -> list[str]:
    """Return the spellings of a word in the index: unchanged, composed, decomposed, and with separated characters."""
    if word.isascii():
        return [word]
    import unicodedata

    return list(
        dict.fromkeys(spaced(each) for each in (word, *(unicodedata.normalize(f, word) for f in ("NFC", "NFD"))))
    )


def _either(terms: Iterable[str]) -> str:
    joined = " OR ".join(terms)
    return f"({joined})" if " OR " in joined else joined


def _beginning(word: str) -> str:
    """Return the expression for a word as a prefix."""
    letters = sum(map(str.isalnum, word.rsplit(maxsplit=1)[-1]))
    if letters >= _SHORTEST_PREFIX:
        return f"{_quoted(word)} *"
    if letters > 1:
        return f"{_quoted(word)} OR {{name description tags category}} : {_quoted(word)} *"
    return _quoted(word)


def _quoted(word: str) -> str:
    doubled = word.replace('"', '""')
    return f'"{doubled}"'


def _clean(text: str) -> str:
    """Return `text` without what SQLite's texts can't contain: NUL, and lone surrogates from odd command lines."""
    return text.replace("\0", " ").encode(errors="replace").decode()


def _ranked(connection: sqlite3.Connection, expression: str, total: int, wanted: int) -> Iterator[list[int]]:
    """Yield row ids in slices, best first; if there are too many, those with the words in their name come first."""
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
        # A filter may drop many rows; the first slice is small for the common case that it drops none.
        step = max(wanted * 2, 50)
        yield from (ids[start : start + step] for start in range(0, len(ids), step))
    if total > len(seen):
        # The filter left fewer of the best than requested: take the rest in any order.
        rest = [
            row[0] for row in connection.execute("SELECT rowid FROM skill_fts WHERE skill_fts MATCH ?", (expression,))
        ]
        yield [each for each in rest if each not in seen]


def _skill(row: sqlite3.Row) -> CachedSkill:
    return CachedSkill(
        skill_id=row["skill_id"],
        text=row["skill_data"],
        source=row["source"],
        confirmed_at=parse_time(row["confirmed_at"]),
        stale=bool(row["stale"]),
    )


def _moment(value: bytes | float | None) -> float | None:
    moment = parse_time(value.decode(errors="replace") if isinstance(value, bytes) else value)
    return None if moment is None else moment.timestamp()


def _number(connection: sqlite3.Connection, query: str, values: Mapping[str, Any]) -> int:
    number: int = connection.execute(query, values).fetchone()[0]
    return number
