"""Read the whole state in one transaction: status, health and metrics are views of this value.

Uses only plain sqlite3 and a few indexed statements: `status` and probes read this often, even with 100,000 cached
skills. Nothing is created, upgraded or written.
"""

from __future__ import annotations

import sqlite3
from datetime import datetime
from math import inf, isfinite
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from atom_saas_sync.model import (
    LOCKED_KINDS,
    WATCH_LOCK,
    PastRun,
    ScheduledJob,
    Status,
    SyncState,
    TrustState,
    WebSocketState,
)
from atom_saas_sync.store.names import CLOCK_SKEW, EMERGENCY_STOP, MARKETPLACE, REACHED_AT, REVOCATIONS_BROKEN, TAMPERED
from atom_saas_sync.store.sqlite import lock, revisions
from atom_saas_sync.store.sqlite.clauses import before
from atom_saas_sync.store.sqlite.counters import read_counters
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.store.sqlite.files import beside, exists
from atom_saas_sync.store.sqlite.lifetime import EXPIRED, JOINED, time_parameters
from atom_saas_sync.store.sqlite.requests import remaining_requests
from atom_saas_sync.store.sqlite.resolutions import OPEN
from atom_saas_sync.store.sqlite.runs import auto_sync_is_off, get_fact, read_state
from atom_saas_sync.store.stored_json import stored_list
from atom_saas_sync.times import parse_time

_RUNS_SHOWN = 40
_FIGURES = f"""
    SELECT
        (SELECT count(*) FROM skill_cache) AS skills,
        (SELECT count(*) FROM category_cache) AS categories,
        (SELECT count(*) FROM {JOINED} WHERE {EXPIRED}) AS expired_skills,
        (SELECT count(*) FROM category_cache WHERE {before("expires_at", ":now")}) AS expired_categories,
        (SELECT count(*) FROM skill_base AS b JOIN skill_cache AS c ON c.skill_id = b.skill_id
            WHERE b.data IS NOT NULL AND b.data != c.skill_data) AS modified_skills,
        (SELECT count(*) FROM skill_ratings WHERE synced_to_saas = 0
            AND id NOT IN (SELECT rating_id FROM failed_rating_uploads)) AS ratings_pending,
        (SELECT count(*) FROM skill_ratings WHERE synced_to_saas != 0) AS ratings_synced,
        (SELECT count(*) FROM skill_ratings WHERE synced_to_saas = 0
            AND id IN (SELECT rating_id FROM failed_rating_uploads)) AS ratings_failed,
        (SELECT count(*) FROM conflict_log WHERE resolved_at IS NOT NULL AND about_skill = 1) AS conflicts_resolved,
        (SELECT count(*) FROM conflict_log WHERE replaced_unseen = 1) AS edits_replaced,
        (SELECT count(*) FROM deleted_edit) AS edits_deleted,
        (SELECT CAST(skill_id AS TEXT) FROM deleted_edit ORDER BY id DESC LIMIT 1) AS deleted_edit,
        coalesce((SELECT json_array_length(value) FROM fact WHERE name = '{TAMPERED}' AND json_valid(value)), 0)
            AS tampered,
        (SELECT max(finished_at) FROM sync_run WHERE kind = 'ratings' AND status = 'success') AS last_rating_success_at
"""  # noqa: S608 - constants
_TRUST = """
    SELECT (SELECT count(*) FROM gate_quarantine) AS quarantined, (SELECT count(*) FROM gate_revocation) AS revocations,
        (SELECT count(*) FROM gate_pin) AS pinned
"""
_RUN = """
    SELECT id, kind, started_at, finished_at, duration_seconds, status, started_by, error_type, error_message,
        CASE WHEN json_valid(reasons) THEN reasons ELSE '[]' END AS reasons,
        CASE WHEN json_valid(counts) THEN coalesce(json_extract(counts, '$.refused'), 0) ELSE 0 END AS refused,
        CASE WHEN json_valid(counts) THEN coalesce(json_extract(counts, '$.invalid'), 0) ELSE 0 END AS invalid
    FROM sync_run
"""


def read_status(
    path: Path,
    *,
    now: datetime,
    per_minute: int,
    per_hour: int,
    admission: str,
    admission_scope: str,
) -> Status:
    """Read everything. The request limits hold as long as the marketplace has declared none.

    `admission` and `admission_scope` come from the settings.

    A file that is missing, or has not all of our tables yet, gives an empty status that says so.

    Raises DatabaseError if the file is there and cannot be read, or was made by a newer version.
    """
    path = path.absolute()
    trust = TrustState(admission, admission_scope)
    if not exists(path):
        free = min(per_minute, per_hour)
        return Status(read_at=now, database_path=str(path), rate_limit_remaining=free, trust=trust)
    # A short timeout: a probe must answer, and readers of a WAL database never wait.
    with (
        Database.open(path, migrate=False, read_only=True, busy_timeout_seconds=2.0) as database,
        database.reading() as connection,
    ):
        pending, revision = bool(revisions.to_apply(database)), revisions.current(database)
        origin = _origin(database, pending=pending)
        if pending:
            return Status(
                read_at=now,
                database_path=str(path),
                database_bytes=_size(path),
                revision=revision,
                origin=origin,
                trust=trust,
            )
        found = _read(connection, path, revision, now, (per_minute, per_hour))
        return replace(found, origin=origin, trust=_trust(connection, trust))


def _origin(database: Database, *, pending: bool) -> str:
    if not pending:
        return "backend" if revisions.is_adopted(database.connection) else "atom-sync"
    from atom_saas_sync.store.sqlite import migrations

    return migrations.origin(database)


