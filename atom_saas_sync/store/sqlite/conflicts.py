"""The conflict log: reading it, and the transaction for manual resolutions. No decisions are made here."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from atom_saas_sync.core.signing import Signer
from atom_saas_sync.model import ConflictFilter, LoggedConflict
from atom_saas_sync.store.sqlite.batch import Batch
from atom_saas_sync.store.sqlite.bulk import bulk_write
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.store.sqlite.resolutions import logged_conflict
from atom_saas_sync.times import format_time

_FILTER = """
    (:severity IS NULL OR severity = :severity)
    AND (:type IS NULL OR conflict_type = :type)
    AND (:skill IS NULL OR log.skill_id = :skill)
    AND (resolved_at IS NOT NULL) = :resolved AND about_skill = 1
"""
_ORDER = (
    "CASE severity WHEN 'CRITICAL' THEN 0 WHEN 'HIGH' THEN 1 WHEN 'MEDIUM' THEN 2 ELSE 3 END, "
    "julianday(log.created_at), log.id"
)
_WHOLE = """
    SELECT log.*, CAST(c.skill_data AS TEXT) AS cached_text, c.updated_at AS cached_at
    FROM conflict_log AS log LEFT JOIN skill_cache AS c ON c.skill_id = log.skill_id
"""


class ConflictLog:
    """Reads conflicts, and opens the transaction that resolves them."""

    def __init__(self, database: Database, *, history_versions: int, signer: Signer | None = None) -> None:
        """Use `database`; keep `history_versions` former versions of each skill."""
        self.database = self._database = database
        self._history_versions = history_versions
        self._signer = signer

    def list_conflicts(
        self, wanted: ConflictFilter, *, limit: int | None = None, offset: int = 0
    ) -> list[LoggedConflict]:
        """Return conflicts, the most severe and oldest first, resolved ones by their time; without the versions."""
        order = "julianday(log.resolved_at) DESC, log.id DESC" if wanted.resolved else _ORDER
        with self._database.reading() as connection:
            rows = connection.execute(
                f"""
                SELECT id, skill_id, conflict_type, severity, resolution_strategy, resolved_at, resolved_by,
                    undone_at, undone_by, created_at, updated_at
                FROM conflict_log AS log WHERE {_FILTER} ORDER BY {order} LIMIT :limit OFFSET :offset
                """,  # noqa: S608 - constants
                {**_values(wanted), "limit": -1 if limit is None else limit, "offset": offset},
            )
            return [logged_conflict(row) for row in rows]

    def count(self, wanted: ConflictFilter) -> int:
        """Return the number of matching conflicts."""
        with self._database.reading() as connection:
            number: int = connection.execute(
                f"SELECT count(*) FROM conflict_log AS log WHERE {_FILTER}",  # noqa: S608 - constants
                _values(wanted),
            ).fetchone()[0]
            return number

    def note_seen(self, ids: Sequence[int]) -> None:
        """Record that somebody has looked at these conflicts; nothing is written if that is already recorded."""
        unseen = "replaced_unseen = 1 AND id IN (SELECT value FROM json_each(?))"
        with self._database.reading() as connection:
            if not connection.execute(f"SELECT 1 FROM conflict_log WHERE {unseen}", (json.dumps(ids),)).fetchone():  # noqa: S608 - a constant
                return
        with self._database.transaction() as connection:
            connection.execute(f"UPDATE conflict_log SET replaced_unseen = 0 WHERE {unseen}", (json.dumps(ids),))  # noqa: S608 - a constant

    def conflict(self, conflict_id: int) -> LoggedConflict | None:
        """Return one conflict with its versions and the current local version."""
        with self._database.reading() as connection:
            return _find(connection, conflict_id)

    @contextmanager
    def resolving(self) -> Iterator[ResolutionBatch]:
        """Open the transaction in which manual decisions are carried out: all of them, or none."""
        with self._database.transaction() as connection, bulk_write(connection):
            desk = ResolutionBatch(connection, self._history_versions, signer=self._signer)
            yield desk
            desk.finish()


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
            "UPDATE conflict_log SET undone_at = ?1, undone_by = ?2, updated_at = ?1, replaced_unseen = 0 "
            "WHERE id = ?3",
            (format_time(now), actor, conflict_id),
        )


def _values(wanted: ConflictFilter) -> dict[str, Any]:
    return {
        "severity": wanted.severity,
        "type": wanted.type,
        "skill": wanted.skill_id,
        "resolved": wanted.resolved,
    }


def _find(connection: sqlite3.Connection, conflict_id: int) -> LoggedConflict | None:
    row = connection.execute(f"{_WHOLE} WHERE log.id = ?", (conflict_id,)).fetchone()
    return None if row is None else logged_conflict(row)
