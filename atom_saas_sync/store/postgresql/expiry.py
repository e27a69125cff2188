"""When confirmed skills expire (docs/CONFLICTS.md)."""

from __future__ import annotations

from datetime import datetime, timedelta

from atom_saas_sync.model import TIME_TO_LIVE
from atom_saas_sync.store.postgresql.database import Database

_CLOCK_STEPS = timedelta(minutes=1)  # corrections of a clock under NTP
_EXPIRY_SLACK = timedelta(hours=12)

NEVER_EXPIRES = "timestamptz '9999-12-31 23:59:59+00'"
"""SQL for the expiry of rows that another program inserted without one."""

# Marketplace entries that expire soon, too late, or never.
_MOVABLE = f"""
    (c.expires_at < %(due)s OR (c.expires_at > %(latest)s AND c.expires_at < {NEVER_EXPIRES})
        OR (c.expires_at = {NEVER_EXPIRES} AND EXISTS (
            SELECT FROM skill_base AS e WHERE e.skill_id = c.skill_id AND e.data IS NULL)))
"""


def refresh_expiry(database: Database, now: datetime) -> None:
    """Postpone `expires_at` of confirmed skills once half of their lifetime has passed.

    The view usable_skill has the exact time of the last confirmation; updating every row in each sync would rewrite the
    table four times an hour. A lifetime of more than a day was set by a clock that has since been set back.
    """
    moment = now.replace(microsecond=0)
    values = {
        "now": moment,
        "due": moment + TIME_TO_LIVE - _EXPIRY_SLACK,
        "latest": moment + TIME_TO_LIVE + _CLOCK_STEPS,
        "until": moment + TIME_TO_LIVE,
        "since": moment - timedelta(hours=1),
    }
    if not database.ask(f"SELECT FROM skill_cache AS c WHERE {_MOVABLE} LIMIT 1", values):
        return
    with database.transaction(durable=False) as connection:
        connection.execute("UPDATE skill_base SET confirmed_at = %(now)s WHERE confirmed_at > %(now)s", values)
        connection.execute("UPDATE http_validator SET checked_at = %(now)s WHERE checked_at > %(now)s", values)
        connection.execute(
            f"""
            UPDATE skill_cache AS c SET expires_at = %(until)s
            FROM skill_base AS b LEFT JOIN http_validator AS v ON v.page = b.page
            WHERE b.skill_id = c.skill_id AND greatest(b.confirmed_at, v.checked_at) >= %(since)s AND {_MOVABLE}
            """,  # noqa: S608 - constants
            values,
        )
