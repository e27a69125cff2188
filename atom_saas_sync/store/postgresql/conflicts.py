"""The conflict log: reading it, and the transaction for manual resolutions. No decisions are made here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import psycopg

from atom_saas_sync.core.signing import Signer
from atom_saas_sync.model import ConflictFilter, LoggedConflict
from atom_saas_sync.store.postgresql.batch import Batch
from atom_saas_sync.store.postgresql.database import Database
from atom_saas_sync.store.postgresql.resolutions import logged_conflict
from atom_saas_sync.store.postgresql.rows import Row

_FILTER = """
    (%(severity)s::text IS NULL OR severity = %(severity)s)
    AND (%(type)s::text IS NULL OR conflict_type = %(type)s)
    AND (%(skill)s::text IS NULL OR log.skill_id = %(skill)s)
    AND (resolved_at IS NOT NULL) = %(resolved)s AND about_skill
"""
_ORDER = (
    "CASE severity WHEN 'CRITICAL' THEN 0 WHEN 'HIGH' THEN 1 WHEN 'MEDIUM' THEN 2 ELSE 3 END, log.created_at, log.id"
)
_WHOLE = """
    SELECT log.*, c.skill_data AS cached_text, c.updated_at AS cached_at
    FROM conflict_log AS log LEFT JOIN skill_cache AS c ON c.skill_id = log.skill_id
"""
_UNSEEN = "replaced_unseen AND id = ANY(%s)"


class ConflictLog:
    """Reads conflicts, and opens the transaction that resolves them."""

    def __init__(self, database: Database, *, history_versions: int, signer: Signer | None = None) -> None:
        """Work on `database`; keep `history_versions` former versions of each skill."""
        self._database = database
        self._history_versions = history_versions
        self._signer = signer

    def list_conflicts(
        self, wanted: ConflictFilter, *, limit: int | None = None, offset: int = 0
    ) -> list[LoggedConflict]:
        """Return conflicts without their versions: open ones by severity and age, resolved ones by time."""
        order = "log.resolved_at DESC, log.id DESC" if wanted.resolved else _ORDER
        with self._database.reading() as connection:
            rows = connection.execute(
                f"""
                SELECT id, skill_id, conflict_type, severity, resolution_strategy, resolved_at, resolved_by,
                    undone_at, undone_by, created_at, updated_at
                FROM conflict_log AS log WHERE {_FILTER} ORDER BY {order} LIMIT %(limit)s OFFSET %(offset)s
                """,  # noqa: S608 - constants
                {**_values(wanted), "limit": limit, "offset": offset},
            )
            return [logged_conflict(row) for row in rows]

    def count(self, wanted: ConflictFilter) -> int:
        """Return the number of matching conflicts."""
        with self._database.reading() as connection:
            row = connection.execute(
                f"SELECT count(*) FROM conflict_log AS log WHERE {_FILTER}",  # noqa: S608 - constants
                _values(wanted),
            ).fetchone()
            assert row is not None
            return int(row[0])

    def note_seen(self, ids: Sequence[int]) -> None:
        """Record that a user has seen these conflicts; writes nothing if that is already recorded."""
        wanted = (list(ids),)
        with self._database.reading() as connection:
            if not connection.execute(f"SELECT FROM conflict_log WHERE {_UNSEEN} LIMIT 1", wanted).fetchall():
                return
        with self._database.transaction() as connection:
            connection.execute(f"UPDATE conflict_log SET replaced_unseen = false WHERE {_UNSEEN}", wanted)  # noqa: S608 - a constant

    def conflict(self, conflict_id: int) -> LoggedConflict | None:
        """Return one conflict with its versions and the current local version."""
        with self._database.reading() as connection:
            return _find(connection, conflict_id)

    @contextmanager
    def resolving(self) -> Iterator[ResolutionBatch]:
        """Open the transaction that applies manual decisions: all of them, or none."""
        with self._database.transaction(bulk=True) as connection:
            desk = ResolutionBatch(connection, self._history_versions, signer=self._signer)
            yield desk
            desk.finish()
            self._database.notifications.send(connection, desk.changes, in_run=False)


class ResolutionBatch(Batch):
    """A batch in which a user resolves conflicts."""

    def conflict(self, conflict_id: int) -> LoggedConflict | None:
        """Return one conflict with its versions and the current local version."""
        return _find(self._connection, conflict_id)

    def open_ids(self, wanted: ConflictFilter) -> Sequence[int]:
        """Return the ids of the matching open conflicts."""
        rows = self._connection.execute(
            f"SELECT id FROM conflict_log AS log WHERE {_FILTER} ORDER BY id",  # noqa: S608 - constants
            {**_values(wanted), "resolved": False},
        )
        return [row[0] for row in rows]

    def mark_undone(self, conflict_id: int, actor: str, now: datetime) -> None:
        """Record that a user has undone a resolution."""
        self._connection.execute(
            "UPDATE conflict_log SET undone_at = %(now)s, undone_by = %(actor)s, updated_at = %(now)s, "
            "replaced_unseen = false WHERE id = %(id)s",
            {"now": now.replace(microsecond=0), "actor": actor, "id": conflict_id},
        )


def _values(wanted: ConflictFilter) -> dict[str, Any]:
    return {
        "severity": wanted.severity,
        "type": wanted.type,
        "skill": wanted.skill_id,
        "resolved": wanted.resolved,
    }


def _find(connection: psycopg.Connection[Row], conflict_id: int) -> LoggedConflict | None:
    row = connection.execute(f"{_WHOLE} WHERE log.id = %s", (conflict_id,)).fetchone()
    return None if row is None else logged_conflict(row)
