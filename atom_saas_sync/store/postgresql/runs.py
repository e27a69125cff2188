"""The audit trail: a row for each run, the state for the Atom backend, and the counters of runs."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from datetime import datetime
from math import isfinite
from typing import Any

import psycopg

from atom_saas_sync.errors import AtomSyncError, DatabaseError
from atom_saas_sync.model import METRIC_ERRORS, TIMER, Counts, Report, SyncState
from atom_saas_sync.store.counting import durations
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
    WORDS_MERGED,
)
from atom_saas_sync.store.postgresql.audit import write_audit
from atom_saas_sync.store.postgresql.counters import Counted, increment_all, requests_counted
from atom_saas_sync.store.postgresql.database import Database
from atom_saas_sync.store.postgresql.facts import ask_fact, drop_fact, get_fact, set_fact
from atom_saas_sync.store.postgresql.rows import Row
from atom_saas_sync.store.postgresql.skill_text import MERGE_WORDS, ask_words_changed, is_merging_due
from atom_saas_sync.store.stored_json import stored_list
from atom_saas_sync.times import format_time, parse_time

_log = logging.getLogger(__name__)

NEWEST_RUN = """
    SELECT status, started_at, error_message, reasons FROM sync_run WHERE kind = 'skills' ORDER BY id DESC LIMIT 1
"""
NEWEST_SUCCESS = """
    SELECT finished_at FROM sync_run WHERE kind = 'skills' AND status = 'success' ORDER BY id DESC LIMIT 1
"""
_RESULTS = "SELECT name, labels, value FROM counter WHERE name = 'runs'"
_END_KILLED = """
    UPDATE sync_run SET status = 'failed', finished_at = %s, reasons = '["interrupted"]',
        error_type = 'interrupted', error_message = 'the process was killed'
    WHERE kind = %s AND status = 'running' RETURNING 1
