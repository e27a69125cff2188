"""Find ids by prefix, and the names of skills."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Literal, cast

from atom_saas_sync.store.sqlite.connection import Connection

_LAST = "\U0010ffff"
_RANGE = "skill_id >= :prefix AND skill_id < :end"
_NAME = "CASE WHEN json_valid(CAST({text} AS TEXT)) THEN json_extract(CAST({text} AS TEXT), '$.name') END"
_CURRENT = f"""
    SELECT skill_id, {_NAME.format(text="skill_data")} AS name
    FROM skill_cache WHERE {_RANGE} ORDER BY skill_id LIMIT :limit
"""  # noqa: S608 - constants
# A skill that is no longer cached keeps its name as long as the marketplace's text is stored.
_NAMED = f"""
    SELECT wanted.value AS skill_id,
        coalesce({_NAME.format(text="c.skill_data")}, {_NAME.format(text="b.data")}) AS name
    FROM json_each(:ids) AS wanted
    LEFT JOIN skill_cache AS c ON c.skill_id = wanted.value LEFT JOIN skill_base AS b ON b.skill_id = wanted.value
"""  # noqa: S608 - constants
_FORMER = " UNION ".join(
    f"SELECT skill_id, NULL AS name FROM {table} WHERE {_RANGE}"  # noqa: S608 - constants
    for table in ("skill_base", "skill_version", "conflict_log", "skill_ratings", "skill_offer", "gate_quarantine")
)

_STANDING = """
    SELECT 'quarantined' FROM gate_quarantine WHERE skill_id = ?1
    UNION ALL SELECT kind FROM skill_offer WHERE skill_id = ?1
"""


class KnownIds:
    """Finds ids by prefix, and names by id."""

    def __init__(self, database: Connection) -> None:
        self._database = database

    def skills_from(self, prefix: str, *, limit: int) -> tuple[dict[str, str | None], dict[str, str | None]]:
        """Return the ids with this prefix: those of cached skills, with names, and all others ever seen."""
        values = _bounds(prefix, limit)
        with self._database.reading() as connection:
            current = {row["skill_id"]: _name(row["name"]) for row in connection.execute(_CURRENT, values)}
            rows = connection.execute(f"{_FORMER} ORDER BY skill_id LIMIT :limit", values)
            return current, {row["skill_id"]: None for row in rows if row["skill_id"] not in current}

    def offers_from(self, prefix: str, *, limit: int) -> dict[str, str | None]:
        """Return the ids with this prefix that have an offer."""
        statement = f"SELECT skill_id FROM skill_offer WHERE {_RANGE} ORDER BY skill_id LIMIT :limit"  # noqa: S608 - constant
        with self._database.reading() as connection:
            return {row["skill_id"]: None for row in connection.execute(statement, _bounds(prefix, limit))}

    def ratings_from(self, prefix: str, *, limit: int) -> dict[str, str | None]:
        """Return the rating ids with this prefix, each with its skill's id."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT id, CAST(skill_id AS TEXT) AS skill_id FROM skill_ratings "
                "WHERE id >= :prefix AND id < :end ORDER BY id LIMIT :limit",
                _bounds(prefix, limit),
            )
            return {row["id"]: row["skill_id"] for row in rows}

    def names(self, ids: Iterable[str]) -> dict[str, str]:
        """Return the known names of skills, by id."""
        with self._database.reading() as connection:
            rows = connection.execute(_NAMED, {"ids": json.dumps(sorted(set(ids)))})
            return {row["skill_id"]: name for row in rows if (name := _name(row["name"])) is not None}

    def cached(self) -> list[str]:
        """Return the ids of all cached skills, in order."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT CAST(skill_id AS BLOB) FROM skill_cache ORDER BY skill_id").fetchall()
        return [row[0].decode(errors="replace") for row in rows]

    def standing(self, skill_id: str) -> Literal["quarantined", "hold", "refuse"] | None:
        """Return whether a skill is in quarantine, or has a held or refused version."""
        with self._database.reading() as connection:
            row = connection.execute(_STANDING, (skill_id,)).fetchone()
            return None if row is None else cast("Literal['quarantined', 'hold', 'refuse']", row[0])


def _bounds(prefix: str, limit: int) -> dict[str, str | int]:
    return {"prefix": prefix, "end": prefix + _LAST, "limit": limit}


def _name(value: object) -> str | None:
    return value if isinstance(value, str) else None
