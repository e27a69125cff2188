"""Ids that look alike. Each connection remembers all known ids by their skeleton, without confusable differences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from weakref import WeakKeyDictionary

import psycopg

from atom_saas_sync.core.gate.lookalikes import skeleton
from atom_saas_sync.store.postgresql.rows import Row

_FORMER = "SELECT DISTINCT skill_id FROM skill_seen"
_NEW = """
    SELECT skill_id FROM skill_base WHERE id > %(base)s UNION SELECT skill_id FROM skill_offer WHERE id > %(offer)s
"""
_UNTIL = """
    SELECT (SELECT coalesce(max(id), 0) FROM skill_base) AS base,
        (SELECT coalesce(max(id), 0) FROM skill_offer) AS offer
"""
# When an id was first known. Of ids that arrived together, served ones are older, then those that wait longest.
_SINCE = """
    SELECT min(at), CASE
        WHEN EXISTS (SELECT FROM skill_base WHERE skill_id = %(id)s) THEN 0
        ELSE coalesce((SELECT id FROM skill_offer WHERE skill_id = %(id)s), 0)
    END
    FROM (
        SELECT admitted_at AS at FROM skill_base WHERE skill_id = %(id)s
        UNION ALL SELECT coalesce(first_seen_at, seen_at) FROM skill_seen WHERE skill_id = %(id)s
    ) AS known
"""


class _KnownNames:
    """The ids that a connection has seen; an id from a rolled-back transaction has no time."""

    def __init__(self) -> None:
        self._alike: defaultdict[str, set[str]] = defaultdict(set)
        self._until: dict[str, int] | None = None

    def read(self, connection: psycopg.Connection[Row]) -> None:
        """Load the names that any program has added since: they have higher ids."""
        if self._until is None:
            self._until = {"base": 0, "offer": 0}
            self.add(row[0] for row in connection.execute(_FORMER))
        self.add(row[0] for row in connection.execute(_NEW, self._until))
        until = connection.execute(_UNTIL).fetchone()
        assert until is not None
        self._until = {"base": int(until["base"]), "offer": int(until["offer"])}

    def add(self, skill_ids: Iterable[str]) -> None:
        for each in skill_ids:
            self._alike[skeleton(each)].add(each)

    def others(self, skill_id: str) -> list[str]:
        """Return, sorted, the other ids that look like this one."""
        return sorted(self._alike.get(skeleton(skill_id), set()) - {skill_id})


_names: WeakKeyDictionary[psycopg.Connection[Row], _KnownNames] = WeakKeyDictionary()


def lookalikes(connection: psycopg.Connection[Row], skill_ids: Sequence[str]) -> dict[str, str]:
    """Return these skills that look like one known earlier, with that one's id.

    Skills with a base are known and never reported. Of two new ones, the first in the list counts as known earlier.
    """
    new = _without_base(connection, skill_ids)
    if not new:
        return {}
    names = _names.setdefault(connection, _KnownNames())
    names.read(connection)
    found = {}
    before: dict[str, str] = {}
    for skill_id in new:
        bones = skeleton(skill_id)
        since = _since(connection, skill_id)
        for other in names.others(skill_id):
            earlier = _since(connection, other)
            if earlier is not None and (since is None or earlier < since):
                found[skill_id] = other
                break
        else:
            if since is None and bones in before:
                found[skill_id] = before[bones]
        before.setdefault(bones, skill_id)
    return found


def _without_base(connection: psycopg.Connection[Row], skill_ids: Sequence[str]) -> list[str]:
    rows = connection.execute("SELECT skill_id FROM skill_base WHERE skill_id = ANY(%s)", (list(skill_ids),))
    known = {row[0] for row in rows}
    return [each for each in skill_ids if each not in known]


def _since(connection: psycopg.Connection[Row], skill_id: str) -> tuple[datetime, int] | None:
    row = connection.execute(_SINCE, {"id": skill_id}).fetchone()
    assert row is not None
    return None if row[0] is None else (row[0], int(row[1]))
