"""The only writer of `skill_cache.skill_data`, the served texts, and of the full-text index that follows them.

A version is written by one statement, in two forms: an upsert takes a quarter more time for rows that are there. One
more statement writes figures into a served version; tests/test_architecture.py finds every other.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime

from atom_saas_sync.model import TIME_TO_LIVE
from atom_saas_sync.model.effects import AddServed, Life, RefreshFigures, RemoveServed, ReplaceServed, WriteServed
from atom_saas_sync.store.backend_tables import NEVER_EXPIRES
from atom_saas_sync.store.sqlite.index_entries import (
    Indexed,
    Replaced,
    entry_of,
    indexed,
    reindex,
    rows_with_ids,
    unindex,
    write_index,
)
from atom_saas_sync.times import format_time

_ADD_VERSION = """
    INSERT INTO skill_cache (skill_id, skill_data, expires_at, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5)
"""
_REPLACE_VERSION = """
    UPDATE skill_cache SET skill_data = ?2, expires_at = coalesce(?3, expires_at), updated_at = ?5
    WHERE skill_id = ?1 AND ?4 IS NOT NULL
"""
_WRITE_FIGURES = "UPDATE skill_cache SET skill_data = ?2 WHERE skill_id = ?1"


class ServedSkills:
    """The served rows of one transaction. Call `finish` last: it updates the full-text index."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        # Changes that are not in the full-text index yet.
        self._replaced: dict[str, Replaced] = {}
        # What to index of each new row, without its text, and the newest row that existed before them.
        self._inserted: dict[str, Indexed] = {}
        self._newest = 0

    def remove(self, effects: Sequence[RemoveServed]) -> None:
        """Stop serving these skills."""
        removed = [each.skill_id for each in effects]
        if not (self._replaced.keys() | self._inserted).isdisjoint(removed):
            self.finish()
        unindex(self._connection, removed)
        self._connection.executemany("DELETE FROM skill_cache WHERE skill_id = ?", [(name,) for name in removed])

    def add(self, effects: Sequence[AddServed], now: datetime) -> None:
        """Serve these skills, which were not served before."""
        if not self._inserted:
            self._newest = self._connection.execute("SELECT coalesce(max(id), 0) FROM skill_cache").fetchone()[0]
        self._connection.executemany(_ADD_VERSION, _rows(effects, now))
        self._inserted.update((each.skill_id, indexed(each)) for each in effects)

    def replace(self, effects: Sequence[ReplaceServed], now: datetime) -> None:
        """Serve these texts in place of others."""
        self._connection.executemany(_REPLACE_VERSION, _rows(effects, now))
        for each in effects:
            if each.skill_id in self._inserted:
                self._inserted[each.skill_id] = indexed(each)
            elif (first := self._replaced.get(each.skill_id)) is not None:
                self._replaced[each.skill_id] = first._replace(written=each)
            else:
                self._replaced[each.skill_id] = Replaced(each.replaced, each.replaced_fields, each)

    def refresh(self, effects: Sequence[RefreshFigures]) -> None:
        """Write figures into served texts; they are not indexed."""
        self._connection.executemany(_WRITE_FIGURES, [(each.skill_id, each.text) for each in effects])

    def finish(self) -> None:
        """Bring the full-text index up to date, last of all.

        Once for the whole transaction: FTS5 writes out what it has gathered, as a segment of its own, whenever another
        statement comes between, and merges segments when there are many.
        """
        reindex(self._connection, self._replaced)
        self._replaced.clear()
        if self._inserted:
            rows = rows_with_ids(self._connection, "id > ?", self._newest)
            write_index(self._connection, [entry_of(row, self._inserted[name]) for row, name in rows])
            self._inserted.clear()


def _rows(effects: Sequence[WriteServed], now: datetime) -> list[tuple[str | None, ...]]:
    moment = format_time(now)
    expires = {Life.CONFIRMED: format_time(now + TIME_TO_LIVE), Life.ENDLESS: NEVER_EXPIRES, Life.AS_BEFORE: None}
    return [(each.skill_id, each.text, expires[each.life], moment, each.changed_at or moment) for each in effects]
