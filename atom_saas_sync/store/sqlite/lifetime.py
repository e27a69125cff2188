"""Ages of cached skills, and removing expired ones (docs/CONFLICTS.md). No decisions are made here."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any

from atom_saas_sync.model import COUNTERS, TIME_TO_LIVE, CacheStatistics, PurgePlan
from atom_saas_sync.store.names import REACHED_AT
from atom_saas_sync.store.sqlite.audit import write_audit
from atom_saas_sync.store.sqlite.bulk import bulk_write
from atom_saas_sync.store.sqlite.clauses import before
from atom_saas_sync.store.sqlite.counters import read_counters
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.store.sqlite.files import beside
from atom_saas_sync.store.sqlite.index_entries import unindex
from atom_saas_sync.store.sqlite.runs import get_fact
from atom_saas_sync.times import format_time, parse_time

RESOLVED_CONFLICTS_LIFE = timedelta(days=90)
AUDIT_LIFE = timedelta(days=365)

_READS = "atom_saas_cache_requests_total"

CONFIRMED_AT = "max(b.confirmed_at, coalesce(v.checked_at, ''))"

UNEDITED = "b.skill_id IS NOT NULL AND (b.data IS NULL OR b.data = c.skill_data)"

# `expires_at` is only extended occasionally (Catalogue.refresh_expiry), so it may be too early. A value before the last
# confirmation was written by another program, to let the entry expire.
EXPIRED = f"""
    {before("c.expires_at", ":now")} AND {UNEDITED}
    AND ({CONFIRMED_AT} < :oldest OR julianday(c.expires_at) < julianday({CONFIRMED_AT}))
