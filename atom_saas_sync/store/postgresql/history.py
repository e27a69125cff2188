"""The versions of a skill: the base, and former ones, from the marketplace and written locally."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import psycopg

from atom_saas_sync.model import PublishedVersion, SkillVersion
from atom_saas_sync.model.effects import EndVersion
from atom_saas_sync.store.packing import pack, unpack, version_of
from atom_saas_sync.store.postgresql.connection import Connection
from atom_saas_sync.store.postgresql.rows import Row

# Ids give the order in which versions ended.
_KEEP = """
    INSERT INTO skill_version (skill_id, version, content_digest, exec_digest, ended_at, ended_by, data)
    SELECT skill_id, version, content_digest, exec_digest, %s, ended_by, data
    FROM unnest(%b::text[], %b::text[], %b::bytea[], %b::bytea[], %b::text[], %b::bytea[]) WITH ORDINALITY
        AS new (skill_id, version, content_digest, exec_digest, ended_by, data, place)
"""
_UNLESS_LAST = """
    WHERE NOT EXISTS (
        SELECT FROM skill_version AS v WHERE v.content_digest = new.content_digest AND v.ended_by = new.ended_by
        AND v.id = (SELECT max(id) FROM skill_version WHERE skill_id = new.skill_id AND origin = 'marketplace'))
"""
_DROP_OLDEST = """
    DELETE FROM skill_version WHERE id IN (
        SELECT old.id FROM unnest(%b::text[]) AS wanted (skill_id) CROSS JOIN LATERAL (
            SELECT id FROM skill_version WHERE skill_id = wanted.skill_id AND origin = %s ORDER BY id DESC OFFSET %s
        ) AS old)
"""


def end_versions(
    connection: psycopg.Connection[Row], effects: Sequence[EndVersion], now: datetime, *, number: int
) -> None:
    """Store versions that end, and delete the oldest ones beyond the `number` to keep.

    The last version of a deleted skill is always kept: it is evidence (rule 12).
    """
    kept = [each for each in effects if number or each.ended_by == "deleted"]
    for once in (False, True):
        if some := [each for each in kept if each.once is once]:
            connection.execute(
                f"{_KEEP}{_UNLESS_LAST if once else ''} ORDER BY place",
                (
                    now.replace(microsecond=0),
                    [each.skill_id for each in some],
                    [version_of(each.text, each.fields) for each in some],
                    [each.content_digest for each in some],
                    [each.exec_digest for each in some],
                    [each.ended_by for each in some],
                    [pack(each.text) for each in some],
                ),
            )
    if kept:
        drop_oldest(connection, [each.skill_id for each in kept], "marketplace", number=max(1, number))


def keep_local(
    connection: psycopg.Connection[Row],
    versions: Sequence[SkillVersion],
    now: datetime,
    *,
    ended_by: str,
    number: int,
) -> None:
    """Keep each skill's newest `number` local texts; the marketplace's versions are counted separately."""
    if not versions:
        return
    connection.execute(
        """
        INSERT INTO skill_version (skill_id, version, content_digest, exec_digest, ended_at, ended_by, data, origin)
        SELECT skill_id, version, content_digest, exec_digest, %s, %s, data, 'local'
        FROM unnest(%b::text[], %b::text[], %b::bytea[], %b::bytea[], %b::bytea[]) WITH ORDINALITY
            AS new (skill_id, version, content_digest, exec_digest, data, place)
        ORDER BY place
        """,
        (
            now.replace(microsecond=0),
            ended_by,
            [each.skill_id for each in versions],
            [version_of(each.text, each.fields) for each in versions],
            [each.content_digest for each in versions],
            [each.exec_digest for each in versions],
            [pack(each.text.encode()) for each in versions],
        ),
    )
    drop_oldest(connection, [each.skill_id for each in versions], "local", number=number)


def drop_oldest(connection: psycopg.Connection[Row], skill_ids: Sequence[str], origin: str, *, number: int) -> None:
    """Delete all but the newest `number` versions of these skills from this origin."""
    connection.execute(_DROP_OLDEST, (list(skill_ids), origin, number))


class History:
    """Reads the versions of skills."""

    def __init__(self, database: Connection) -> None:
        self._database = database

    def versions(self, skill_id: str) -> list[PublishedVersion]:
        """Return the versions of a skill, newest first: the base, then the replaced ones."""
        with self._database.reading() as connection:
            return versions_of(connection, skill_id)


def versions_of(
    connection: psycopg.Connection[Row], skill_id: str, *, admitted: bool = False
) -> list[PublishedVersion]:
    """Return the versions of a skill, newest first; `admitted`: only the marketplace's that were served."""
    ended = [
        PublishedVersion(
            number=row["id"],
            version=row["version"],
            text=unpack(row["data"]),
            ended_at=row["ended_at"],
            ended_by=row["ended_by"],
            content_digest=row["content_digest"],
            exec_digest=row["exec_digest"],
            origin="marketplace" if row["origin"] == "offer" else row["origin"],
        )
        for row in connection.execute(
            "SELECT * FROM skill_version WHERE skill_id = %s "
            "AND (NOT %s OR (origin = 'marketplace' AND ended_by <> 'not_admitted')) ORDER BY id DESC",
            (skill_id, admitted),
        )
    ]
    base = connection.execute(
        """
        SELECT b.content_digest, b.exec_digest, coalesce(b.data, c.skill_data) AS data
        FROM skill_base AS b LEFT JOIN skill_cache AS c ON c.skill_id = b.skill_id
        WHERE b.skill_id = %s AND b.deleted_at IS NULL
        """,
        (skill_id,),
    ).fetchone()
    if base is None or base["data"] is None:
        return ended
    text = base["data"]
    current = PublishedVersion(None, version_of(text), text, None, None, base["content_digest"], base["exec_digest"])
    return [current, *ended]