def _read(
    connection: sqlite3.Connection, path: Path, revision: str | None, now: datetime, limits: tuple[int, int]
) -> Status:
    figures: dict[str, Any] = dict(connection.execute(_FIGURES, time_parameters(now)).fetchone())
    figures["last_rating_success_at"] = parse_time(figures["last_rating_success_at"])
    counters = read_counters(connection)
    skew = get_fact(connection, CLOCK_SKEW)
    running = frozenset(kind for kind in LOCKED_KINDS if lock.holder(path, kind) is not None)
    return Status(
        read_at=now,
        database_path=str(path),
        marketplace=get_fact(connection, MARKETPLACE),
        database_bytes=_size(path),
        revision=revision,
        migrations_pending=False,
        sync=_sync_state(connection, running=running),
        websocket=_websocket_state(connection, alive=lock.holder(path, WATCH_LOCK) is not None),
        running=running,
        runs=tuple(_past_run(row) for row in connection.execute(f"{_RUN} ORDER BY id DESC LIMIT {_RUNS_SHOWN}")),
        last_runs={
            kind: _past_run(row)
            for kind in ("skills", "categories", "ratings")
            if (
                row := connection.execute(
                    f"{_RUN} WHERE kind = ? AND finished_at IS NOT NULL ORDER BY started_at DESC, id DESC LIMIT 1",
                    (kind,),
                ).fetchone()
            )
        },
        republished=int(sum(value for (name, _), value in counters.items() if name == "republished")),
        conflicts_open={
            row["severity"]: row["number"]
            for row in connection.execute(
                f"SELECT severity, count(*) AS number FROM conflict_log WHERE {OPEN} GROUP BY severity"  # noqa: S608
            )
        },
        emergency_stop=get_fact(connection, EMERGENCY_STOP) is not None,
        auto_sync_off=auto_sync_is_off(connection),
        jobs=tuple(
            ScheduledJob(id_, name, minutes, parse_time(next_run))
            for id_, name, minutes, next_run in connection.execute(
                "SELECT id, name, minutes, next_run_time FROM scheduled_job ORDER BY id"
            )
        ),
        oldest_page_at=_oldest_page(connection),
        marketplace_reached_at=parse_time(get_fact(connection, REACHED_AT)),
        clock_skew_seconds=_figure(skew),
        rate_limit_remaining=remaining_requests(connection, now.timestamp(), *limits),
        counters=counters,
        **figures,
    )


def _oldest_page(connection: sqlite3.Connection) -> datetime | None:
    row = connection.execute("SELECT min(read_at) FROM http_validator WHERE page IS NOT NULL").fetchone()
    return parse_time(row[0])


def _trust(connection: sqlite3.Connection, trust: TrustState) -> TrustState:
    by_reason = connection.execute(
        "SELECT reason, count(*), min(first_seen_at) FROM skill_offer WHERE kind = 'hold' GROUP BY reason"
    ).fetchall()
    figures = connection.execute(_TRUST).fetchone()
    return replace(
        trust,
        waiting_by_reason={reason: number for reason, number, _ in by_reason},
        oldest_waiting_at=parse_time(min((row[2] for row in by_reason), default=None)),
        **dict(figures),
        revocations_broken=get_fact(connection, REVOCATIONS_BROKEN) == "1",
    )


def _sync_state(connection: sqlite3.Connection, *, running: frozenset[str]) -> SyncState:
    state = read_state(connection)
    if state.status == "syncing" and "skills" not in running:
        # The last state of a killed process; the next run counts it as failed.
        return replace(state, status="error", last_error="the process was killed")
    return state


def _websocket_state(connection: sqlite3.Connection, *, alive: bool) -> WebSocketState:
    row = connection.execute("SELECT * FROM websocket_state WHERE id = 1").fetchone()
    if row is None:
        return WebSocketState(alive=alive)
    return WebSocketState(
        connected=bool(row["connected"]),
        alive=alive,
        last_connected_at=parse_time(row["last_connected_at"]),
        last_message_at=parse_time(row["last_message_at"]),
        disconnect_reason=row["disconnect_reason"],
        reconnect_attempts=row["reconnect_attempts"],
        fallback_to_polling=bool(row["fallback_to_polling"]),
        fallback_started_at=parse_time(row["fallback_started_at"]),
        next_attempt_at=parse_time(row["next_ws_attempt_at"]),
        enabled=bool(row["websocket_enabled"]),
        ws_url=row["ws_url"],
        failures=row["consecutive_failures"],
        started_at=parse_time(row["started_at"]),
        stopped_at=parse_time(row["stopped_at"]),
        heartbeat_at=parse_time(row["heartbeat_at"]),
    )


def _past_run(row: sqlite3.Row) -> PastRun:
    """Return the run in a row. Invalid values from other programs are left out."""
    values: dict[str, Any] = {
        name: value.decode(errors="replace") if isinstance(value, bytes) else value for name, value in dict(row).items()
    }
    values["reasons"] = tuple(map(str, stored_list(values["reasons"])))
    for name in ("refused", "invalid"):
        values[name] = values[name] if isinstance(values[name], int) else 0
    for name in ("started_at", "finished_at"):
        values[name] = parse_time(values[name])
    values["duration_seconds"] = _duration(values["duration_seconds"])
    return PastRun(**values)


def _duration(seconds: object) -> float | None:
    return seconds if isinstance(seconds, int | float) and 0 <= seconds < inf else None


def _figure(text: str | None) -> float | None:
    """Return the number in a fact; None if another program wrote something else."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if isfinite(number) else None


def _size(path: Path) -> int:
    """Return the size of the database file and its write-ahead log, in bytes."""
    return sum(each.stat().st_size for each in (path, beside(path, "-wal")) if each.exists())
