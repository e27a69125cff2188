"""Ages of cached skills and the removal of expired ones (docs/CONFLICTS.md). No decisions are made here."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any

import psycopg

from atom_saas_sync.model import COUNTERS, TIME_TO_LIVE, CacheStatistics, PurgePlan
from atom_saas_sync.store.names import REACHED_AT
from atom_saas_sync.store.postgresql.audit import write_audit, write_audits
from atom_saas_sync.store.postgresql.counters import read_counters
from atom_saas_sync.store.postgresql.database import Database
from atom_saas_sync.store.postgresql.facts import get_fact
from atom_saas_sync.store.postgresql.rows import Row
from atom_saas_sync.store.postgresql.skill_text import drop_entries
from atom_saas_sync.times import parse_time

RESOLVED_CONFLICTS_LIFE = timedelta(days=90)
AUDIT_LIFE = timedelta(days=365)

_READS = "atom_saas_cache_requests_total"

CONFIRMED_AT = "greatest(b.confirmed_at, v.checked_at)"

UNEDITED = "(b.skill_id IS NOT NULL AND (b.data IS NULL OR b.data = c.skill_data))"

# `expires_at` is postponed only now and then (expiry.py), so it may be too early. If it is before the last
# confirmation, another program let the entry expire.
EXPIRED = f"""
    c.expires_at < %(now)s AND {UNEDITED}
    AND ({CONFIRMED_AT} < %(oldest)s OR c.expires_at < {CONFIRMED_AT})
"""

JOINED = """
    skill_cache AS c
    LEFT JOIN skill_base AS b ON b.skill_id = c.skill_id
    LEFT JOIN http_validator AS v ON v.page = b.page
"""

SIZE = """
    SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class
    WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace
"""


class Lifetime:
    """The lifetime of cached entries."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def marketplace_reached_at(self) -> datetime | None:
        """Return when the marketplace last gave a valid response."""
        with self._database.reading() as connection:
            return parse_time(get_fact(connection, REACHED_AT))

    def statistics(self, now: datetime) -> CacheStatistics:
        """Return the number, age and use of entries."""
        values = time_parameters(now)
        with self._database.reading() as connection:
            row = connection.execute(
                f"""
                SELECT
                    count(*) AS skills,
                    count(*) FILTER (WHERE b.skill_id IS NULL) AS only_here,
                    count(*) FILTER (WHERE b.skill_id IS NOT NULL AND NOT {UNEDITED}) AS edited,
                    count(*) FILTER (WHERE {UNEDITED} AND {CONFIRMED_AT} < %(oldest)s) AS stale,
                    count(*) FILTER (WHERE {EXPIRED}) AS expired,
                    min({CONFIRMED_AT}) FILTER (WHERE b.skill_id IS NOT NULL) AS oldest,
                    max({CONFIRMED_AT}) FILTER (WHERE b.skill_id IS NOT NULL) AS newest,
                    coalesce(sum(hit_count), 0)::bigint AS hits
                FROM {JOINED}
                """,  # noqa: S608 - constants
                values,
            ).fetchone()
            categories = connection.execute(
                "SELECT count(*), count(*) FILTER (WHERE expires_at < %(now)s) FROM category_cache", values
            ).fetchone()
            assert row is not None
            assert categories is not None
            reads = {"hit": 0, "miss": 0, "stale": 0}
            for (name, labels), value in read_counters(connection).items():
                if name == _READS and (found := COUNTERS[name].values_in(labels)) and found[0] in reads:
                    reads[found[0]] += int(value)
            return CacheStatistics(
                skills=row["skills"],
                edited=row["edited"],
                only_here=row["only_here"],
                stale=row["stale"],
                expired=row["expired"],
                oldest_confirmed_at=row["oldest"],
                newest_confirmed_at=row["newest"],
                hits_of_entries=row["hits"],
                categories=categories[0],
                expired_categories=categories[1],
                reads=reads,
                size_bytes=size_of(connection),
                marketplace_reached_at=parse_time(get_fact(connection, REACHED_AT)),
            )

    def choose(self, now: datetime, *, older_than: timedelta | None, everything: bool, local: bool) -> PurgePlan:
        """Return the entries to remove: expired ones, those confirmed before `older_than`, or all.

        Skills that were edited here, or exist only here, are kept unless `local`.
        """
        with self._database.reading() as connection:
            return _choose(connection, now, older_than=older_than, everything=everything, may_go=lambda _: local)

    def purge(
        self, now: datetime, *, older_than: timedelta | None, everything: bool, local: Collection[str], actor: str
    ) -> PurgePlan:
        """Remove the entries that `choose` returns, in one transaction, so that the next sync fetches them again.

        `local` has the ids whose local edits may be removed; the audit log keeps a copy of each.
        """
        moment = now.replace(microsecond=0)
        with self._database.transaction(bulk=True) as connection:
            plan = _choose(connection, now, older_than=older_than, everything=everything, may_go=local.__contains__)
            ids = list(plan.skills)
            kept = connection.execute(
                "SELECT skill_id, skill_data FROM skill_cache WHERE skill_id = ANY(%s)", (list(plan.local_ids),)
            ).fetchall()
            write_audits(connection, actor, "cache purge", [(each, {"skill_data": text}) for each, text in kept], now)
            connection.execute(
                "UPDATE http_validator SET etag = NULL "
                "WHERE page IN (SELECT page FROM skill_base WHERE skill_id = ANY(%s))",
                (ids,),
            )
            for table in ("skill_base", "skill_cache"):
                connection.execute(f"DELETE FROM {table} WHERE skill_id = ANY(%s)", (ids,))  # noqa: S608 - constants
            drop_entries(connection, ids)
            # The log keeps their last local text.
            connection.execute(
                "UPDATE conflict_log SET resolved = true, applied = true, resolution_strategy = 'purged', "
                "resolved_at = %(now)s, resolved_by = %(actor)s, updated_at = %(now)s "
                "WHERE resolved_at IS NULL AND skill_id = ANY(%(ids)s)",
                {"ids": ids, "now": moment, "actor": actor},
            )
            if plan.categories:
                connection.execute("DELETE FROM category_cache WHERE category_name = ANY(%s)", (list(plan.categories),))
                connection.execute("UPDATE http_validator SET etag = NULL WHERE page IS NULL")
            if plan.skills or plan.categories:
                details = {"skills": len(plan.skills), "categories": len(plan.categories), "local": plan.local}
                write_audit(connection, actor, "cache purge", "", now, details)
        return plan

    def prune_logs(self, now: datetime) -> None:
        """Remove old resolved conflicts and audit entries. Open conflicts stay, however old they are."""
        with self._database.transaction(durable=False) as connection:
            connection.execute("DELETE FROM conflict_log WHERE resolved_at < %s", (now - RESOLVED_CONFLICTS_LIFE,))
            connection.execute("DELETE FROM audit_log WHERE at < %s", (now - AUDIT_LIFE,))


