"""The stored state of `watch`: its status, the order of messages, and the transaction that applies a batch."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta

from atom_saas_sync.core.signing import Signer
from atom_saas_sync.model import (
    TIME_TO_LIVE,
    Category,
    ConnectionSwitch,
    MessageMark,
    ReportedConnection,
    ScheduledJob,
)
from atom_saas_sync.store.names import ADDITIONS_BY_MESSAGE, DELETIONS_BY_MESSAGE, EMERGENCY_STOP
from atom_saas_sync.store.sqlite.batch import Batch
from atom_saas_sync.store.sqlite.bulk import bulk_transaction
from atom_saas_sync.store.sqlite.counters import increment
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.store.sqlite.failures import translated_errors
from atom_saas_sync.store.sqlite.runs import auto_sync_is_off, get_fact, last_run_started_at, set_fact
from atom_saas_sync.store.sqlite.websocket_switch import PUT_BACK
from atom_saas_sync.store.stored_json import stored_pairs
from atom_saas_sync.times import format_exact_time, format_time, parse_time, time_text

_DELETIONS_REMEMBERED = timedelta(days=1)
_WINDOW = timedelta(hours=1)
"""In which deletions and additions are counted."""

# A log that repeatedly grows to this size is not truncated each time: overwriting it is 5% faster.
_LOG_BYTES = 64 * 1024 * 1024
# A batch changes some five pages for each message. With the default of 2 MiB they are written more than once.
_CACHE_KIB = 8 * 1024


class RealtimeBatch(Batch):
    """One transaction in which a batch of messages is applied."""

    def marks(self, kind: str, keys: Iterable[str]) -> dict[str, MessageMark]:
        """Return the last applied messages about these keys; `kind` is skill, rating or category."""
        # As a single row: sqlite3 releases the GIL at each row, and another thread is reading messages.
        found = self._connection.execute(
            "SELECT json_group_array(json_array(CAST(key AS TEXT), CAST(sent_at AS TEXT), deleted IS TRUE)) "
            "FROM last_message WHERE kind = ? AND key IN (SELECT value FROM json_each(?))",
            (kind, json.dumps(list(keys))),
        ).fetchone()
        return {key: MessageMark(parse_time(sent_at), bool(deleted)) for key, sent_at, deleted in json.loads(found[0])}

    def mark(self, kind: str, marks: Mapping[str, MessageMark], now: datetime) -> None:
        """Record applied messages about these keys."""
        moment = format_exact_time(now)
        self._connection.executemany(
            "INSERT INTO last_message (kind, key, sent_at, applied_at, deleted) VALUES (?1, ?2, ?3, ?4, ?5) "
            "ON CONFLICT (kind, key) DO UPDATE SET sent_at = coalesce(excluded.sent_at, sent_at), "
            "applied_at = excluded.applied_at, deleted = excluded.deleted",
            [
                (kind, key, mark.sent_at and format_exact_time(mark.sent_at), moment, mark.deleted)
                for key, mark in marks.items()
            ],
        )

    def category(self, name: str) -> str | None:
        """Return the JSON text of a cached category."""
        row = self._connection.execute(
            "SELECT category_data FROM category_cache WHERE category_name = ?", (name,)
        ).fetchone()
        return row[0] if row else None

    def put_category(self, category: Category, now: datetime) -> None:
        """Add a category or replace the cached one; the next poll reads the full list."""
        self._connection.execute(
            "INSERT INTO category_cache (category_name, category_data, expires_at, created_at, updated_at) "
            "VALUES (?1, ?2, ?3, ?4, ?4) ON CONFLICT (category_name) DO UPDATE SET "
            "category_data = excluded.category_data, expires_at = excluded.expires_at, updated_at = ?4",
            (category.name, category.text, format_time(now + TIME_TO_LIVE), format_time(now)),
        )
        self._connection.execute("UPDATE http_validator SET etag = NULL WHERE page IS NULL AND etag IS NOT NULL")

    def deletions_lately(self, now: datetime) -> tuple[int, int, int]:
        """Return the number of deletions by messages in the last hour, even from before `watch` was started.

        The other numbers are those of listed skills, now and at most in that hour; skills known only from messages do
        not count.
        """
        past = self._by_minute(DELETIONS_BY_MESSAGE, now).values()
        listed: int = self._connection.execute("SELECT count(*) FROM skill_base WHERE page IS NOT NULL").fetchone()[0]
        return sum(number for number, _ in past), listed, max([listed, *(then for _, then in past)])

    def note_deletions(self, number: int, listed: int, now: datetime) -> None:
        """Record deletions by messages, and the number of listed skills."""
        by_minute, minute = self._by_minute(DELETIONS_BY_MESSAGE, now), _minute(now)
        before, most = by_minute.get(minute, (0, 0))
        by_minute[minute] = before + number, max(most, listed)
        set_fact(self._connection, DELETIONS_BY_MESSAGE, json.dumps(by_minute), now)

    def additions_lately(self, now: datetime) -> tuple[int, int]:
        """Return the number and the bytes of what messages have added in the last hour."""
        past = self._by_minute(ADDITIONS_BY_MESSAGE, now).values()
        return sum(number for number, _ in past), sum(size for _, size in past)

    def note_additions(self, number: int, size: int, now: datetime) -> None:
        """Record additions by messages, and their bytes."""
        by_minute, minute = self._by_minute(ADDITIONS_BY_MESSAGE, now), _minute(now)
        before, bytes_before = by_minute.get(minute, (0, 0))
        by_minute[minute] = before + number, bytes_before + size
        set_fact(self._connection, ADDITIONS_BY_MESSAGE, json.dumps(by_minute), now)

    def _by_minute(self, fact: str, now: datetime) -> dict[str, tuple[int, int]]:
        by_minute = stored_pairs(get_fact(self._connection, fact))
        first, last = _minute(now - _WINDOW), _minute(now + _WINDOW)  # a clock may be set back
        return {minute: entry for minute, entry in by_minute.items() if first <= minute <= last}

    def invalidate_pages(self, pages: Iterable[int]) -> None:
        """Make the next poll read these pages in full, because a message changed skills on them.

        A message may be wrong; with the old validator, that would never be detected.
        """
        self._connection.executemany(
            "UPDATE http_validator SET etag = NULL WHERE page = ? AND etag IS NOT NULL", [(page,) for page in pages]
        )

    def count(self, messages: Mapping[str, int], outcomes: Mapping[tuple[str, str], int], now: datetime) -> None:
        """Count messages by type and changes by (type, action), and store when the last message arrived."""
        _count_messages(self._connection, messages)
        for (kind, action), number in outcomes.items():
            increment(self._connection, "atom_saas_sync_items_total", number, type=kind, action=action)
        self._connection.execute("UPDATE websocket_state SET last_message_at = ?", (format_time(now),))


class RealtimeStore:
    """The part of the store that `watch` uses."""

    def __init__(self, database: Database, *, history_versions: int, signer: Signer | None = None) -> None:
        """Use `database`; keep `history_versions` former versions of each skill."""
        self._database = database
        self._history_versions = history_versions
        self._signer = signer
        with translated_errors(database.path, (sqlite3.Error,)):
            database.connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}").fetchone()
            database.connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}").fetchone()

    @contextmanager
    def batch(self) -> Iterator[RealtimeBatch]:
        """Open the transaction in which one batch of messages is applied."""
        with bulk_transaction(self._database) as connection:
            batch = RealtimeBatch(connection, self._history_versions, signer=self._signer)
            yield batch
            batch.finish()

    def begin(self, ws_url: str, now: datetime) -> ConnectionSwitch:
        """Record that `watch` has started; this replaces its predecessor's state."""
        with self._database.transaction() as connection:
            switch = _switch(connection)
            connection.execute(
                """
                UPDATE websocket_state SET connected = 0, ws_url = ?, disconnect_reason = NULL,
                    reconnect_attempts = 0, consecutive_failures = 0, fallback_to_polling = 0,
                    fallback_started_at = NULL, next_ws_attempt_at = NULL, pid = ?, started_at = ?, stopped_at = NULL,
                    heartbeat_at = ?
                """,
                (ws_url, os.getpid(), format_time(now), format_time(now)),
            )
            connection.execute(
                "DELETE FROM last_message WHERE deleted = 1 AND applied_at < ?",
                (format_time(now - _DELETIONS_REMEMBERED),),
            )
        return switch

    def note(self, state: ReportedConnection, now: datetime) -> ConnectionSwitch:
        """Store the connection's state, the heartbeat, and the counts since the last call."""
        moment = format_time(now)
        with self._database.transaction() as connection:
            switch = _switch(connection)
            connection.execute(
                """
                UPDATE websocket_state SET
                    last_connected_at = coalesce(:connected_at, last_connected_at),
                    connected = :connected, ws_url = :ws_url,
                    last_message_at = coalesce(:last_message_at, last_message_at),
                    disconnect_reason = :reason, reconnect_attempts = :attempts, consecutive_failures = :failures,
                    fallback_started_at = CASE
                        WHEN NOT :fallback THEN NULL WHEN fallback_to_polling THEN fallback_started_at ELSE :now END,
                    fallback_to_polling = :fallback, next_ws_attempt_at = :next_attempt, heartbeat_at = :now
                """,
                {
                    "now": moment,
                    "connected": state.connected,
                    "connected_at": time_text(state.connected_at),
                    "ws_url": state.ws_url,
                    "last_message_at": time_text(state.last_message_at),
                    "reason": state.reason,
                    "attempts": state.attempts,
                    "failures": state.failures,
                    "fallback": state.fallback,
                    "next_attempt": time_text(state.next_attempt_at),
                },
            )
            _count_messages(connection, state.messages)
            increment(connection, "atom_saas_websocket_messages_invalid_total", state.invalid)
            increment(connection, "atom_saas_sync_errors_total", state.internal_errors, type="skill", error="internal")
            increment(connection, "atom_saas_websocket_reconnects_total", state.reconnects)
            increment(connection, "atom_saas_websocket_fallback_seconds_total", state.fallback_seconds)
        return switch

    def end(self, reason: str, now: datetime) -> None:
        """Record that `watch` was stopped cleanly, so that its absence is not reported as a problem."""
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE websocket_state SET connected = 0, disconnect_reason = ?1, fallback_to_polling = 0, "
                "fallback_started_at = NULL, next_ws_attempt_at = NULL, pid = NULL, stopped_at = ?2, heartbeat_at = ?2",
                (reason, format_time(now)),
            )

    def last_poll(self) -> datetime | None:
        """Return when the last run of the skills began, whatever started it."""
        with self._database.reading() as connection:
            return last_run_started_at(connection, "skills")


