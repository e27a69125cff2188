"""Read the audit trail of runs."""

from __future__ import annotations

import sqlite3
from math import isfinite
from typing import Any

from atom_saas_sync.core.canonical import decode_object
from atom_saas_sync.core.run_log import KILLED, LoggedRun
from atom_saas_sync.model import ErrorInfo
from atom_saas_sync.store.sqlite import lock
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.times import parse_time

_LOCKS = {"categories": "skills"}
# Runs that `watch` starts after a reconnect, and those of its scheduler ("schedule").
_FILTER = """
    (:kind IS NULL OR kind = :kind OR (:kind = 'watch' AND started_by IN ('watch', 'schedule')))
"""


class RunHistory:
    """Reads runs. A run whose process was killed is shown as failed before the next run notes it as such."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list_runs(self, kind: str | None, *, limit: int | None = None) -> list[LoggedRun]:
        """Return the runs of a kind, newest first; `watch` means the runs started by `watch`."""
        with self._database.reading() as connection:
            rows = connection.execute(
                f"SELECT * FROM sync_run WHERE {_FILTER} ORDER BY id DESC LIMIT :limit",  # noqa: S608 - constants
                {"kind": kind, "limit": -1 if limit is None else limit},
            ).fetchall()
        return [self._run(row) for row in rows]

    def count(self, kind: str | None) -> int:
        """Return how many runs of a kind there are."""
        with self._database.reading() as connection:
            number: int = connection.execute(
                f"SELECT count(*) FROM sync_run WHERE {_FILTER}",  # noqa: S608 - constants
                {"kind": kind},
            ).fetchone()[0]
            return number

    def run(self, run_id: int) -> LoggedRun | None:
        """Return one run, None if there is none."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT * FROM sync_run WHERE id = ?", (run_id,)).fetchone()
        return None if row is None else self._run(row)

    def _run(self, row: sqlite3.Row) -> LoggedRun:
        """Return the run in a row. Invalid values from other programs are left out."""
        values = {name: _text(row[name]) for name in row.keys()}  # noqa: SIM118 - of a Row, not a dict
        status, error = str(values["status"]), None
        reasons = _reasons(values["reasons"])
        if values["error_type"] is not None:
            error = ErrorInfo(str(values["error_type"]), str(values["error_message"] or ""), None)
        if status == "running" and not self._is_running(values):
            status, error, reasons = "failed", KILLED, (KILLED.type,)
        seconds = values["duration_seconds"]
        return LoggedRun(
            id=row["id"],
            kind=str(values["kind"]),
            status=status,
            started_at=parse_time(values["started_at"]),
            ended_at=parse_time(values["finished_at"]),
            duration_seconds=seconds if isinstance(seconds, int | float) and isfinite(seconds) else None,
            started_by=str(values["started_by"]),
            counts=_object(values["counts"]),
            reasons=reasons,
            proof=_object(values["proof"]),
            error=error,
        )

    def _is_running(self, values: dict[str, Any]) -> bool:
        kind = str(values["kind"])
        held = lock.holder(self._database.path, _LOCKS.get(kind, kind))
        return held is not None and held.get("pid", values["pid"]) == values["pid"]


def _text(value: Any) -> Any:  # noqa: ANN401 - a column
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _object(text: object) -> dict[str, Any]:
    return decode_object(text) or {} if isinstance(text, str) else {}


def _reasons(text: object) -> tuple[str, ...]:
    wrapped = decode_object(f'{{"reasons": {text}}}')
    found = None if wrapped is None else wrapped.get("reasons")
    return tuple(map(str, found)) if isinstance(found, list) else ()
