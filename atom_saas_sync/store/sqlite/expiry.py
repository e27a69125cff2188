"""When confirmed skills expire (docs/CONFLICTS.md)."""

from __future__ import annotations

from datetime import datetime, timedelta

from atom_saas_sync.model import TIME_TO_LIVE
from atom_saas_sync.store.backend_tables import NEVER_EXPIRES
from atom_saas_sync.store.sqlite.clauses import after, before
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.times import format_time

_CLOCK_STEPS = timedelta(minutes=1)  # for a correct clock
_EXPIRY_SLACK = timedelta(hours=12)

# Marketplace entries that expire soon, too late, or never; ?1 and ?2 are the limits.
_MOVABLE = f"""
    ({before("expires_at", "?1")} OR ({after("expires_at", "?2")} AND expires_at < '{NEVER_EXPIRES}')
        OR (expires_at = '{NEVER_EXPIRES}' AND EXISTS (
            SELECT 1 FROM skill_base AS b WHERE b.skill_id = skill_cache.skill_id AND b.data IS NULL)))
"""  # noqa: S608 - constants


def refresh_expiry(database: Database, now: datetime) -> None:
    """Extend `expires_at` of confirmed skills, once half of their life is over.

    The exact time of the last confirmation is in the view usable_skill; writing every row at every sync would rewrite
    the table four times an hour. An entry with more than a day left was confirmed by a clock that was set back since.
    """
    due, latest = format_time(now + TIME_TO_LIVE - _EXPIRY_SLACK), format_time(now + TIME_TO_LIVE + _CLOCK_STEPS)
    with database.reading() as connection:
        found = connection.execute(f"SELECT 1 FROM skill_cache WHERE {_MOVABLE} LIMIT 1", (due, latest)).fetchone()  # noqa: S608
    if not found:
        return
    with database.transaction() as connection:
        for statement in (
            "UPDATE skill_base SET confirmed_at = ?1 WHERE confirmed_at > ?1",
            "UPDATE http_validator SET checked_at = ?1 WHERE checked_at > ?1",
        ):
            connection.execute(statement, (format_time(now),))
        connection.execute(
            f"""
            UPDATE skill_cache SET expires_at = ?3
            WHERE {_MOVABLE} AND skill_id IN (
                SELECT b.skill_id FROM skill_base AS b LEFT JOIN http_validator AS v ON v.page = b.page
                WHERE max(b.confirmed_at, coalesce(v.checked_at, '')) >= ?4
            )
            """,  # noqa: S608 - constants
            (due, latest, format_time(now + TIME_TO_LIVE), format_time(now - timedelta(hours=1))),
        )
