"""The whole state in one value, read in one transaction: what status, health and metrics are views of.

Few statements that indexes answer: `status` and probes ask this often, also of a cache of 100,000 skills. Nothing is
created, upgraded or written.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import datetime
from math import isfinite
from typing import Any

import psycopg
from msgspec.structs import replace

from atom_saas_sync.core.canonical import decode_object
from atom_saas_sync.core.server_address import ServerAddress
from atom_saas_sync.model import PastRun, ScheduledJob, Status, SyncState, TrustState, WebSocketState
from atom_saas_sync.store.names import (
    CLOCK_SKEW,
    EMERGENCY_STOP,
    MARKETPLACE,
    REACHED_AT,
    REVOCATIONS_BROKEN,
    TAMPERED,
)
from atom_saas_sync.store.postgresql import migrations
from atom_saas_sync.store.postgresql.counters import read_counters
from atom_saas_sync.store.postgresql.database import Database
from atom_saas_sync.store.postgresql.facts import get_facts
from atom_saas_sync.store.postgresql.lifetime import EXPIRED, JOINED, size_of, time_parameters
from atom_saas_sync.store.postgresql.requests import remaining_requests
from atom_saas_sync.store.postgresql.resolutions import OPEN
from atom_saas_sync.store.postgresql.rows import Row
from atom_saas_sync.store.postgresql.runs import auto_sync_is_off, read_state
from atom_saas_sync.store.postgresql.session import advisory_class, advisory_key
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
        (SELECT min(read_at) FROM http_validator WHERE page IS NOT NULL) AS oldest_page_at
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

    `admission` and `admission_scope` are what is set; the database does not say it. A schema that is missing, or has
    not all of our tables yet, gives an empty status that says so.

    Raises DatabaseError if it cannot be read, or was made by a newer version.
    """
    trust = TrustState(admission, admission_scope)
    with Database.open(address, migrate=False, read_only=True, busy_timeout_seconds=_TIMEOUT_SECONDS) as database:
        migrations.refuse_newer(database)
        revision, pending = migrations.current(database), bool(migrations.pending(database))
        if pending:
            free = min(per_minute, per_hour)
            return Status(
                read_at=now,
                database_path=str(address),
                is_on_server=True,
                revision=revision,
                rate_limit_remaining=free,
                trust=trust,
            )
        with database.reading() as connection:
            found = _read(connection, database, revision, now, (per_minute, per_hour))
            return replace(found, trust=_trust(connection, trust))


def held_locks(connection: psycopg.Connection[Row], schema: str, kinds: Collection[str]) -> frozenset[str]:
    """Return those of these kinds whose lock is held now, by any host."""
    rows = connection.execute(
        "SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2 "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND classid::bigint = %s",
        (advisory_class(schema) % _UNSIGNED,),
    )
    held = {row[0] for row in rows}
    return frozenset(kind for kind in kinds if advisory_key(kind) % _UNSIGNED in held)