class Schedule:
    """The periodic jobs of `watch --jobs`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def stopped(self) -> bool:
        """Tell whether the emergency stop is on, or the Atom backend has switched scheduled syncs off."""
        with self._database.reading() as connection:
            return get_fact(connection, EMERGENCY_STOP) is not None or auto_sync_is_off(connection)

    def last_started(self, kind: str) -> datetime | None:
        """Return when the last run of a kind began, whatever started it."""
        with self._database.reading() as connection:
            return last_run_started_at(connection, kind)

    def plan(self, jobs: Sequence[ScheduledJob], now: datetime) -> None:
        """Replace the stored jobs; by an empty sequence if they no longer run."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM scheduled_job")
            connection.executemany(
                "INSERT INTO scheduled_job (id, name, minutes, next_run_time, updated_at) VALUES (?, ?, ?, ?, ?)",
                [(job.id, job.name, job.minutes, time_text(job.next_run_time), format_time(now)) for job in jobs],
            )


def _switch(connection: sqlite3.Connection) -> ConnectionSwitch:
    """Return what other programs have written into the row, recreating it if they have deleted it."""
    connection.execute(PUT_BACK)
    row = connection.execute(
        "SELECT websocket_enabled, reconnect_attempts, fallback_to_polling FROM websocket_state WHERE id = 1"
    ).fetchone()
    return ConnectionSwitch(enabled=bool(row[0]), attempts=row[1], fallback=bool(row[2]))


def _minute(moment: datetime) -> str:
    return format_time(moment)[:16]


def _count_messages(connection: sqlite3.Connection, messages: Mapping[str, int]) -> None:
    for kind, number in messages.items():
        increment(connection, "atom_saas_websocket_messages_total", number, type=kind)
