"""Finds ids by their first characters, and the names of skills."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from atom_saas_sync.store.postgresql.database import Database

_LAST = "\U0010ffff"
_RANGE = "skill_id >= %(prefix)s AND skill_id < %(end)s"
_CURRENT = f"""
    SELECT c.skill_id, CASE WHEN t.skill_id IS NULL THEN atom_sync_field(c.skill_data, 'name') ELSE t.name END AS name
    FROM skill_cache AS c LEFT JOIN skill_text AS t ON t.skill_id = c.skill_id
    WHERE c.{_RANGE.replace("AND ", "AND c.")} ORDER BY c.skill_id LIMIT %(limit)s
"""  # noqa: S608 - constants
# A skill no longer in the cache keeps its name as long as the marketplace's text is stored.
_NAMED = """
    SELECT wanted.skill_id,
        coalesce(t.name, atom_sync_field(c.skill_data, 'name'), atom_sync_field(b.data, 'name')) AS name
    FROM unnest(%s::text[]) AS wanted (skill_id)
    LEFT JOIN skill_cache AS c ON c.skill_id = wanted.skill_id
    LEFT JOIN skill_text AS t ON t.skill_id = wanted.skill_id
    LEFT JOIN skill_base AS b ON b.skill_id = wanted.skill_id
"""
_FORMER = " UNION ".join(
    f"SELECT skill_id FROM {table} WHERE {_RANGE}"  # noqa: S608 - constants
    for table in ("skill_base", "skill_version", "conflict_log", "skill_ratings", "skill_offer", "gate_quarantine")
)

_STANDING = """
    SELECT 'quarantined' AS standing FROM gate_quarantine WHERE skill_id = %(id)s
    UNION ALL SELECT kind FROM skill_offer WHERE skill_id = %(id)s
"""


class KnownIds:
    """Finds ids by their first characters, and names by ids."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def skills_from(self, prefix: str, *, limit: int) -> tuple[dict[str, str | None], dict[str, str | None]]:
        """Return the ids that begin with `prefix`: of cached skills with their names, and of all others ever seen."""
        values = _bounds(prefix, limit)
        with self._database.reading() as connection:
            current = {row["skill_id"]: row["name"] for row in connection.execute(_CURRENT, values)}
            rows = connection.execute(f"{_FORMER} ORDER BY skill_id LIMIT %(limit)s", values)
            return current, {row["skill_id"]: None for row in rows if row["skill_id"] not in current}

    def offers_from(self, prefix: str, *, limit: int) -> dict[str, str | None]:
        """Return the ids with `prefix` of versions that wait or were refused."""
        statement = f"SELECT skill_id FROM skill_offer WHERE {_RANGE} ORDER BY skill_id LIMIT %(limit)s"  # noqa: S608 - constant
        with self._database.reading() as connection:
            return {row["skill_id"]: None for row in connection.execute(statement, _bounds(prefix, limit))}

    def ratings_from(self, prefix: str, *, limit: int) -> dict[str, str | None]:
        """Return the ratings' ids that begin with `prefix`, each with its skill's id."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT id, skill_id FROM skill_ratings WHERE id >= %(prefix)s AND id < %(end)s "
                "ORDER BY id LIMIT %(limit)s",
                _bounds(prefix, limit),
            )
            return {row["id"]: row["skill_id"] for row in rows}

    def names(self, ids: Iterable[str]) -> dict[str, str]:
        """Return the known names of skills, by id."""
        with self._database.reading() as connection:
            rows = connection.execute(_NAMED, (sorted(set(ids)),))
            return {row["skill_id"]: row["name"] for row in rows if row["name"] is not None}

    def cached(self) -> list[str]:
        """Return the ids of all cached skills, in order."""
        with self._database.reading() as connection:
            return [row[0] for row in connection.execute("SELECT skill_id FROM skill_cache ORDER BY skill_id")]

    def standing(self, skill_id: str) -> Literal["quarantined", "hold", "refuse"] | None:
        """Return whether a skill is in quarantine, or a version of it waits or was refused."""
        with self._database.reading() as connection:
            row = connection.execute(_STANDING, {"id": skill_id}).fetchone()
        found: Literal["quarantined", "hold", "refuse"] | None = row[0] if row else None
        return found


def _bounds(prefix: str, limit: int) -> dict[str, Any]:
    return {"prefix": prefix, "end": prefix + _LAST, "limit": limit}
