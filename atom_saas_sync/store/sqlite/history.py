"""The versions of a skill: the base, and former ones, from the marketplace and written locally."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime

from atom_saas_sync.model import PublishedVersion, SkillVersion
from atom_saas_sync.model.effects import EndVersion
from atom_saas_sync.store.packing import pack, unpack, version_of
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.times import format_time, parse_time

_KEEP = """
    INSERT INTO skill_version (skill_id, version, content_digest, exec_digest, ended_at, ended_by, data)
    SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7
"""
_UNLESS_LAST = """
    WHERE NOT EXISTS (
        SELECT 1 FROM skill_version WHERE content_digest = ?3 AND ended_by = ?6
        AND id = (SELECT max(id) FROM skill_version WHERE skill_id = ?1 AND origin = 'marketplace'))
"""
_DROP_OLDEST = """DELETE FROM skill_version WHERE skill_id = ?1 AND origin = 'marketplace' AND id <= (SELECT id
    FROM skill_version WHERE skill_id = ?1 AND origin = 'marketplace' ORDER BY id DESC LIMIT 1 OFFSET ?2)"""


def end_versions(connection: sqlite3.Connection, effects: Sequence[EndVersion], moment: str, *, number: int) -> None:
    """Store versions that end, and drop the oldest ones beyond the `number` to keep.

    The last version of a deleted skill is always kept: it is evidence (rule 12).
    """
    kept = [each for each in effects if number or each.ended_by == "deleted"]
    for once, statement in ((False, _KEEP), (True, _KEEP + _UNLESS_LAST)):  # one for both takes a third more time
        connection.executemany(statement, [_row(each, moment) for each in kept if each.once is once])
    connection.executemany(_DROP_OLDEST, [(each.skill_id, max(1, number)) for each in kept])


def _row(each: EndVersion, moment: str) -> tuple[object, ...]:
    version, digests = version_of(each.text, each.fields), (each.content_digest, each.exec_digest)
    return each.skill_id, version, *digests, moment, each.ended_by, pack(each.text)


def keep_local(
    connection: sqlite3.Connection, versions: Sequence[SkillVersion], now: datetime, *, ended_by: str, number: int
) -> None:
    """Keep each skill's newest `number` local texts; the marketplace's versions are counted separately."""
    for each in versions:
        values = version_of(each.text, each.fields), each.content_digest, each.exec_digest, format_time(now), ended_by
        connection.execute(
            "INSERT INTO skill_version (skill_id, version, content_digest, exec_digest, ended_at, ended_by, data, "
            "origin) VALUES (?, ?, ?, ?, ?, ?, ?, 'local')",
            (each.skill_id, *values, pack(each.text.encode())),
        )
        connection.execute(
            "DELETE FROM skill_version WHERE skill_id = ?1 AND origin = 'local' AND id <= (SELECT id "
            "FROM skill_version WHERE skill_id = ?1 AND origin = 'local' ORDER BY id DESC LIMIT 1 OFFSET ?2)",
            (each.skill_id, number),
        )


class History:
    """Reads the versions of skills."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def versions(self, skill_id: str) -> list[PublishedVersion]:
        """Return the versions of a skill, newest first: the base, then the replaced ones."""
        with self._database.reading() as connection:
            return versions_of(connection, skill_id)


def versions_of(connection: sqlite3.Connection, skill_id: str, *, admitted: bool = False) -> list[PublishedVersion]:
    """Return the versions of a skill, newest first; `admitted`: only the marketplace's that were served."""
    ended = [
        PublishedVersion(
            number=row["id"],
            version=row["version"],
            text=unpack(row["data"]),
            ended_at=parse_time(row["ended_at"]),
            ended_by=row["ended_by"],
            content_digest=row["content_digest"],
            exec_digest=row["exec_digest"],
            origin="marketplace" if row["origin"] == "offer" else row["origin"],
        )
        for row in connection.execute(
            "SELECT * FROM skill_version WHERE skill_id = ?1 "
            "AND (NOT ?2 OR (origin = 'marketplace' AND ended_by != 'not_admitted')) ORDER BY id DESC",
            (skill_id, admitted),
        )
    ]
    base = connection.execute(
        """
        SELECT b.content_digest, b.exec_digest, CAST(coalesce(b.data, c.skill_data) AS TEXT) AS data
        FROM skill_base AS b LEFT JOIN skill_cache AS c ON c.skill_id = b.skill_id
        WHERE b.skill_id = ? AND b.deleted_at IS NULL
        """,
        (skill_id,),
    ).fetchone()
    if base is None or base["data"] is None:
        return ended
    version = connection.execute(
        "SELECT CASE WHEN json_valid(?1) THEN json_extract(?1, '$.version') END", (base["data"],)
    ).fetchone()[0]
    current = PublishedVersion(None, version, base["data"], None, None, base["content_digest"], base["exec_digest"])
    return [current, *ended]
