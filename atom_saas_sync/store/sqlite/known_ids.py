"""Finds ids by their first characters."""

from __future__ import annotations

import json
from collections.abc import Iterable

from atom_saas_sync.store.sqlite.database import Database

_LAST = "\U0010ffff"
_RANGE = "skill_id >= :prefix AND skill_id < :end"
_NAME = "CASE WHEN json_valid(CAST({text} AS TEXT)) THEN json_extract(CAST({text} AS TEXT), '$.name') END"
_CURRENT = f"""
    SELECT skill_id, {_NAME.format(text="skill_data")} AS name
    FROM skill_cache WHERE {_RANGE} ORDER BY skill_id LIMIT :limit
"""  # noqa: S608 - constants
# A skill that is gone from the cache keeps its name as long as the marketplace's text is kept.
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


def ids_from(database: Database, prefix: str, *, limit: int) -> tuple[dict[str, str | None], dict[str, str | None]]:
    """Return the ids that begin with `prefix`, each with its name: of cached skills, and of all others ever seen.

    At most `limit` of each, in order, so that the id that is `prefix` itself is always among them.
    """
    values = {"prefix": prefix, "end": prefix + _LAST, "limit": limit}
    with database.reading() as connection:
        current = {row["skill_id"]: _name(row["name"]) for row in connection.execute(_CURRENT, values)}
        rows = connection.execute(f"{_FORMER} ORDER BY skill_id LIMIT :limit", values)
        return current, {row["skill_id"]: None for row in rows if row["skill_id"] not in current}


def offered_ids_from(database: Database, prefix: str, *, limit: int) -> dict[str, str | None]:
    """Return the ids that begin with `prefix` of versions that wait or were refused; at most `limit`, in order."""
    with database.reading() as connection:
        statement = f"SELECT skill_id FROM skill_offer WHERE {_RANGE} ORDER BY skill_id LIMIT :limit"  # noqa: S608 - constant
        values = {"prefix": prefix, "end": prefix + _LAST, "limit": limit}
        return {row["skill_id"]: None for row in connection.execute(statement, values)}


def rating_ids_from(database: Database, prefix: str, *, limit: int) -> dict[str, str | None]:
    """Return the ratings' ids that begin with `prefix`, each with its skill's id; at most `limit`, in order."""
    with database.reading() as connection:
        rows = connection.execute(
            "SELECT id, CAST(skill_id AS TEXT) AS skill_id FROM skill_ratings "
            "WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
            (prefix, prefix + _LAST, limit),
        )
        return {row["id"]: row["skill_id"] for row in rows}


def names_of(database: Database, ids: Iterable[str]) -> dict[str, str]:
    """Return the names of skills by their ids, as far as they are known."""
    with database.reading() as connection:
        rows = connection.execute(_NAMED, {"ids": json.dumps(sorted(set(ids)))})
        return {row["skill_id"]: name for row in rows if (name := _name(row["name"])) is not None}


def _name(value: object) -> str | None:
    return value if isinstance(value, str) else None
