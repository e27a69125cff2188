"""The audit trail: one row for each run, the state that the Atom backend reads, and the counters of runs."""

from __future__ import annotations

import json
import os
import sqlite3
from datetime import datetime, timedelta
from shlex import quote

from atom_saas_sync.core.marketplace import marketplace_of
from atom_saas_sync.errors import AtomSyncError, WrongMarketplace
from atom_saas_sync.model import METRIC_ERRORS, CatalogueCounts, ErrorInfo, RatingReport, RunReport
from atom_saas_sync.store.counters import increment, observe_duration
from atom_saas_sync.store.database import Database
from atom_saas_sync.times import format_time, parse_time

MARKETPLACE = "marketplace"
"""The fact that holds the URL of the marketplace that the database belongs to."""

APPROVED_DELETIONS = "approved_deletions"
"""The fact that holds how many deletions a person has approved by `db rebind`, until a sync has succeeded."""

TIMER = "timer"
"""Who starts scheduled runs, in the audit trail."""

RUNS_KEPT = timedelta(days=90)

METRIC_TYPES = {"skills": "skill", "categories": "skill", "ratings": "rating"}
"""The `type` label of the metrics for each kind of run."""


class Runs:
    """Begins and ends runs. The caller holds the lock of the kind while a run is open."""

    def __init__(self, database: Database, *, marketplace: str | None = None) -> None:
        """Work on `database`; `marketplace` is what it belongs to from the first answer on, if to none yet."""
        self._database = database
        self._unbound = marketplace

    def begin(self, kind: str, *, started_by: str, now: datetime) -> int:
        """Note the start of a run and return its id. A run that was killed is noted as such."""
        with self._database.transaction() as connection:
            self._end_killed_runs(connection, kind, now)
            connection.execute("DELETE FROM sync_run WHERE started_at < ?", (format_time(now - RUNS_KEPT),))
            cursor = connection.execute(
                "INSERT INTO sync_run (kind, started_at, status, started_by, pid) VALUES (?, ?, 'running', ?, ?)",
                (kind, format_time(now), started_by, os.getpid()),
            )
            if kind == "skills":
                connection.execute(
                    "UPDATE sync_state SET status = 'syncing', last_sync_at = ?1, updated_at = ?1", (format_time(now),)
                )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def finish(self, report: RunReport | RatingReport, *, now: datetime, requests: dict[tuple[str, str], int]) -> None:
        """Note the end of a run with its counts, its proof of completeness and its error, all in one transaction."""
        from msgspec.structs import asdict

        from atom_saas_sync.store.catalogue import count_requests

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
                    json.dumps(asdict(report.proof) if isinstance(report, RunReport) else {}),
                    json.dumps(report.reasons),
                    report.error.type if report.error else None,
                    report.error.message if report.error else None,
                    report.run_id,
                ),
            )
            self._count_run(connection, report)
            if report.kind == "skills" and report.status == "success":
                connection.execute("DELETE FROM fact WHERE name = ?", (APPROVED_DELETIONS,))
            if isinstance(report, RunReport) and report.kind == "skills":
                _update_sync_state(connection, report, format_time(now))

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
        """Note a run that has ended and is no sync: no counter and no state knows of it."""
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
        """Count a run that found the lock taken (data-model.md, rule 9)."""
        with self._database.transaction() as connection:
            increment(connection, "atom_saas_sync_errors_total", type=METRIC_TYPES[kind], error="locked")

    def bind(self, now: datetime) -> None:
        """Note which marketplace the database belongs to, before anything from it is stored; once noted, it stays."""
        if self._unbound is None:
            return
        with self._database.transaction() as connection:
            if get_fact(connection, MARKETPLACE) is None:
                set_fact(connection, MARKETPLACE, self._unbound, now)
        self._unbound = None

    def marketplace(self) -> str | None:
        """Return which marketplace the database belongs to; None before anything was stored of one."""
        with self._database.reading() as connection:
            return get_fact(connection, MARKETPLACE)

    def reached_marketplace(self, now: datetime, skew_seconds: float | None) -> None:
        """Note that the marketplace was reached, and how far its clock is from ours."""
        self.bind(now)
        with self._database.transaction() as connection:
            set_fact(connection, "marketplace_reached_at", format_time(now), now)
            if skew_seconds is not None:
                set_fact(connection, "clock_skew_seconds", f"{skew_seconds:.0f}", now)

    def scheduling_stopped(self) -> bool:
        """Tell whether the emergency stop is on (`jobs stop`)."""
        with self._database.reading() as connection:
            return get_fact(connection, "emergency_stop") is not None

    def stop_scheduling(self, *, actor: str, now: datetime) -> None:
        """Switch the emergency stop on: runs that a timer starts do nothing until `resume_scheduling`."""
        from atom_saas_sync.store.catalogue import write_audit

        with self._database.transaction() as connection:
            set_fact(connection, "emergency_stop", format_time(now), now)
            write_audit(connection, actor, "jobs stop", "", now, {})

    def resume_scheduling(self, *, actor: str, now: datetime) -> None:
        """Switch the emergency stop off."""
        from atom_saas_sync.store.catalogue import write_audit

        with self._database.transaction() as connection:
            connection.execute("DELETE FROM fact WHERE name = 'emergency_stop'")
            write_audit(connection, actor, "jobs start", "", now, {})

    def last_scheduled_success(self, kind: str) -> datetime | None:
        """Return when the newest run of a kind that a timer started and that succeeded began."""
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT max(started_at) FROM sync_run WHERE kind = ? AND status = 'success' AND started_by = ?",
                (kind, TIMER),
            ).fetchone()
            return parse_time(row[0])

    def run_of_process(self, pid: int, *, since: datetime) -> int | None:
        """Return the run that a process has begun, None if it has begun none yet."""
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
                connection.execute(
                    "UPDATE sync_state SET total_syncs = total_syncs + 1, failed_syncs = failed_syncs + 1, "
                    "error_count = error_count + 1, last_error = 'the process was killed'"
                )

    def _count_run(self, connection: sqlite3.Connection, report: RunReport | RatingReport) -> None:
        run_type = METRIC_TYPES[report.kind]
        if report.kind != "categories":
            observe_duration(connection, report.duration_seconds, run_type=run_type)
            if report.status == "success":
                increment(connection, "atom_saas_sync_success_total", type=run_type)
        if report.error is not None:
            kind = report.error.type if report.error.type in METRIC_ERRORS else "internal"
            increment(connection, "atom_saas_sync_errors_total", type=run_type, error=kind)
        if isinstance(report, RunReport):  # ratings were counted one by one, as they were settled
            _count_items(connection, report.counts)


