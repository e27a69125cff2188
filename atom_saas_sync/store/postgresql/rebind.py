"""Bind the database to another marketplace; data that concerns only the former one is discarded."""

from __future__ import annotations

from datetime import datetime

from atom_saas_sync.store.names import (
    APPROVED_DELETIONS,
    CLOCK_SKEW,
    MARKETPLACE,
    NOT_UPDATABLE,
    RATE_LIMIT,
    REACHED_AT,
)
from atom_saas_sync.store.postgresql.audit import write_audit
from atom_saas_sync.store.postgresql.database import Database
from atom_saas_sync.store.postgresql.facts import get_fact, set_fact
from atom_saas_sync.store.postgresql.pages import leave_pages


def rebind(database: Database, marketplace: str, *, deletions: int, actor: str, now: datetime) -> None:
    """Bind the database to another marketplace, whose next sync may delete that many skills.

    Skills, their bases, local edits, open conflicts and ratings stay: the next sync compares them as usual. Remote ids
    and states of ratings are discarded: they say nothing about the new marketplace.
    """
    with database.transaction() as connection:
        former = get_fact(connection, MARKETPLACE)
        leave_pages(connection, 1)
        connection.execute("DELETE FROM http_validator")
        connection.execute("DELETE FROM last_message")
        connection.execute(
            "DELETE FROM fact WHERE name = ANY(%s)", ([RATE_LIMIT, REACHED_AT, CLOCK_SKEW, NOT_UPDATABLE],)
        )
        connection.execute("UPDATE skill_ratings SET remote_rating_id = NULL, base_digest = NULL, note = NULL")
        set_fact(connection, MARKETPLACE, marketplace, now)
        set_fact(connection, APPROVED_DELETIONS, str(deletions), now)
        write_audit(connection, actor, "db rebind", marketplace, now, {"former": former, "deletions": deletions})