"""

JOINED = """
    skill_cache AS c
    LEFT JOIN skill_base AS b ON b.skill_id = c.skill_id
    LEFT JOIN http_validator AS v ON v.page = b.page
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
        """Return the number, age and use of the entries."""
        with self._database.reading() as connection:
            row = connection.execute(
                f"""
                SELECT
                    count(*) AS skills,
                    coalesce(sum(b.skill_id IS NULL), 0) AS only_here,
                    coalesce(sum(b.skill_id IS NOT NULL AND NOT ({UNEDITED})), 0) AS edited,
                    coalesce(sum({UNEDITED} AND {CONFIRMED_AT} < :oldest), 0) AS stale,
                    coalesce(sum({EXPIRED}), 0) AS expired,
                    min(CASE WHEN b.skill_id IS NOT NULL THEN {CONFIRMED_AT} END) AS oldest,
                    max(CASE WHEN b.skill_id IS NOT NULL THEN {CONFIRMED_AT} END) AS newest,
                    coalesce(sum(hit_count), 0) AS hits
                FROM {JOINED}
                """,  # noqa: S608 - constants
                time_parameters(now),
            ).fetchone()
            categories = connection.execute(
                f"SELECT count(*), coalesce(sum({before('expires_at', '?1')}), 0) FROM category_cache",  # noqa: S608
                (format_time(now),),
            ).fetchone()
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
                oldest_confirmed_at=parse_time(row["oldest"]),
                newest_confirmed_at=parse_time(row["newest"]),
                hits_of_entries=row["hits"],
                categories=categories[0],
                expired_categories=categories[1],
                reads=reads,
                size_bytes=_size(self._database),
                marketplace_reached_at=parse_time(get_fact(connection, REACHED_AT)),
            )

    def choose(self, now: datetime, *, older_than: timedelta | None, everything: bool, local: bool) -> PurgePlan:
        """Return what would be removed: what expired; what was confirmed before `older_than`; or everything.

        Skills that were edited here, or exist only here, are kept unless `local`.
        """
        with self._database.reading() as connection:
            return _choose(connection, now, older_than=older_than, everything=everything, may_go=lambda _: local)

    def purge(
        self, now: datetime, *, older_than: timedelta | None, everything: bool, local: Collection[str], actor: str
    ) -> PurgePlan:
        """Remove what `choose` returns, in one transaction, so that the next sync fetches it again.

        `local` are the ids whose local edits may be removed; the audit log keeps a copy of each.
        """
        with self._database.transaction() as connection, bulk_write(connection):
            plan = _choose(connection, now, older_than=older_than, everything=everything, may_go=local.__contains__)
            ids = json.dumps(plan.skills)
            wanted = "skill_id IN (SELECT value FROM json_each(?))"
            unindex(connection, plan.skills)
            for skill_id, text in connection.execute(
                "SELECT skill_id, CAST(skill_data AS TEXT) FROM skill_cache "
                "WHERE skill_id IN (SELECT value FROM json_each(?))",
                (json.dumps(plan.local_ids),),
            ).fetchall():
                write_audit(connection, actor, "cache purge", skill_id, now, {"skill_data": text})
            connection.execute(
                f"UPDATE http_validator SET etag = NULL WHERE page IN (SELECT page FROM skill_base WHERE {wanted})",  # noqa: S608 - constants
                (ids,),
            )
            connection.execute(f"DELETE FROM skill_base WHERE {wanted}", (ids,))  # noqa: S608 - constants
            connection.execute(f"DELETE FROM skill_cache WHERE {wanted}", (ids,))  # noqa: S608 - constants
            # The audit log keeps their last local text.
            connection.execute(
                "UPDATE conflict_log SET resolved = 1, applied = 1, resolution_strategy = 'purged', resolved_at = ?2, "
                "resolved_by = ?3, updated_at = ?2 "
                "WHERE resolved_at IS NULL AND skill_id IN (SELECT value FROM json_each(?1))",
                (ids, format_time(now), actor),
            )
            if plan.categories:
                connection.execute(
                    "DELETE FROM category_cache WHERE category_name IN (SELECT value FROM json_each(?))",
                    (json.dumps(plan.categories),),
                )
                connection.execute("UPDATE http_validator SET etag = NULL WHERE page IS NULL")
            if plan.skills or plan.categories:
                details = {"skills": len(plan.skills), "categories": len(plan.categories), "local": plan.local}
                write_audit(connection, actor, "cache purge", "", now, details)
        return plan

    def prune_logs(self, now: datetime) -> None:
        """Remove old resolved conflicts, audit entries, and copies made by migrations.

        Open conflicts stay, however old they are.
        """
        from atom_saas_sync.store.sqlite.kept_copies import remove_old_migration_copies  # `status` imports this module

        with self._database.transaction() as connection:
            connection.execute(
                f"DELETE FROM conflict_log WHERE {before('resolved_at', '?1')}",  # noqa: S608
                (format_time(now - RESOLVED_CONFLICTS_LIFE),),
            )
            connection.execute("DELETE FROM audit_log WHERE at < ?", (format_time(now - AUDIT_LIFE),))
        remove_old_migration_copies(self._database.path, now)


def _choose(
    connection: sqlite3.Connection,
    now: datetime,
    *,
    older_than: timedelta | None,
    everything: bool,
    may_go: Callable[[str], bool],
) -> PurgePlan:
    values = time_parameters(now)
    if everything:
        condition, category_condition = "1", "1"
    elif older_than is not None:
        values["limit"] = format_time(now - older_than)
        condition = f"b.skill_id IS NOT NULL AND {CONFIRMED_AT} < :limit"
        values["category_limit"] = format_time(now - older_than + TIME_TO_LIVE)
        category_condition = before("expires_at", ":category_limit")
    else:
        condition, category_condition = EXPIRED, before("expires_at", ":now")
    rows = connection.execute(
        f"SELECT c.skill_id, NOT ({UNEDITED}) AS ours FROM {JOINED} WHERE {condition} ORDER BY c.skill_id",  # noqa: S608 - constants
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


def time_parameters(now: datetime) -> dict[str, Any]:
    """Return the parameters of EXPIRED."""
    return {"now": format_time(now), "oldest": format_time(now - TIME_TO_LIVE)}


def _size(database: Database) -> int:
    path = database.path
    return sum(each.stat().st_size for each in (path, beside(path, "-wal")) if each.exists())