def _count_items(connection: sqlite3.Connection, counts: CatalogueCounts) -> None:
    # What was added, updated and deleted was counted in the transactions that did it.
    for action in ("unchanged", "invalid"):
        increment(connection, "atom_saas_sync_items_total", getattr(counts, action), type="skill", action=action)
    changed = counts.categories_changed
    increment(connection, "atom_saas_sync_items_total", changed, type="category", action="updated")
    unchanged = max(0, counts.categories_synced - changed)
    increment(connection, "atom_saas_sync_items_total", unchanged, type="category", action="unchanged")


def _update_sync_state(connection: sqlite3.Connection, report: RunReport, moment: str) -> None:
    succeeded = report.status == "success"
    connection.execute(
        """
        UPDATE sync_state SET
            status = CASE WHEN ?1 THEN 'idle' ELSE 'error' END,
            last_successful_sync_at = CASE WHEN ?1 THEN ?2 ELSE last_successful_sync_at END,
            total_syncs = total_syncs + 1,
            successful_syncs = successful_syncs + ?1,
            failed_syncs = failed_syncs + (NOT ?1),
            skills_cached = (SELECT count(*) FROM skill_cache),
            categories_cached = (SELECT count(*) FROM category_cache),
            last_error = CASE WHEN ?1 THEN NULL ELSE ?3 END,
            error_count = CASE WHEN ?1 THEN 0 ELSE error_count + 1 END,
            updated_at = ?2
        """,
        (succeeded, moment, _describe(report.error, report.reasons)),
    )


def _describe(error: ErrorInfo | None, reasons: tuple[str, ...]) -> str | None:
    return error.message if error else ", ".join(reasons) or None


def set_fact(connection: sqlite3.Connection, name: str, value: str, now: datetime) -> None:
    """Remember a small fact beyond this process."""
    connection.execute(
        "INSERT INTO fact (name, value, updated_at) VALUES (?, ?, ?) "
        "ON CONFLICT (name) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
        (name, value, format_time(now)),
    )


def get_fact(connection: sqlite3.Connection, name: str) -> str | None:
    """Return what `set_fact` remembered."""
    row = connection.execute("SELECT CAST(value AS TEXT) FROM fact WHERE name = ?", (name,)).fetchone()
    return row[0] if row else None


def last_run_started_at(connection: sqlite3.Connection, kind: str) -> datetime | None:
    """Return when the newest run of a kind began."""
    row = connection.execute("SELECT max(started_at) FROM sync_run WHERE kind = ?", (kind,)).fetchone()
    return parse_time(row[0])


def runs_for(api_url: str, database: Database) -> Runs:
    """Return the audit trail of a database that belongs to the marketplace at that URL, or to none yet.

    Raises WrongMarketplace.
    """
    wanted = marketplace_of(api_url)
    runs = Runs(database, marketplace=wanted)
    bound = runs.marketplace()
    if bound not in (None, wanted):
        raise WrongMarketplace(
            f"the database {database.path} belongs to {bound}, but ATOM_SAAS_API_URL is {api_url}",
            hint="use another database (`--database`, ATOM_SAAS_DATABASE_URL) for this marketplace; or "
            f"`atom-sync db rebind {quote(api_url)}` shows what would change here, and asks",
        )
    return runs
