"""Bind the database to another marketplace, and discard what applies only to the former one."""

from __future__ import annotations

from datetime import datetime

from atom_saas_sync.store.names import APPROVED_DELETIONS, MARKETPLACE
from atom_saas_sync.store.sqlite.audit import write_audit
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.store.sqlite.pages import leave_pages
from atom_saas_sync.store.sqlite.runs import get_fact, set_fact


def rebind(database: Database, marketplace: str, *, deletions: int, actor: str, now: datetime) -> None:
    """Assign the database to another marketplace, whose next sync may delete up to `deletions` skills.

    Skills, their bases, local edits, open conflicts and ratings stay: the next sync compares them as always. Remote ids
    and states of ratings in the former marketplace do not apply to the new one.
    """
    with database.transaction() as connection:
        former = get_fact(connection, MARKETPLACE)
        leave_pages(connection, 1)
        for statement in (
            "DELETE FROM http_validator",
            "DELETE FROM last_message",
            "DELETE FROM fact WHERE name GLOB 'rate_limit*'",
            "DELETE FROM fact WHERE name IN ('marketplace_reached_at', 'clock_skew_seconds', 'ratings_not_updatable')",
            "UPDATE skill_ratings SET remote_rating_id = NULL, base_digest = NULL, note = NULL",
        ):
            connection.execute(statement)
        set_fact(connection, MARKETPLACE, marketplace, now)
        set_fact(connection, APPROVED_DELETIONS, str(deletions), now)
        write_audit(connection, actor, "db rebind", marketplace, now, {"former": former, "deletions": deletions})
