"""Reads the audit trail of runs."""

from __future__ import annotations

from math import isfinite
from typing import Any

from atom_saas_sync.core.canonical import decode_object
from atom_saas_sync.core.run_log import KILLED, LoggedRun
from atom_saas_sync.model import ErrorInfo
from atom_saas_sync.store.postgresql import lock
from atom_saas_sync.store.postgresql.database import Database
from atom_saas_sync.store.postgresql.rows import Row

_LOCKS = {"categories": "skills"}
# Runs that `watch` starts after a reconnect, and those of its scheduler ("schedule").
_FILTER = """
    (%(kind)s::text IS NULL OR kind = %(kind)s OR (%(kind)s = 'watch' AND started_by IN ('watch', 'schedule')))
"""


class RunHistory:
    """Reads runs. A run whose process was killed is shown as failed even before the next run records that."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list_runs(self, kind: str | None, *, limit: int | None = None) -> list[LoggedRun]:
        """Return the runs of a kind, newest first; `watch` means those that it started."""
        with self._database.reading() as connection:
            rows = connection.execute(
                f"SELECT * FROM sync_run WHERE {_FILTER} ORDER BY id DESC LIMIT %(limit)s",  # noqa: S608 - constants
                {"kind": kind, "limit": limit},
            ).fetchall()
        return [self._run(row) for row in rows]

    def count(self, kind: str | None) -> int:
        """Return the number of runs of a kind."""
        with self._database.reading() as connection:
            row = connection.execute(
                f"SELECT count(*) FROM sync_run WHERE {_FILTER}",  # noqa: S608 - constants
                {"kind": kind},
            ).fetchone()
            assert row is not None
            return int(row[0])

    def run(self, run_id: int) -> LoggedRun | None:
        """Return one run, None if there is none."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT * FROM sync_run WHERE id = %s", (run_id,)).fetchone()
        return None if row is None else self._run(row)

    def _run(self, row: Row) -> LoggedRun:
        """Return the run in a row. Other programs may have written it; invalid JSON is left out."""
        status, error, reasons = row["status"], None, _reasons(row["reasons"])
        if row["error_type"] is not None:
            error = ErrorInfo(row["error_type"], row["error_message"] or "", None)
        if status == "running" and not self._is_running(row):
            status, error, reasons = "failed", KILLED, (KILLED.type,)
        seconds = row["duration_seconds"]
        return LoggedRun(
            id=row["id"],
            kind=row["kind"],
            status=status,
            started_at=row["started_at"],
            ended_at=row["finished_at"],
            duration_seconds=seconds if seconds is not None and isfinite(seconds) else None,
            started_by=row["started_by"],
            counts=decode_object(row["counts"]) or {},
            reasons=reasons,
            proof=decode_object(row["proof"]) or {},
            error=error,
            host=row["host"],
        )

    def _is_running(self, row: Row) -> bool:
        held = lock.holder(self._database, _LOCKS.get(row["kind"], row["kind"]))
        if held is None:
            return False
        return not held or (held.get("pid"), held.get("host")) == (row["pid"], row["host"] or held.get("host"))


def _reasons(text: str) -> tuple[str, ...]:
    wrapped: dict[str, Any] | None = decode_object(f'{{"reasons": {text}}}')
    found = None if wrapped is None else wrapped.get("reasons")
    return tuple(map(str, found)) if isinstance(found, list) else ()
