"""The only writer of `skill_cache.skill_data`, and of what is extracted from it.

One statement in two forms writes versions, one more writes figures; tests/test_architecture.py finds any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import psycopg

from atom_saas_sync.core.canonical import decode_object
from atom_saas_sync.model import TIME_TO_LIVE
from atom_saas_sync.model.effects import AddServed, Life, RefreshFigures, RemoveServed, ReplaceServed, WriteServed
from atom_saas_sync.store.postgresql.rows import Row
from atom_saas_sync.store.postgresql.skill_text import drop_entries, entry_of, has_same_words, write_entries, write_rest

_ADD_VERSION = """
    INSERT INTO skill_cache (skill_id, skill_data, expires_at, created_at, updated_at)
    SELECT skill_id, skill_data, expires_at, %s, updated_at
    FROM unnest(%b::text[], %b::text[], %b::timestamptz[], %b::timestamptz[])
        AS new (skill_id, skill_data, expires_at, updated_at)
"""
_REPLACE_VERSION = """
    UPDATE skill_cache AS c
    SET skill_data = new.skill_data, expires_at = coalesce(new.expires_at, c.expires_at), updated_at = new.updated_at
    FROM unnest(%b::text[], %b::text[], %b::timestamptz[], %b::timestamptz[])
        AS new (skill_id, skill_data, expires_at, updated_at)
    WHERE c.skill_id = new.skill_id
"""
_WRITE_FIGURES = """
    UPDATE skill_cache AS c SET skill_data = new.skill_data
    FROM unnest(%b::text[], %b::text[]) AS new (skill_id, skill_data) WHERE c.skill_id = new.skill_id
"""
_NEVER = "9999-12-31 23:59:59+00"


class ServedSkills:
    """The served rows of one transaction."""

    def __init__(self, connection: psycopg.Connection[Row]) -> None:
        self._connection = connection

    def remove(self, effects: Sequence[RemoveServed]) -> None:
        """Stop serving these skills."""
        removed = [each.skill_id for each in effects]
        self._connection.execute("DELETE FROM skill_cache WHERE skill_id = ANY(%s)", (removed,))
        drop_entries(self._connection, removed)

    def add(self, effects: Sequence[AddServed], now: datetime) -> None:
        """Serve these skills, which were not served before."""
        self._connection.execute(_ADD_VERSION, (now.replace(microsecond=0), *_columns(effects, now)))
        self._read_out(effects)

    def replace(self, effects: Sequence[ReplaceServed], now: datetime) -> None:
        """Replace the served texts of these skills."""
        self._connection.execute(_REPLACE_VERSION, _columns(effects, now))
        changed, rest = [], {}
        for each in effects:
            fields = _fields(each.text, each.fields)
            if has_same_words(fields, _fields(each.replaced, each.replaced_fields)):
                rest[each.skill_id] = fields
            else:
                changed.append(each)
        self._read_out(changed)
        if rest:
            write_rest(self._connection, rest)

    def refresh(self, effects: Sequence[RefreshFigures]) -> None:
        """Write figures into served texts; words do not contain them."""
        texts = {each.skill_id: each.text for each in effects}
        self._connection.execute(_WRITE_FIGURES, (list(texts), list(texts.values())))
        write_rest(self._connection, {skill_id: _fields(text, None) for skill_id, text in texts.items()})

    def _read_out(self, effects: Sequence[WriteServed]) -> None:
        if effects:
            write_entries(self._connection, [entry_of(each.skill_id, each.text, each.fields) for each in effects])


def _fields(text: str, known: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return known if known is not None else decode_object(text) or {}


def _columns(effects: Sequence[WriteServed], now: datetime) -> tuple[list[str | datetime | None], ...]:
    moment = now.replace(microsecond=0)
    expires = {Life.CONFIRMED: str(moment + TIME_TO_LIVE), Life.ENDLESS: _NEVER, Life.AS_BEFORE: None}
    return (
        [each.skill_id for each in effects],
        [each.text for each in effects],
        [expires[each.life] for each in effects],
        [each.changed_at or str(moment) for each in effects],
    )
