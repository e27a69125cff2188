"""Read the cache: list, search and single skills; count reads.

Everything is read through the view `usable_skill`, as by all readers (data-model.md, rule 12).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, Literal

import psycopg

from atom_saas_sync.core.scripts import folded
from atom_saas_sync.errors import DatabaseError
from atom_saas_sync.model import TIME_TO_LIVE, CachedSkill, SkillFilter, Sort
from atom_saas_sync.store.postgresql.counters import increment
from atom_saas_sync.store.postgresql.database import Database
from atom_saas_sync.store.postgresql.rows import Row
from atom_saas_sync.store.postgresql.skill_text import is_due, read_due
from atom_saas_sync.store.postgresql.words import Terms, terms

ReadResult = Literal["hit", "miss", "stale"]

# Maximum time to wait for a writer when counting a read or extracting texts that others wrote.
_WAIT_SECONDS = 0.025
# Above this number of matches, the words are too common for ranking to be worth its cost.
_MOST_RANKED = 2000
_MOST_TERMS = 32

_ROW = """
    u.skill_id, u.skill_data, u.source, u.confirmed_at,
    (u.source = 'marketplace' AND u.confirmed_at < %(oldest)s) AS stale
"""
_FILTER = """
    (%(category)s::text IS NULL OR t.category_key = %(category)s)
    AND (%(tag)s::text IS NULL OR %(tag)s = ANY(t.tag_keys))
    AND (NOT %(modified)s OR u.source <> 'marketplace')