def _read(
    connection: psycopg.Connection[Row],
    database: Database,
    revision: str | None,
    now: datetime,
    limits: tuple[int, int],
) -> Status:
    row = connection.execute(_FIGURES, time_parameters(now)).fetchone()
    assert row is not None
    figures: dict[str, Any] = dict(row.items())
    counters = read_counters(connection)
    facts = get_facts(connection, [CLOCK_SKEW, EMERGENCY_STOP, MARKETPLACE, REACHED_AT, TAMPERED])
    held = held_locks(connection, database.schema, (*_RUN_KINDS, _WATCH_LOCK))
    running = held & frozenset(_RUN_KINDS)
    last = connection.execute(
        f"SELECT DISTINCT ON (kind) * FROM ({_RUN} WHERE kind = ANY(%s) AND finished_at IS NOT NULL) AS r "  # noqa: S608
        "ORDER BY kind, started_at DESC, id DESC",
        (["skills", "categories", "ratings"],),
    )
    return Status(
        read_at=now,
        database_path=str(database.address),
        is_on_server=True,
        hosts=_hosts(connection, held),
        marketplace=facts.get(MARKETPLACE),
        database_bytes=size_of(connection),
        revision=revision,
        migrations_pending=False,
        sync=_sync_state(connection, running=running),
        websocket=_websocket_state(connection, alive=_WATCH_LOCK in held),
        running=running,
        runs=tuple(_past_run(row) for row in connection.execute(f"{_RUN} ORDER BY id DESC LIMIT {_RUNS_SHOWN}")),
        last_runs={each.kind: each for each in map(_past_run, last)},
        republished=int(sum(value for (name, _), value in counters.items() if name == "republished")),
        tampered=_tampered(facts.get(TAMPERED)),
        conflicts_open=dict(
            connection.execute(f"SELECT severity, count(*) FROM conflict_log WHERE {OPEN} GROUP BY severity").fetchall()  # noqa: S608
        ),
        emergency_stop=EMERGENCY_STOP in facts,
        auto_sync_off=auto_sync_is_off(connection),
        jobs=tuple(
            ScheduledJob(*job)
            for job in connection.execute("SELECT id, name, minutes, next_run_time FROM scheduled_job ORDER BY id")
        ),
        marketplace_reached_at=parse_time(facts.get(REACHED_AT)),
        clock_skew_seconds=_figure(facts.get(CLOCK_SKEW)),
        rate_limit_remaining=remaining_requests(connection, now, *limits),
        counters=counters,
        **figures,
    )


def _trust(connection: psycopg.Connection[Row], trust: TrustState) -> TrustState:
    by_reason = connection.execute(
        "SELECT reason, count(*), min(first_seen_at) FROM skill_offer WHERE kind = 'hold' GROUP BY reason"
    ).fetchall()
    figures = connection.execute(_TRUST).fetchone()
    assert figures is not None
    return replace(
        trust,
        waiting_by_reason={reason: number for reason, number, _ in by_reason},
        oldest_waiting_at=min((row[2] for row in by_reason), default=None),
        **dict(figures.items()),
        revocations_broken=get_facts(connection, [REVOCATIONS_BROKEN]).get(REVOCATIONS_BROKEN) == "1",
    )


def _hosts(connection: psycopg.Connection[Row], held: Collection[str]) -> dict[str, str]:
    """Return which host holds each of these locks."""
    if not held:
        return {}
    rows = connection.execute("SELECT kind, host FROM run_lock WHERE kind = ANY(%s)", (list(held),))
    return dict(rows.fetchall())


def _sync_state(connection: psycopg.Connection[Row], *, running: frozenset[str]) -> SyncState:
    state = read_state(connection)
    if state.status == "syncing" and "skills" not in running:
        # The last state of a killed process. The next run counts it as failed.
        return replace(state, status="error", last_error="the process was killed")
    return state


def _websocket_state(connection: psycopg.Connection[Row], *, alive: bool) -> WebSocketState:
    row = connection.execute("SELECT * FROM websocket_state WHERE id = 1").fetchone()
    if row is None:
        return WebSocketState(alive=alive)
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
    """Return a run as its row has it. Other programs may write there; JSON that is not ours is left out."""
    values: dict[str, Any] = dict(row.items())
    counts = decode_object(values.pop("counts")) or {}
    for name in ("refused", "invalid"):
        found = counts.get(name)
        values[name] = found if isinstance(found, int) else 0
    values["reasons"] = tuple(map(str, _listed(values["reasons"])))
    return PastRun(**values)


def _tampered(fact: str | None) -> int:
    return len(_listed(fact or "[]"))


def _listed(text: str) -> list[Any]:
    """Return the JSON list in a text, an empty one if another program has left something else there."""
    try:
        found = json.loads(text)
    except ValueError:
        return []
    return found if isinstance(found, list) else []


def _figure(text: str | None) -> float | None:
    """Return the number that a fact holds, None if another program has left something else there."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if isfinite(number) else None
