"""Finds ids by their first characters."""

from __future__ import annotations

from atom_saas_sync.store.database import Database

_LAST = "\U0010ffff"
_RANGE = "skill_id >= :prefix AND skill_id < :end"
_CURRENT = f"""
    SELECT skill_id, CASE WHEN json_valid(CAST(skill_data AS TEXT)) THEN
        json_extract(CAST(skill_data AS TEXT), '$.name') END AS name
    FROM skill_cache WHERE {_RANGE} ORDER BY skill_id LIMIT :limit
"""  # noqa: S608 - constants
_FORMER = " UNION ".join(
    f"SELECT skill_id, NULL AS name FROM {table} WHERE {_RANGE}"  # noqa: S608 - constants
    for table in ("skill_base", "skill_version", "conflict_log", "skill_rating")
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


def _name(value: object) -> str | None:
    return value if isinstance(value, str) else None