"""
AUTO_SYNC_OFF = f"SELECT FROM sync_state WHERE id = '{SYNC_STATE_ID}' AND NOT auto_sync_enabled"


class Runs:
    """Begins and ends runs. The caller holds the lock of the kind while a run is open."""

    def __init__(self, database: Database, *, marketplace: str | None = None) -> None:
        """Work on `database`; a new one belongs to `marketplace` from its first response on."""
        self._database = database
        self._unbound = marketplace

    def begin(self, kind: str, *, started_by: str, now: datetime) -> int:
        """Record the start of a run and return its id. An earlier run that was killed is marked as such."""
        with self._database.transaction(together=True) as connection:
            killed = connection.execute(_END_KILLED, (_second(now), kind))
            connection.execute("DELETE FROM sync_run WHERE started_at < %s", (now - RUNS_KEPT,))
            begun = connection.execute(
                "INSERT INTO sync_run (kind, started_at, status, started_by, host, pid) "
                "VALUES (%s, %s, 'running', %s, %s, %s) RETURNING id",
                (kind, _second(now), started_by, self._database.host, os.getpid()),
            )
            _count_killed(connection, kind, len(killed.fetchall()))
            if kind == "skills":
                mirror_state(connection, now)
        ((run_id,),) = begun.fetchall()
        return int(run_id)

    def finish(self, report: Report[Counts], *, now: datetime, requests: dict[tuple[str, str], int]) -> None:
        """Record the end of a run with its counts, proof of completeness and error, in one transaction."""
        from msgspec.structs import asdict

        with self._database.transaction(together=True) as connection:
            if report.kind == "skills":
                self._database.notifications.send(connection, 0, in_run=True, last=True)
            connection.execute(
                """
                UPDATE sync_run SET finished_at = %s, duration_seconds = %s, status = %s, counts = %s, proof = %s,
                    reasons = %s, error_type = %s, error_message = %s WHERE id = %s
                """,
                (
                    _second(now),
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
            counted = [*requests_counted(requests), *_counted(report)]
            if report.kind == "skills":
                counted.append(("runs", 1, {"result": "success" if report.status == "success" else "failed"}))
            increment_all(connection, counted)
            if report.kind == "skills" and report.status == "success":
                drop_fact(connection, APPROVED_DELETIONS)
                set_fact(connection, LAST_SUCCESS, format_time(now), now)
            if report.kind == "skills":
                mirror_state(connection, now)
                changed = ask_words_changed(connection)
        if report.kind == "skills":
            ((number, merged),) = changed.fetchall()
            if is_merging_due(number, merged):
                _merge_words(self._database, number, now)

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
                INSERT INTO sync_run (kind, started_at, finished_at, duration_seconds, status, started_by, host, pid,
                    counts, error_type, error_message)
                VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
                """,
                (
                    kind,
                    _second(began),
                    _second(now),
                    round((now - began).total_seconds(), 3),
                    "failed" if error else "success",
                    started_by,
                    self._database.host,
                    os.getpid(),
                    json.dumps(counts),
                    error.kind if error else None,
                    error.message if error else None,
                ),
            )

    def count_locked_out(self, kind: str) -> None:
        """Count a run that could not get the lock."""
        with self._database.transaction() as connection:
            increment_all(
                connection, [("atom_saas_sync_errors_total", 1, {"type": METRIC_TYPES[kind], "error": "locked"})]
            )

    def bind(self, now: datetime) -> None:
        """Record the marketplace of the database before anything from it is stored; it never changes afterwards."""
        if self._unbound is None:
            return
        with self._database.transaction() as connection:
            if get_fact(connection, MARKETPLACE) is None:
                set_fact(connection, MARKETPLACE, self._unbound, now)
        self._unbound = None

    def marketplace(self) -> str | None:
        """Return the marketplace of the database; None before anything was stored."""
        return ask_fact(self._database, MARKETPLACE)

    def reached_marketplace(self, now: datetime, skew_seconds: float | None) -> None:
        """Record that the marketplace was reached, and how far its clock is ahead of ours."""
        self.bind(now)
        with self._database.transaction(together=True) as connection:
            set_fact(connection, REACHED_AT, format_time(now), now)
            if skew_seconds is not None:
                set_fact(connection, CLOCK_SKEW, f"{skew_seconds:.0f}", now)

    def scheduling_stopped(self) -> bool:
        """Tell whether the emergency stop is on (`jobs stop`)."""
        return ask_fact(self._database, EMERGENCY_STOP) is not None

    def auto_sync_is_off(self) -> bool:
        """Tell whether the Atom backend has switched scheduled syncs off (`sync_state.auto_sync_enabled`)."""
        return bool(self._database.ask(AUTO_SYNC_OFF))

    def stop_scheduling(self, *, actor: str, now: datetime) -> None:
        """Switch the emergency stop on: runs that a timer starts do nothing until `resume_scheduling`."""
        with self._database.transaction() as connection:
            set_fact(connection, EMERGENCY_STOP, format_time(now), now)
            write_audit(connection, actor, "jobs stop", "", now, {})

    def resume_scheduling(self, *, actor: str, now: datetime) -> None:
        """Switch the emergency stop off."""
        with self._database.transaction() as connection:
            drop_fact(connection, EMERGENCY_STOP)
            write_audit(connection, actor, "jobs start", "", now, {})

    def last_scheduled_success(self, kind: str) -> datetime | None:
        """Return the start of the newest successful run of a kind that a timer of this host started."""
        return _moment(
            self._database,
            "SELECT max(started_at) FROM sync_run "
            "WHERE kind = %s AND status = 'success' AND started_by = %s AND host IS NOT DISTINCT FROM %s",
            (kind, TIMER, self._database.host),
        )

    def last_success_of_fleet(self, kind: str) -> datetime | None:
        """Return the start of the newest successful run of a kind, on any host."""
        query = "SELECT max(started_at) FROM sync_run WHERE kind = %s AND status = 'success'"
        return _moment(self._database, query, (kind,))

    def run_of_process(self, pid: int, *, since: datetime) -> int | None:
        """Return the run that a process on this host has begun, or None."""
        ((run_id,),) = self._database.ask(
            "SELECT max(id) FROM sync_run WHERE pid = %s AND started_at >= %s AND host IS NOT DISTINCT FROM %s",
            (pid, since, self._database.host),
        )
        return None if run_id is None else int(run_id)


def read_state(connection: psycopg.Connection[Row]) -> SyncState:
    """Return the state of the skills sync from the audit trail, independent of other programs."""
    asked = [connection.execute(each) for each in (NEWEST_RUN, NEWEST_SUCCESS, _RESULTS)]
    newest, success = (each.fetchone() for each in asked[:2])
    results = {(name, labels): value for name, labels, value in asked[2]}
    return state_of(newest, success, results, None if newest and success else get_fact(connection, LAST_SUCCESS))


def _count(stored: float) -> int:
    """Return a count; another program may have written a number that no count reaches."""
    return int(min(max(stored, 0), 1e15)) if isfinite(stored) else 0


def state_of(
    newest: Row | None, success: Row | None, counters: Mapping[tuple[str, str], float], last_success: str | None
) -> SyncState:
    """Return the same from the results of NEWEST_RUN and NEWEST_SUCCESS, the counters and the fact LAST_SUCCESS."""
    succeeded, failed = (
        _count(counters.get(("runs", json.dumps({"result": each})), 0)) for each in ("success", "failed")
    )
    before = None if newest and success else parse_time(last_success)
    status = "idle"
    if newest is not None:
        status = {"success": "idle", "running": "syncing"}.get(newest["status"], "error")
    return SyncState(
        status=status,
        last_sync_at=newest["started_at"] if newest else before,
        last_successful_sync_at=success[0] if success else before,
        total_syncs=succeeded + failed,
        successful_syncs=succeeded,
        failed_syncs=failed,
        last_error=_describe(newest["error_message"], newest["reasons"]) if newest and status == "error" else None,
    )


