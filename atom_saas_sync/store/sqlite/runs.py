"""The audit trail: one row for each run, the state that the Atom backend reads, and the counters of runs."""

from __future__ import annotations

import json
import os
import sqlite3
from datetime import datetime

from atom_saas_sync.errors import AtomSyncError
from atom_saas_sync.model import METRIC_ERRORS, TIMER, Counts, Report, SyncState
from atom_saas_sync.store.limits import RUNS_KEPT
from atom_saas_sync.store.names import (
    APPROVED_DELETIONS,
    CLOCK_SKEW,
    EMERGENCY_STOP,
    LAST_SUCCESS,
    MARKETPLACE,
    METRIC_TYPES,
    REACHED_AT,
    SYNC_STATE_ID,
)
from atom_saas_sync.store.sqlite.audit import write_audit
from atom_saas_sync.store.sqlite.counters import count_requests, increment, observe_duration
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.store.stored_json import stored_list
from atom_saas_sync.times import format_time, parse_time, time_text


class Runs:
    """Begins and ends runs. The caller holds the lock of the kind while a run is open."""

    def __init__(self, database: Database, *, marketplace: str | None = None) -> None:
        """Work on `database`; `marketplace` is what it belongs to from the first answer on, if to none yet."""
        self._database = database
        self._unbound = marketplace

    def begin(self, kind: str, *, started_by: str, now: datetime) -> int:
        """Record the start of a run and return its id. An earlier run that was killed is marked as such."""
        with self._database.transaction() as connection:
            self._end_killed_runs(connection, kind, now)
            connection.execute("DELETE FROM sync_run WHERE started_at < ?", (format_time(now - RUNS_KEPT),))
            cursor = connection.execute(
                "INSERT INTO sync_run (kind, started_at, status, started_by, pid) VALUES (?, ?, 'running', ?, ?)",
                (kind, format_time(now), started_by, os.getpid()),
            )
            if kind == "skills":
                mirror_state(connection, now)
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def finish(self, report: Report[Counts], *, now: datetime, requests: dict[tuple[str, str], int]) -> None:
        """Record the end of a run with its counts, proof of completeness and error, in one transaction."""
        from msgspec.structs import asdict

        with self._database.transaction() as connection:
            count_requests(connection, requests)
            connection.execute(
                """
                UPDATE sync_run SET finished_at = ?, duration_seconds = ?, status = ?, counts = ?, proof = ?,
                    reasons = ?, error_type = ?, error_message = ? WHERE id = ?
                """,
                (
                    format_time(now),
                    report.duration_seconds,
                    report.status,
                    json.dumps(asdict(report.counts)),
                    json.dumps(report.proven()),
                    json.dumps(report.reasons),
                    report.error.type if report.error else None,
                    report.error.message if report.error else None,
                    report.run_id,
                ),
            )
            self._count_run(connection, report)
            if report.kind == "skills" and report.status == "success":
                connection.execute("DELETE FROM fact WHERE name = ?", (APPROVED_DELETIONS,))
                set_fact(connection, LAST_SUCCESS, format_time(now), now)
            if report.kind == "skills":
                increment(connection, "runs", result="success" if report.status == "success" else "failed")
                mirror_state(connection, now)

    def note(
        self,
        kind: str,
        *,
        started_by: str,
        began: datetime,
        now: datetime,
        counts: dict[str, int],
        error: AtomSyncError | None,
    ) -> None:
        """Record a finished run that is not a sync: it affects no counter and no state."""
        with self._database.transaction() as connection:
            connection.execute(
                """
                INSERT INTO sync_run (kind, started_at, finished_at, duration_seconds, status, started_by, pid, counts,
                    error_type, error_message)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                """,
                (
                    kind,
                    format_time(began),
                    format_time(now),
                    round((now - began).total_seconds(), 3),
                    "failed" if error else "success",
                    started_by,
                    os.getpid(),
                    json.dumps(counts),
                    error.kind if error else None,
                    error.message if error else None,
                ),
            )

    def count_locked_out(self, kind: str) -> None:
        """Count a run that could not get the lock."""
        with self._database.transaction() as connection:
            increment(connection, "atom_saas_sync_errors_total", type=METRIC_TYPES[kind], error="locked")

    def bind(self, now: datetime) -> None:
        """Record the marketplace of the database before anything from it is stored; it never changes afterwards."""
        if self._unbound is None:
            return
        with self._database.transaction() as connection:
            if get_fact(connection, MARKETPLACE) is None:
                set_fact(connection, MARKETPLACE, self._unbound, now)
        self._unbound = None

    def marketplace(self) -> str | None:
        """Return which marketplace the database belongs to; None before anything was stored."""
        with self._database.reading() as connection:
            return get_fact(connection, MARKETPLACE)

    def reached_marketplace(self, now: datetime, skew_seconds: float | None) -> None:
        """Record that the marketplace was reached, and the difference of its clock from ours."""
        self.bind(now)
        with self._database.transaction() as connection:
            set_fact(connection, REACHED_AT, format_time(now), now)
            if skew_seconds is not None:
                set_fact(connection, CLOCK_SKEW, f"{skew_seconds:.0f}", now)

    def scheduling_stopped(self) -> bool:
        """Tell whether the emergency stop is on (`jobs stop`)."""
        with self._database.reading() as connection:
            return get_fact(connection, EMERGENCY_STOP) is not None

    def auto_sync_is_off(self) -> bool:
        """Tell whether the Atom backend has switched scheduled syncs off (`sync_state.auto_sync_enabled`)."""
        with self._database.reading() as connection:
            return auto_sync_is_off(connection)

    def stop_scheduling(self, *, actor: str, now: datetime) -> None:
        """Turn the emergency stop on: scheduled runs do nothing until `resume_scheduling`."""
        with self._database.transaction() as connection:
            set_fact(connection, EMERGENCY_STOP, format_time(now), now)
            write_audit(connection, actor, "jobs stop", "", now, {})

    def resume_scheduling(self, *, actor: str, now: datetime) -> None:
        """Turn the emergency stop off."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM fact WHERE name = 'emergency_stop'")
            write_audit(connection, actor, "jobs start", "", now, {})

    def last_scheduled_success(self, kind: str) -> datetime | None:
        """Return the start of the newest successful run of a kind that a timer started."""
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT max(started_at) FROM sync_run WHERE kind = ? AND status = 'success' AND started_by = ?",
                (kind, TIMER),
            ).fetchone()
            return parse_time(row[0])

    def last_success_of_fleet(self, kind: str) -> datetime | None:  # noqa: ARG002 - a file is of one host
        """Return None: a file is of one host."""
        return None

    def run_of_process(self, pid: int, *, since: datetime) -> int | None:
        """Return the run that a process has started, or None."""
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT max(id) FROM sync_run WHERE pid = ? AND started_at >= ?", (pid, format_time(since))
            ).fetchone()
            return None if row[0] is None else int(row[0])

    def _end_killed_runs(self, connection: sqlite3.Connection, kind: str, now: datetime) -> None:
        killed = connection.execute(
            "SELECT id, started_at FROM sync_run WHERE kind = ? AND status = 'running'", (kind,)
        ).fetchall()
        for row in killed:
            connection.execute(
                "UPDATE sync_run SET status = 'failed', finished_at = ?, reasons = '[\"interrupted\"]', "
                "error_type = 'interrupted', error_message = 'the process was killed' WHERE id = ?",
                (format_time(now), row["id"]),
            )
            increment(connection, "atom_saas_sync_errors_total", type=METRIC_TYPES[kind], error="interrupted")
            if kind == "skills":
                increment(connection, "runs", result="failed")

    def _count_run(self, connection: sqlite3.Connection, report: Report[Counts]) -> None:
        run_type = METRIC_TYPES[report.kind]
        if report.kind != "categories":
            observe_duration(connection, report.duration_seconds, run_type=run_type)
            if report.status == "success":
                increment(connection, "atom_saas_sync_success_total", type=run_type)
        if report.error is not None:
            kind = report.error.type if report.error.type in METRIC_ERRORS else "internal"
            increment(connection, "atom_saas_sync_errors_total", type=run_type, error=kind)
        for (item, action), number in report.counts.uncounted().items():
            increment(connection, "atom_saas_sync_items_total", number, type=item, action=action)


def read_state(connection: sqlite3.Connection) -> SyncState:
    """Return the state of the skills sync from the audit trail, ignoring what other programs wrote elsewhere."""
    newest = connection.execute(
        "SELECT status, started_at, error_message, reasons FROM sync_run WHERE kind = 'skills' ORDER BY id DESC LIMIT 1"
    ).fetchone()
    success = connection.execute(
        "SELECT finished_at FROM sync_run WHERE kind = 'skills' AND status = 'success' ORDER BY id DESC LIMIT 1"
    ).fetchone()
    succeeded, failed = (
        connection.execute(
            # Another program may have written a number that no count reaches.
            "SELECT CAST(min(max(coalesce(sum(value), 0), 0), 1e15) AS INTEGER) FROM counter "
            "WHERE name = 'runs' AND labels = ?",
            (json.dumps({"result": result}),),
        ).fetchone()[0]
        for result in ("success", "failed")
    )
    status = "idle"
    if newest is not None:
        status = {"success": "idle", "running": "syncing"}.get(newest["status"], "error")
    return SyncState(
        status=status,
        last_sync_at=parse_time(newest["started_at"] if newest else get_fact(connection, LAST_SUCCESS)),
        last_successful_sync_at=parse_time(success[0] if success else get_fact(connection, LAST_SUCCESS)),
        total_syncs=succeeded + failed,
        successful_syncs=succeeded,
        failed_syncs=failed,
        last_error=_describe(newest["error_message"], newest["reasons"]) if status == "error" else None,
    )


def mirror_state(connection: sqlite3.Connection, now: datetime) -> None:
    """Write the state of the skills sync into sync_state, which the Atom backend reads."""
    state = read_state(connection)
    connection.execute(
        """
        INSERT INTO sync_state
            (id, device_id, status, last_sync, last_sync_at, last_successful_sync_at, total_syncs, successful_syncs,
             failed_syncs, skills_cached, categories_cached, last_error, error_count, pending_actions_count, updated_at)
        VALUES (:id, :id, :status, :succeeded_at, :started_at, :succeeded_at, :total, :successful, :failed,
            (SELECT count(*) FROM skill_cache), (SELECT count(*) FROM category_cache), :error,
            (SELECT count(*) FROM sync_run WHERE kind = 'skills' AND status NOT IN ('success', 'running') AND id >
                coalesce((SELECT max(id) FROM sync_run WHERE kind = 'skills' AND status = 'success'), 0)),
            :running, :now)
        ON CONFLICT DO UPDATE SET
            id = excluded.id, device_id = excluded.device_id, status = excluded.status, last_sync = excluded.last_sync,
            last_sync_at = excluded.last_sync_at, last_successful_sync_at = excluded.last_successful_sync_at,
            total_syncs = excluded.total_syncs, successful_syncs = excluded.successful_syncs,
            failed_syncs = excluded.failed_syncs, skills_cached = excluded.skills_cached,
            categories_cached = excluded.categories_cached, last_error = excluded.last_error,
            error_count = excluded.error_count, pending_actions_count = excluded.pending_actions_count,
            updated_at = excluded.updated_at
        """,
        {
            "id": SYNC_STATE_ID,
            "status": state.status,
            "started_at": time_text(state.last_sync_at),
            "succeeded_at": time_text(state.last_successful_sync_at),
            "total": state.total_syncs,
            "successful": state.successful_syncs,
            "failed": state.failed_syncs,
            "error": state.last_error,
            "running": int(state.status == "syncing"),
            "now": format_time(now),
        },
    )


def _describe(error_message: str | None, reasons: str) -> str | None:
    """Return why a run failed, from its row."""
    if error_message:
        return error_message
    return ", ".join(map(str, stored_list(reasons))) or None


def auto_sync_is_off(connection: sqlite3.Connection) -> bool:
    """Tell whether the Atom backend has switched scheduled syncs off."""
    row = connection.execute(
        "SELECT 1 FROM sync_state WHERE id = ? AND auto_sync_enabled = 0", (SYNC_STATE_ID,)
    ).fetchone()
    return row is not None


def set_fact(connection: sqlite3.Connection, name: str, value: str, now: datetime) -> None:
    """Store a small fact that outlives this process."""
    connection.execute(
        "INSERT INTO fact (name, value, updated_at) VALUES (?, ?, ?) "
        "ON CONFLICT (name) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
        (name, value, format_time(now)),
    )


def get_fact(connection: sqlite3.Connection, name: str) -> str | None:
    """Return what `set_fact` stored."""
    row = connection.execute("SELECT CAST(value AS TEXT) FROM fact WHERE name = ?", (name,)).fetchone()
    return row[0] if row else None


def last_run_started_at(connection: sqlite3.Connection, kind: str) -> datetime | None:
    """Return when the newest run of a kind began."""
    row = connection.execute("SELECT max(started_at) FROM sync_run WHERE kind = ?", (kind,)).fetchone()
    return parse_time(row[0])