def time_parameters(now: datetime) -> dict[str, Any]:
    """Return the parameters of EXPIRED."""
    return {"now": now, "oldest": now - TIME_TO_LIVE}


def size_of(connection: psycopg.Connection[Row]) -> int:
    """Return the size of our tables with their indexes, in bytes."""
    row = connection.execute(SIZE).fetchone()
    return int(row[0] or 0) if row else 0


def _choose(
    connection: psycopg.Connection[Row],
    now: datetime,
    *,
    older_than: timedelta | None,
    everything: bool,
    may_go: Callable[[str], bool],
) -> PurgePlan:
    values = time_parameters(now)
    if everything:
        condition, category_condition = "true", "true"
    elif older_than is not None:
        values["limit"] = now - older_than
        condition = f"b.skill_id IS NOT NULL AND {CONFIRMED_AT} < %(limit)s"
        values["category_limit"] = now - older_than + TIME_TO_LIVE
        category_condition = "expires_at < %(category_limit)s"
    else:
        condition, category_condition = EXPIRED, "expires_at < %(now)s"
    rows = connection.execute(
        f"SELECT c.skill_id, NOT {UNEDITED} AS ours FROM {JOINED} WHERE {condition} ORDER BY c.skill_id",  # noqa: S608 - constants
        values,
    ).fetchall()
    categories = connection.execute(
        f"SELECT category_name FROM category_cache WHERE {category_condition} ORDER BY category_name",  # noqa: S608 - constants
        values,
    ).fetchall()
    ours = [row["skill_id"] for row in rows if row["ours"]]
    going = [skill_id for skill_id in ours if may_go(skill_id)]
    spared = set(ours).difference(going)
    return PurgePlan(
        skills=tuple(row["skill_id"] for row in rows if row["skill_id"] not in spared),
        categories=tuple(row[0] for row in categories),
        local=len(going),
        protected=len(spared),
        local_ids=tuple(going),
    )