def mirror_state(connection: psycopg.Connection[Row], now: datetime) -> None:
    """Write the state of the skills sync to the row of sync_state that the Atom backend reads."""
    state = read_state(connection)
    connection.execute(
        """
        INSERT INTO sync_state AS s
            (id, device_id, status, last_sync, last_sync_at, last_successful_sync_at, total_syncs, successful_syncs,
             failed_syncs, skills_cached, categories_cached, last_error, error_count, pending_actions_count, updated_at)
        VALUES (%(id)s, %(id)s, %(status)s, %(succeeded_at)s, %(started_at)s, %(succeeded_at)s, %(total)s,
            %(successful)s, %(failed)s, (SELECT count(*) FROM skill_cache), (SELECT count(*) FROM category_cache),
            %(error)s,
            (SELECT count(*) FROM sync_run WHERE kind = 'skills' AND status NOT IN ('success', 'running') AND id >
                coalesce((SELECT max(id) FROM sync_run WHERE kind = 'skills' AND status = 'success'), 0)),
            %(running)s, %(now)s)
        ON CONFLICT (id) DO UPDATE SET
            (device_id, status, last_sync, last_sync_at, last_successful_sync_at, total_syncs, successful_syncs,
             failed_syncs, skills_cached, categories_cached, last_error, error_count, pending_actions_count, updated_at)
            = (excluded.device_id, excluded.status, excluded.last_sync, excluded.last_sync_at,
               excluded.last_successful_sync_at, excluded.total_syncs, excluded.successful_syncs, excluded.failed_syncs,
               excluded.skills_cached, excluded.categories_cached, excluded.last_error, excluded.error_count,
               excluded.pending_actions_count, excluded.updated_at)
        """,
        {
            "id": SYNC_STATE_ID,
            "status": state.status,
            "started_at": state.last_sync_at,
            "succeeded_at": state.last_successful_sync_at,
            "total": state.total_syncs,
            "successful": state.successful_syncs,
            "failed": state.failed_syncs,
            "error": state.last_error,
            "running": int(state.status == "syncing"),
            "now": _second(now),
        },
    )


def last_run_started_at(database: Database, kind: str) -> datetime | None:
    """Return when the newest run of a kind began."""
    return _moment(database, "SELECT max(started_at) FROM sync_run WHERE kind = %s", (kind,))


def _merge_words(database: Database, changed: float, now: datetime) -> None:
    """Merge new words into the search index, so that searches do not read through a long list. It may fail."""
    try:
        # It changes no rows, and no other writer need wait for it.
        if database.ask(MERGE_WORDS):
            with database.transaction(durable=False, together=True) as connection:
                set_fact(connection, WORDS_MERGED, f"{changed:.0f}", now)
    except DatabaseError as error:
        _log.debug("could not merge new words into the search index: %s", error)


def _count_killed(connection: psycopg.Connection[Row], kind: str, killed: int) -> None:
    counted: list[Counted] = [
        ("atom_saas_sync_errors_total", killed, {"type": METRIC_TYPES[kind], "error": "interrupted"})
    ]
    if kind == "skills":
        counted.append(("runs", killed, {"result": "failed"}))
    increment_all(connection, counted)


def _counted(report: Report[Counts]) -> list[Counted]:
    """Return the counter increments for the end of a run."""
    counted: list[Counted] = []
    run_type = METRIC_TYPES[report.kind]
    if report.kind != "categories":
        counted += durations(report.duration_seconds, run_type=run_type)
        if report.status == "success":
            counted.append(("atom_saas_sync_success_total", 1, {"type": run_type}))
    if report.error is not None:
        kind = report.error.type if report.error.type in METRIC_ERRORS else "internal"
        counted.append(("atom_saas_sync_errors_total", 1, {"type": run_type, "error": kind}))
    for (item, action), number in report.counts.uncounted().items():
        counted.append(("atom_saas_sync_items_total", number, {"type": item, "action": action}))
    return counted


def _moment(database: Database, query: str, values: tuple[Any, ...]) -> datetime | None:
    moment: datetime | None = database.ask(query, values)[0][0]
    return moment


def _describe(error_message: str | None, reasons: str) -> str | None:
    """Return the stored error of a run."""
    if error_message:
        return error_message
    return ", ".join(map(str, stored_list(reasons))) or None


def _second(moment: datetime) -> datetime:
    """Return a time without its fraction, which the server would round."""
    return moment.replace(microsecond=0)
