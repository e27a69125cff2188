"""The whole state in one value, read in one transaction: status, health and metrics are views of it.

All statements use indexes and are sent together: `status` and probes run often, also with 100,000 skills. Nothing is
created, upgraded or written.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from math import inf, isfinite
from typing import Any

from msgspec.structs import replace

from atom_saas_sync.core.canonical import decode_object
from atom_saas_sync.core.server_address import SCHEMA, ServerAddress
from atom_saas_sync.errors import DatabaseError
from atom_saas_sync.model import PastRun, ScheduledJob, Status, SyncState, TrustState, WebSocketState
from atom_saas_sync.store.names import (
    CLOCK_SKEW,
    EMERGENCY_STOP,
    LAST_SUCCESS,
    MARKETPLACE,
    RATE_LIMIT,
    REACHED_AT,
    REVOCATIONS_BROKEN,
    TAMPERED,
)
from atom_saas_sync.store.postgresql import counters, facts, migrations
from atom_saas_sync.store.postgresql.backend.tables import HAS_TABLES
from atom_saas_sync.store.postgresql.backend.tables import origin as origin_of
from atom_saas_sync.store.postgresql.database import Database
from atom_saas_sync.store.postgresql.lifetime import EXPIRED, JOINED, SIZE, time_parameters
from atom_saas_sync.store.postgresql.requests import USED, remaining_requests, used_parameters
from atom_saas_sync.store.postgresql.resolutions import OPEN
from atom_saas_sync.store.postgresql.rows import Row
from atom_saas_sync.store.postgresql.runs import AUTO_SYNC_OFF, NEWEST_RUN, NEWEST_SUCCESS, state_of
from atom_saas_sync.store.postgresql.session import advisory_class, advisory_key
from atom_saas_sync.store.stored_json import stored_list
from atom_saas_sync.times import parse_time

_RUN_KINDS = ("skills", "ratings")
_WATCH_LOCK = "watch"
_RUNS_SHOWN = 40
_TIMEOUT_SECONDS = 2.0
_UNSIGNED = 1 << 32
_FAILED = "EXISTS (SELECT FROM failed_rating_uploads WHERE rating_id = r.id)"
_FIGURES = f"""
    SELECT
        (SELECT count(*) FROM skill_cache) AS skills,
        (SELECT count(*) FROM category_cache) AS categories,
        (SELECT count(*) FROM {JOINED} WHERE {EXPIRED}) AS expired_skills,
        (SELECT count(*) FROM category_cache WHERE expires_at < %(now)s) AS expired_categories,
        (SELECT count(*) FROM skill_base AS b JOIN skill_cache AS c ON c.skill_id = b.skill_id
            WHERE b.data IS NOT NULL AND b.data <> c.skill_data) AS modified_skills,
        (SELECT count(*) FROM skill_ratings AS r WHERE NOT synced_to_saas AND NOT {_FAILED}) AS ratings_pending,
        (SELECT count(*) FROM skill_ratings WHERE synced_to_saas) AS ratings_synced,
        (SELECT count(*) FROM skill_ratings AS r WHERE NOT synced_to_saas AND {_FAILED}) AS ratings_failed,
        (SELECT count(*) FROM conflict_log WHERE resolved_at IS NOT NULL AND about_skill) AS conflicts_resolved,
        (SELECT count(*) FROM conflict_log WHERE replaced_unseen) AS edits_replaced,
        (SELECT count(*) FROM deleted_edit) AS edits_deleted,
        (SELECT skill_id FROM deleted_edit ORDER BY id DESC LIMIT 1) AS deleted_edit,
        (SELECT max(finished_at) FROM sync_run WHERE kind = 'ratings' AND status = 'success') AS last_rating_success_at,
        (SELECT min(read_at) FROM http_validator WHERE page IS NOT NULL) AS oldest_page_at,
        {HAS_TABLES} AS beside_backend
"""  # noqa: S608 - constants
_TRUST = """
    SELECT (SELECT count(*) FROM gate_quarantine) AS quarantined, (SELECT count(*) FROM gate_revocation) AS revocations,
        (SELECT count(*) FROM gate_pin) AS pinned
"""
_RUN = """
    SELECT id, kind, started_at, finished_at, duration_seconds, status, started_by, error_type, error_message, reasons,
        counts
    FROM sync_run
"""
_LOCKS = """
    SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND classid::bigint = %(locks)s
