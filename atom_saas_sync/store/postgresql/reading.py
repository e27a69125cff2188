"""Read the cache: list, search and single skills; count reads.

Everything is read through the view `usable_skill`, as by all readers (docs/API_DOCUMENTATION.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Literal

import psycopg

from atom_saas_sync.core.scripts import folded
from atom_saas_sync.errors import DatabaseError
from atom_saas_sync.model import TIME_TO_LIVE, CachedSkill, SkillFilter, Sort
from atom_saas_sync.store.postgresql.counters import increment
from atom_saas_sync.store.postgresql.database import Database
from atom_saas_sync.store.postgresql.rows import Row
from atom_saas_sync.store.postgresql.skill_text import read_due
from atom_saas_sync.store.postgresql.words import Terms, terms

ReadResult = Literal["hit", "miss", "stale"]

# Maximum time to wait for a writer when counting a read or extracting texts that others wrote.
_WAIT_SECONDS = 0.025
# Above this number of matches, the words are too common for ranking to be worth its cost.
_MOST_RANKED = 2000
_MOST_TERMS = 32
_FEW = 1000

_ROW = """
    u.skill_id, u.skill_data, u.source, u.confirmed_at,
    (u.source = 'marketplace' AND u.confirmed_at < %(oldest)s) AS stale
"""
_NARROWED = """
    (%(category)s::text IS NULL OR t.category_key = %(category)s)
    AND (%(tag)s::text IS NULL OR %(tag)s = ANY(t.tag_keys))
"""
_FILTER = f"{_NARROWED} AND (NOT %(modified)s OR u.source <> 'marketplace')"
_JOINED = "usable_skill AS u LEFT JOIN skill_text AS t ON t.skill_id = u.skill_id"
_ORDER = {
    "name": "t.name_key NULLS FIRST",
    "rating": "t.average_rating DESC NULLS LAST, t.rating_count DESC NULLS LAST",
    "updated": "t.sent_moment DESC NULLS LAST",
}
_BEST = f"""
    CASE WHEN total > {_MOST_RANKED} THEN (t.head @@ %(in_name)s::tsquery)::int
        ELSE ts_rank('{{0, 0.3, 0.5, 1}}', t.head, %(any)s::tsquery) END DESC
"""
_DUE = "SELECT EXISTS (SELECT FROM skill_due)"
# What the view hides without the gate; the gate's rules only the view knows.
_LEFT = "t.skill_id NOT IN (SELECT skill_id FROM skill_base WHERE deleted_at IS NOT NULL)"
_GATE_HIDES = "EXISTS (SELECT FROM gate_quarantine) OR EXISTS (SELECT FROM gate_revocation)"
_FETCH = f"""
    SELECT {_ROW} FROM unnest(%(ids)s::text[]) WITH ORDINALITY AS found (skill_id, place)
    JOIN usable_skill AS u ON u.skill_id = found.skill_id ORDER BY found.place