"""
_JOINED = "usable_skill AS u LEFT JOIN skill_text AS t ON t.skill_id = u.skill_id"
_ORDER = {
    "name": "t.name_key NULLS FIRST, u.skill_id",
    "rating": "t.average_rating DESC NULLS LAST, t.rating_count DESC NULLS LAST, u.skill_id",
    "updated": "t.sent_moment DESC NULLS LAST, u.skill_id",
}
_RANK = "ts_rank('{0, 0.3, 0.5, 1}', t.head, %(any)s::tsquery)"
_NAMED_FIRST = "t.head @@ %(in_name)s::tsquery DESC"
# Names that contain all of the words.
_NAMED = "NOT EXISTS (SELECT FROM unnest(%(words)s::text[]) AS w WHERE strpos(coalesce(t.name_key, ''), w) = 0)"


class Reading:
    """Reads skills; `now` decides what is stale."""

    def __init__(self, database: Database, *, now: datetime) -> None:
        self._database = database
        self._now = now

    def list_skills(self, wanted: SkillFilter, *, sort: Sort = "name", limit: int | None = None) -> list[CachedSkill]:
        """Return the matching skills, at most `limit`."""
        with self._reading() as connection:
            return self._listed(connection, _FILTER, _ORDER[sort], {**self._values(wanted), "limit": limit})

    def count(self, wanted: SkillFilter) -> int:
        """Return the number of matching skills."""
        with self._reading() as connection:
            return _count(connection, _FILTER, self._values(wanted))

    def search(
        self, text: str, wanted: SkillFilter, *, sort: Sort | None = None, limit: int | None = None
    ) -> tuple[list[CachedSkill], int]:
        """Return the skills with every word of `text`, and their number."""
        found = terms(text)
        if found is None:
            return self._search_names(text.replace("\0", " ").split()[:_MOST_TERMS], wanted, sort=sort, limit=limit)
        values = {**self._values(wanted), **_queries(found), "limit": limit}
        # The index first, once: the planner cannot estimate the view's conditions, and would read each row's words.
        matching = f"SELECT skill_id FROM skill_text AS t WHERE {_condition(found)}"  # noqa: S608 - constants
        where = f"u.skill_id = ANY(ARRAY({matching})) AND {_FILTER}"
        with self._reading() as connection:
            # The planner does not know the cost of reading the words of each row.
            connection.execute("SET LOCAL enable_seqscan = off")
            total = _count(connection, where, values)
            if sort is not None:
                order = _ORDER[sort]
            else:
                order = f"{_NAMED_FIRST if total > _MOST_RANKED else f'{_RANK} DESC'}, u.skill_id"
            return self._listed(connection, where, order, values), total

    def _search_names(
        self, words: Sequence[str], wanted: SkillFilter, *, sort: Sort | None, limit: int | None
    ) -> tuple[list[CachedSkill], int]:
        if not words:
            return [], 0
        values = {**self._values(wanted), "words": [folded(word) for word in words], "limit": limit}
        where = f"{_NAMED} AND {_FILTER}"
        with self._reading() as connection:
            return self._listed(connection, where, _ORDER[sort or "name"], values), _count(connection, where, values)

    def skill(self, skill_id: str) -> CachedSkill | None:
        """Return one skill, None if there is none."""
        with self._database.reading() as connection:
            values = {**self._values(SkillFilter()), "skill_id": skill_id}
            row = connection.execute(
                f"SELECT {_ROW} FROM usable_skill AS u WHERE u.skill_id = %(skill_id)s",  # noqa: S608 - constants
                values,
            ).fetchone()
            return None if row is None else _skill(row)

    def count_read(self, skills: Sequence[CachedSkill]) -> None:
        """Count one read, unless another program is writing: the exact number does not matter."""
        result: ReadResult = "miss"
        if skills:
            result = "stale" if any(skill.stale for skill in skills) else "hit"
        ids = sorted({skill.skill_id for skill in skills})
        with (
            suppress(DatabaseError),  # a standby, a read-only role, or another writer
            self._database.transaction(durable=False, wait_seconds=_WAIT_SECONDS) as connection,
        ):
            connection.execute(
                "UPDATE skill_cache SET hit_count = hit_count + 1, last_hit_at = %s WHERE skill_id = ANY(%s)",
                (self._now.replace(microsecond=0), ids),
            )
            increment(connection, "atom_saas_cache_requests_total", result=result)

    @contextmanager
    def _reading(self) -> Iterator[psycopg.Connection[Row]]:
        """Open a snapshot in which all texts have been extracted, if possible."""
        with self._database.reading() as connection:
            if not is_due(connection):
                yield connection
                return
        with (
            suppress(
                DatabaseError
            ),  # as above: texts of other programs are listed, and found once they have been extracted
            self._database.transaction(durable=False, wait_seconds=_WAIT_SECONDS) as connection,
        ):
            read_due(connection)
        with self._database.reading() as connection:
            yield connection

    def _listed(
        self, connection: psycopg.Connection[Row], where: str, order: str, values: dict[str, Any]
    ) -> list[CachedSkill]:
        rows = connection.execute(
            f"SELECT {_ROW} FROM {_JOINED} WHERE {where} ORDER BY {order} LIMIT %(limit)s",  # noqa: S608 - constants
            values,
        )
        return [_skill(row) for row in rows]

    def _values(self, wanted: SkillFilter) -> dict[str, Any]:
        return {
            "category": None if wanted.category is None else folded(wanted.category),
            "tag": None if wanted.tag is None else folded(wanted.tag),
            "modified": wanted.modified,
            "oldest": self._now - TIME_TO_LIVE,
        }


def _count(connection: psycopg.Connection[Row], where: str, values: dict[str, Any]) -> int:
    row = connection.execute(f"SELECT count(*) FROM {_JOINED} WHERE {where}", values).fetchone()  # noqa: S608 - constants
    assert row is not None
    return int(row[0])


def _condition(found: Terms) -> str:
    """Return the condition for a skill with all words; two conditions if only the head is searched for a prefix."""
    if found.prefix != "head":
        return "t.words @@ %(query)s::tsquery"
    last = "(t.words @@ %(last)s::tsquery OR t.head @@ %(query)s::tsquery)"
    return f"t.words @@ %(whole)s::tsquery AND {last}" if found.whole else last


def _queries(found: Terms) -> dict[str, str]:
    """Return the queries; words consist of letters and digits, so they need no escaping within quotes."""
    last = (*found.before, found.last)
    beginning = (*map(_quoted, found.before), f"{_quoted(found.last)}:*")
    whole = [_quoted(word) for word in found.whole]
    ends = beginning if found.prefix else [_quoted(word) for word in last]
    return {
        "whole": " & ".join(whole),
        "last": " & ".join(map(_quoted, last)),
        "query": " & ".join(ends if found.prefix == "head" else (*whole, *ends)),
        "any": " | ".join((*whole, *ends)),
        "in_name": " & ".join(f"{each}A" if each.endswith("*") else f"{each}:A" for each in (*whole, *ends)),
    }


def _quoted(word: str) -> str:
    return f"'{word}'"


def _skill(row: Row) -> CachedSkill:
    return CachedSkill(
        skill_id=row["skill_id"],
        text=row["skill_data"],
        source=row["source"],
        confirmed_at=row["confirmed_at"],
        stale=row["stale"],
    )