"""
_QUESTIONS: Mapping[str, str] = {
    "migrations": migrations.APPLIED.format("schema_migration"),
    "figures": _FIGURES,
    "counters": counters.READ,
    "facts": facts.READ,
    "locks": _LOCKS,
    "hosts": "SELECT kind, host FROM run_lock",
    "size": SIZE,
    "newest_run": NEWEST_RUN,
    "newest_success": NEWEST_SUCCESS,
    "runs": f"{_RUN} ORDER BY id DESC LIMIT {_RUNS_SHOWN}",
    "last_runs": f"""
        SELECT DISTINCT ON (kind) * FROM (
            {_RUN} WHERE kind IN ('skills', 'categories', 'ratings') AND finished_at IS NOT NULL) AS r
        ORDER BY kind, started_at DESC, id DESC
    """,  # noqa: S608 - constants
    "websocket": "SELECT * FROM websocket_state WHERE id = 1",
    "conflicts": f"SELECT severity, count(*) FROM conflict_log WHERE {OPEN} GROUP BY severity",  # noqa: S608 - a constant
    "auto_sync_off": AUTO_SYNC_OFF,
    "jobs": "SELECT id, name, minutes, next_run_time FROM scheduled_job ORDER BY id",
    "requests": USED,
    "waiting": "SELECT reason, count(*), min(first_seen_at) FROM skill_offer WHERE kind = 'hold' GROUP BY reason",
    "trust": _TRUST,
}
_FACTS = (CLOCK_SKEW, EMERGENCY_STOP, LAST_SUCCESS, MARKETPLACE, RATE_LIMIT, REACHED_AT, REVOCATIONS_BROKEN, TAMPERED)
_Answers = Mapping[str, Sequence[Row]]
_NOT_THERE = {"42P01", "3F000", "42703"}  # a table, the schema, a column


def read_status(
    address: ServerAddress,
    *,
    now: datetime,
    per_minute: int,
    per_hour: int,
    admission: str,
    admission_scope: str,
) -> Status:
    """Read everything. The request limits hold as long as the marketplace has declared none.

    `admission` and `admission_scope` come from the settings. A schema that is missing or lacks some of our tables gives
    an empty status that says so.

    Raises DatabaseError if it cannot be read, or was made by a newer version.
    """
    trust = TrustState(admission, admission_scope)
    with Database.open(address, migrate=False, read_only=True, busy_timeout_seconds=_TIMEOUT_SECONDS) as database:
        try:
            with database.asking() as connection:
                values = _values(database, now)
                asked = {name: connection.execute(query, values) for name, query in _QUESTIONS.items()}
                answers = {name: cursor.fetchall() for name, cursor in asked.items()}
            found = migrations.applied_of(answers["migrations"])
        except DatabaseError as error:
            if getattr(error.__cause__, "sqlstate", None) not in _NOT_THERE:
                raise
            answers, found = {}, migrations.applied(database)
            migrations.refuse_newer(found, database)
            if not migrations.missing(found):  # one of our tables has lost something
                raise
        migrations.refuse_newer(found, database)
        revision = next(reversed(found), None)
        if migrations.missing(found):
            return Status(
                read_at=now,
                database_path=str(address),
                is_on_server=True,
                origin=origin_of(database.connection, database.schema),
                revision=revision,
                rate_limit_remaining=min(per_minute, per_hour),
                trust=trust,
            )
    limits = per_minute, per_hour
    return replace(_status(answers, address, revision, now, limits), trust=_trust(answers, trust))


def _held(locks: Sequence[Row], kinds: Collection[str]) -> frozenset[str]:
    numbers = {row[0] for row in locks}
    return frozenset(kind for kind in kinds if advisory_key(kind) % _UNSIGNED in numbers)


def _values(database: Database, now: datetime) -> dict[str, Any]:
    return {
        **time_parameters(now),
        **used_parameters(now),
        "facts": list(_FACTS),
        "locks": advisory_class(database.schema) % _UNSIGNED,
    }


def _status(
    answers: _Answers, address: ServerAddress, revision: str | None, now: datetime, limits: tuple[int, int]
) -> Status:
    figures: dict[str, Any] = dict(answers["figures"][0].items())
    beside_backend = figures.pop("beside_backend") and address.schema == SCHEMA
    counted = {(name, labels): value for name, labels, value in answers["counters"]}
    known: dict[str, str] = dict(answers["facts"])
    held = _held(answers["locks"], (*_RUN_KINDS, _WATCH_LOCK))
    running = held & frozenset(_RUN_KINDS)
    return Status(
        read_at=now,
        database_path=str(address),
        is_on_server=True,
        origin="backend" if beside_backend else "atom-sync",
        hosts={kind: host for kind, host in answers["hosts"] if kind in held},
        marketplace=known.get(MARKETPLACE),
        database_bytes=int(answers["size"][0][0] or 0),
        revision=revision,
        migrations_pending=False,
        sync=_sync_state(answers, counted, known, running=running),
        websocket=_websocket_state(answers["websocket"], alive=_WATCH_LOCK in held),
        running=running,
        runs=tuple(map(_past_run, answers["runs"])),
        last_runs={each.kind: each for each in map(_past_run, answers["last_runs"])},
        republished=int(sum(value for (name, _), value in counted.items() if name == "republished")),
        tampered=_tampered(known.get(TAMPERED)),
        conflicts_open=dict(answers["conflicts"]),
        emergency_stop=EMERGENCY_STOP in known,
        auto_sync_off=bool(answers["auto_sync_off"]),
        jobs=tuple(ScheduledJob(*job) for job in answers["jobs"]),
        marketplace_reached_at=parse_time(known.get(REACHED_AT)),
        clock_skew_seconds=_figure(known.get(CLOCK_SKEW)),
        rate_limit_remaining=remaining_requests(known, answers["requests"][0], now, *limits),
        counters=counted,
        **figures,
    )


def _trust(answers: _Answers, trust: TrustState) -> TrustState:
    waiting = answers["waiting"]
    return replace(
        trust,
        waiting_by_reason={reason: number for reason, number, _ in waiting},
        oldest_waiting_at=min((row[2] for row in waiting), default=None),
        **dict(answers["trust"][0].items()),
        revocations_broken=_fact(answers, REVOCATIONS_BROKEN) == "1",
    )


def _fact(answers: _Answers, name: str) -> str | None:
    return next((row["value"] for row in answers["facts"] if row["name"] == name), None)


def _sync_state(
    answers: _Answers,
    counted: Mapping[tuple[str, str], float],
    known: Mapping[str, str],
    *,
    running: frozenset[str],
) -> SyncState:
    newest, success = (next(iter(answers[name]), None) for name in ("newest_run", "newest_success"))
    state = state_of(newest, success, counted, known.get(LAST_SUCCESS))
    if state.status == "syncing" and "skills" not in running:
        # The last state of a killed process. The next run counts it as failed.
        return replace(state, status="error", last_error="the process was killed")
    return state


def _websocket_state(rows: Sequence[Row], *, alive: bool) -> WebSocketState:
    if not rows:
        return WebSocketState(alive=alive)
    (row,) = rows
    return WebSocketState(
        connected=row["connected"],
        alive=alive,
        last_connected_at=row["last_connected_at"],
        last_message_at=row["last_message_at"],
        disconnect_reason=row["disconnect_reason"],
        reconnect_attempts=row["reconnect_attempts"],
        fallback_to_polling=row["fallback_to_polling"],
        fallback_started_at=row["fallback_started_at"],
        next_attempt_at=row["next_ws_attempt_at"],
        enabled=row["websocket_enabled"],
        ws_url=row["ws_url"],
        failures=row["consecutive_failures"],
        started_at=row["started_at"],
        stopped_at=row["stopped_at"],
        heartbeat_at=row["heartbeat_at"],
    )


def _past_run(row: Row) -> PastRun:
    """Return the run in a row. Other programs may have written it; invalid JSON is left out."""
    values: dict[str, Any] = dict(row.items())
    counts = decode_object(values.pop("counts")) or {}
    for name in ("refused", "invalid"):
        found = counts.get(name)
        values[name] = found if isinstance(found, int) else 0
    values["reasons"] = tuple(map(str, stored_list(values["reasons"])))
    values["duration_seconds"] = _duration(values["duration_seconds"])
    return PastRun(**values)


def _tampered(fact: str | None) -> int:
    return len(stored_list(fact))


def _duration(seconds: object) -> float | None:
    return seconds if isinstance(seconds, int | float) and 0 <= seconds < inf else None


def _figure(text: str | None) -> float | None:
    """Return the number in a fact; None if another program stored something else."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if isfinite(number) else None