"""  # noqa: S608 - constants
# Names that contain all of the words.
_NAMED = "NOT EXISTS (SELECT FROM unnest(%(words)s::text[]) AS w WHERE strpos(coalesce(t.name_key, ''), w) = 0)"


class Reading:
    """Reads skills; `now` decides what is stale."""

    def __init__(self, database: Database, *, now: datetime) -> None:
        self._database = database
        self._now = now

    def list_skills(self, wanted: SkillFilter, *, sort: Sort = "name", limit: int | None = None) -> list[CachedSkill]:
        """Return the matching skills, at most `limit`."""
        (rows,) = self._rows({**self._values(wanted), "limit": limit}, _listed(_FILTER, sort))
        return [_skill(row) for row in rows]

    def count(self, wanted: SkillFilter) -> int:
        """Return the number of matching skills."""
        (rows,) = self._rows(self._values(wanted), _counted(_FILTER))
        return int(rows[0][0])

    def search(
        self, text: str, wanted: SkillFilter, *, sort: Sort | None = None, limit: int | None = None
    ) -> tuple[list[CachedSkill], int]:
        """Return the skills with every word of `text`, and their number."""
        found = terms(text)
        if found is None:
            return self._search_names(text.replace("\0", " ").split()[:_MOST_TERMS], wanted, sort=sort, limit=limit)
        values = {**self._values(wanted), **_queries(found), "limit": limit}
        order = _BEST if sort is None else _ORDER[sort]
        rows, total, is_due = self._found(_condition(found), order, values)
        if is_due:
            self._read_due()
            rows, total, _ = self._found(_condition(found), order, values)
        return [_skill(row) for row in rows], total

    def _found(self, condition: str, order: str, values: dict[str, Any]) -> tuple[list[Row], int, bool]:
        """Return the first rows, the number of all, and whether texts of other programs have not been extracted."""
        rows: psycopg.Cursor[Row] | None = None
        # The planner does not know the cost of reading the words of each row.
        with self._database.asking("SET LOCAL enable_seqscan = off") as connection:
            for whole_view in (values["modified"], True):
                answer = connection.execute(_search(condition, order, whole_view=whole_view), values).fetchone()
                assert answer is not None
                ids, total, is_due, gate_hides = answer
                if whole_view or not gate_hides:
                    break
            if ids:
                if len(ids) <= _FEW:
                    # Without statistics, the planner would read all bases for a few skills.
                    connection.execute("SET LOCAL enable_hashjoin = off")
                rows = connection.execute(_FETCH, {**values, "ids": ids})
        return rows.fetchall() if rows else [], total, is_due

    def _search_names(
        self, words: Sequence[str], wanted: SkillFilter, *, sort: Sort | None, limit: int | None
    ) -> tuple[list[CachedSkill], int]:
        if not words:
            return [], 0
        values = {**self._values(wanted), "words": [folded(word) for word in words], "limit": limit}
        where = f"{_NAMED} AND {_FILTER}"
        rows, numbers = self._rows(values, _listed(where, sort or "name"), _counted(where))
        return [_skill(row) for row in rows], int(numbers[0][0])

    def skill(self, skill_id: str) -> CachedSkill | None:
        """Return one skill, None if there is none."""
        rows = self._database.ask(
            f"SELECT {_ROW} FROM usable_skill AS u WHERE u.skill_id = %(skill_id)s",  # noqa: S608 - constants
            {**self._values(SkillFilter()), "skill_id": skill_id},
        )
        return _skill(rows[0]) if rows else None

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

    def _rows(self, values: dict[str, Any], *queries: str) -> list[list[Row]]:
        """Return the rows of each query in one snapshot in which all texts have been extracted, if possible."""
        is_due, *answers = self._asked(values, _DUE, *queries)
        if is_due[0][0]:
            self._read_due()
            answers = self._asked(values, *queries)
        return answers

    def _asked(self, values: dict[str, Any], *queries: str) -> list[list[Row]]:
        with self._database.asking() as connection:
            cursors = [connection.execute(query, values) for query in queries]
        return [cursor.fetchall() for cursor in cursors]

    def _read_due(self) -> None:
        """Extract the texts of other programs; if that fails, they are listed, and found once they are extracted."""
        with (
            suppress(DatabaseError),  # as above
            self._database.transaction(durable=False, wait_seconds=_WAIT_SECONDS) as connection,
        ):
            read_due(connection)

    def _values(self, wanted: SkillFilter) -> dict[str, Any]:
        return {
            "category": None if wanted.category is None else folded(wanted.category),
            "tag": None if wanted.tag is None else folded(wanted.tag),
            "modified": wanted.modified,
            "oldest": self._now - TIME_TO_LIVE,
        }


def _listed(where: str, sort: Sort) -> str:
    return f"SELECT {_ROW} FROM {_JOINED} WHERE {where} ORDER BY {_ORDER[sort]}, u.skill_id LIMIT %(limit)s"  # noqa: S608 - constants


def _counted(where: str) -> str:
    return f"SELECT count(*) FROM {_JOINED} WHERE {where}"  # noqa: S608 - constants


def _search(condition: str, order: str, *, whole_view: bool) -> str:
    """Return the query for the ids of the first matches, the number of all, and whether these may be wrong.

    The view is asked about each match only if it may hide others than those that are marked as deleted.
    """
    shown, where = "", f"{condition} AND {_NARROWED} AND {_LEFT}"
    if whole_view:
        # The matches first: the planner cannot estimate the view's conditions, and would read each row's words.
        shown = f"""
            WITH shown AS MATERIALIZED (
                SELECT u.skill_id FROM usable_skill AS u
                WHERE u.skill_id = ANY(ARRAY(SELECT skill_id FROM skill_text AS t WHERE {condition} AND {_NARROWED}))
                AND (NOT %(modified)s OR u.source <> 'marketplace'))
        """  # noqa: S608 - constants
        where = "t.skill_id IN (SELECT skill_id FROM shown)"
    return f"""
        {shown}
        SELECT ARRAY(SELECT t.skill_id FROM skill_text AS t WHERE {where} ORDER BY {order}, t.skill_id LIMIT %(limit)s),
            total, EXISTS (SELECT FROM skill_due), {_GATE_HIDES}
        FROM (SELECT count(*) AS total FROM skill_text AS t WHERE {where}) AS counted
    """  # noqa: S608 - constants


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
