"""The stored state of `watch`: its status, the order of messages, and the transaction that applies a batch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import cached_property

import psycopg

from atom_saas_sync.core.signing import Signer
from atom_saas_sync.model import (
    TIME_TO_LIVE,
    Category,
    ConnectionSwitch,
    MessageMark,
    ReportedConnection,
    ScheduledJob,
    SkillState,
)
from atom_saas_sync.store.names import ADDITIONS_BY_MESSAGE, DELETIONS_BY_MESSAGE, EMERGENCY_STOP
from atom_saas_sync.store.postgresql.batch import STANDING, Batch
from atom_saas_sync.store.postgresql.counters import Counted, increment_all
from atom_saas_sync.store.postgresql.database import Database
from atom_saas_sync.store.postgresql.facts import ask_fact, get_fact, set_fact
from atom_saas_sync.store.postgresql.rows import Row
from atom_saas_sync.store.postgresql.runs import AUTO_SYNC_OFF, last_run_started_at
from atom_saas_sync.store.postgresql.websocket_switch import LOCK_ROW
from atom_saas_sync.store.stored_json import stored_pairs
from atom_saas_sync.times import format_time

_MARKS = "SELECT kind, key, sent_at, deleted FROM last_message WHERE"
_DELETIONS_REMEMBERED = timedelta(days=1)
_WINDOW = timedelta(hours=1)
"""In which deletions and additions are counted."""


class RealtimeBatch(Batch):
    """One transaction in which a batch of messages is applied."""

    _prepared: Mapping[tuple[str, str], MessageMark] | None = None
    _prepared_keys: frozenset[str] = frozenset()

    def known(self, skill_ids: Iterable[str]) -> dict[str, SkillState]:
        """Return the stored state of these skills; their marks, needed next, arrive in the same round trip."""
        ids = list(skill_ids)
        rows = self._connection.execute(f"{_MARKS} kind IN ('skill', 'rating') AND key = ANY(%b)", (ids,))
        states = super().known(ids)
        self._prepared = {(kind, key): MessageMark(sent_at, deleted) for kind, key, sent_at, deleted in rows}
        self._prepared_keys = frozenset(ids)
        return states

    def marks(self, kind: str, keys: Iterable[str]) -> dict[str, MessageMark]:
        """Return the marks of the last messages about these subjects; `kind` is skill, rating or category."""
        wanted = list(keys)
        if kind != "category" and self._prepared is not None and self._prepared_keys.issuperset(wanted):
            return {key: self._prepared[kind, key] for key in wanted if (kind, key) in self._prepared}
        rows = self._connection.execute(f"{_MARKS} kind = %s AND key = ANY(%b)", (kind, wanted))
        return {key: MessageMark(sent_at, deleted) for _, key, sent_at, deleted in rows}

    def mark(self, kind: str, marks: Mapping[str, MessageMark], now: datetime) -> None:
        """Record that messages about these subjects were applied."""
        self._prepared = None
        if not marks:
            return
        self._connection.execute(
            """
            INSERT INTO last_message AS m (kind, key, sent_at, applied_at, deleted)
            SELECT %s, key, sent_at, %s, deleted
            FROM unnest(%b::text[], %b::timestamptz[], %b::boolean[]) AS new (key, sent_at, deleted)
            ON CONFLICT (kind, key) DO UPDATE SET (sent_at, applied_at, deleted)
                = (coalesce(excluded.sent_at, m.sent_at), excluded.applied_at, excluded.deleted)
            """,
            (
                kind,
                now,
                list(marks),
                [mark.sent_at for mark in marks.values()],
                [mark.deleted for mark in marks.values()],
            ),
        )

    def category(self, name: str) -> str | None:
        """Return the JSON text of a cached category."""
        row = self._connection.execute(
            "SELECT category_data FROM category_cache WHERE category_name = %s", (name,)
        ).fetchone()
        return row[0] if row else None

    def put_category(self, category: Category, now: datetime) -> None:
        """Add a category or replace the cached one; the next poll reads the complete list."""
        moment = now.replace(microsecond=0)
        self._connection.execute(
            "INSERT INTO category_cache (category_name, category_data, expires_at, created_at, updated_at) "
            "VALUES (%s, %s, %s, %s, %s) ON CONFLICT (category_name) DO UPDATE SET (category_data, expires_at, "
            "updated_at) = (excluded.category_data, excluded.expires_at, excluded.updated_at)",
            (category.name, category.text, moment + TIME_TO_LIVE, moment, moment),
        )
        self._connection.execute("UPDATE http_validator SET etag = NULL WHERE page IS NULL AND etag IS NOT NULL")

    def deletions_lately(self, now: datetime) -> tuple[int, int, int]:
        """Return the deletions by messages within an hour, and the number of listed skills: now, and the maximum.

        Deletions before the last start of `watch` are included.

        Skills known only from messages do not count.
        """
        counted = self._connection.execute("SELECT count(*) FROM skill_base WHERE page IS NOT NULL")
        past = _lately(self._deletions, now).values()
        row = counted.fetchone()
        assert row is not None
        listed = int(row[0])
        return sum(number for number, _ in past), listed, max([listed, *(then for _, then in past)])

    def note_deletions(self, number: int, listed: int, now: datetime) -> None:
        """Record deletions by messages, and the number of listed skills."""
        by_minute, minute = _lately(self._deletions, now), _minute(now)
        before, most = by_minute.get(minute, (0, 0))
        by_minute[minute] = before + number, max(most, listed)
        self._deletions = by_minute
        set_fact(self._connection, DELETIONS_BY_MESSAGE, json.dumps(by_minute), now)

    @cached_property
    def _deletions(self) -> dict[str, tuple[int, int]]:
        return self._minutes_of(DELETIONS_BY_MESSAGE)

    def additions_lately(self, now: datetime) -> tuple[int, int]:
        """Return the number and the bytes of what messages have added within an hour."""
        past = _lately(self._minutes_of(ADDITIONS_BY_MESSAGE), now).values()
        return sum(number for number, _ in past), sum(size for _, size in past)

    def note_additions(self, number: int, size: int, now: datetime) -> None:
        """Record additions by messages, and their bytes."""
        by_minute, minute = _lately(self._minutes_of(ADDITIONS_BY_MESSAGE), now), _minute(now)
        before, bytes_before = by_minute.get(minute, (0, 0))
        by_minute[minute] = before + number, bytes_before + size
        set_fact(self._connection, ADDITIONS_BY_MESSAGE, json.dumps(by_minute), now)

    def _minutes_of(self, fact: str) -> dict[str, tuple[int, int]]:
        return stored_pairs(get_fact(self._connection, fact))

    def invalidate_pages(self, pages: Iterable[int]) -> None:
        """Make the next poll read these pages completely: a message has changed skills on them.

        Messages may be wrong, which would go unnoticed if the page's old validator still applied.
        """
        if numbers := list(pages):
            self._connection.execute(
                "UPDATE http_validator SET etag = NULL WHERE page = ANY(%s) AND etag IS NOT NULL", (numbers,)
            )

    def count(self, messages: Mapping[str, int], outcomes: Mapping[tuple[str, str], int], now: datetime) -> None:
        """Count messages by type and changes by (type, action), and note when the last message came."""
        self._counted += _messages_counted(messages)
        self._counted += [
            ("atom_saas_sync_items_total", number, {"type": kind, "action": action})
            for (kind, action), number in outcomes.items()
        ]
        self._connection.execute("UPDATE websocket_state SET last_message_at = %s", (now.replace(microsecond=0),))


class RealtimeStore:
    """The part of the store that `watch` uses."""

    def __init__(self, database: Database, *, history_versions: int, signer: Signer | None = None) -> None:
        """Work on `database`; keep `history_versions` former versions of each skill."""
        self._database = database
        self._history_versions = history_versions
        self._signer = signer

    @contextmanager
    def batch(self) -> Iterator[RealtimeBatch]:
        """Open the transaction in which one batch of messages is applied."""
        with self._database.pipelined(STANDING) as (connection, standing):
            batch = RealtimeBatch(connection, self._history_versions, signer=self._signer, standing=standing)
            yield batch
            batch.finish()
            self._database.notifications.send(connection, batch.changes, in_run=False)

    def begin(self, ws_url: str, now: datetime) -> ConnectionSwitch:
        """Record that `watch` has started; unfinished work of its predecessor is marked as ended."""
        moment = now.replace(microsecond=0)
        with self._database.transaction() as connection:
            switch = _switch(connection)
            connection.execute(
                """
                UPDATE websocket_state SET connected = false, ws_url = %s, disconnect_reason = NULL,
                    reconnect_attempts = 0, consecutive_failures = 0, fallback_to_polling = false,
                    fallback_started_at = NULL, next_ws_attempt_at = NULL, host = %s, pid = %s, started_at = %s,
                    stopped_at = NULL, heartbeat_at = %s
                """,
                (ws_url, self._database.host, os.getpid(), moment, moment),
            )
            connection.execute(
                "DELETE FROM last_message WHERE deleted AND applied_at < %s", (now - _DELETIONS_REMEMBERED,)
            )
        return switch

    def note(self, state: ReportedConnection, now: datetime) -> ConnectionSwitch:
        """Write the connection's state, the heartbeat, and what was counted since the last time."""
        with self._database.transaction(durable=False) as connection:
            switch = _switch(connection)
            connection.execute(
                """
                UPDATE websocket_state SET
                    last_connected_at = coalesce(%(connected_at)s, last_connected_at),
                    connected = %(connected)s, ws_url = %(ws_url)s,
                    last_message_at = coalesce(%(last_message_at)s, last_message_at),
                    disconnect_reason = %(reason)s, reconnect_attempts = %(attempts)s,
                    consecutive_failures = %(failures)s,
                    fallback_started_at = CASE
                        WHEN NOT %(fallback)s THEN NULL WHEN fallback_to_polling THEN fallback_started_at
                        ELSE %(now)s END,
                    fallback_to_polling = %(fallback)s, next_ws_attempt_at = %(next_attempt)s, heartbeat_at = %(now)s
                """,
                {
                    "now": now.replace(microsecond=0),
                    "connected": state.connected,
                    "connected_at": _second(state.connected_at),
                    "ws_url": state.ws_url,
                    "last_message_at": _second(state.last_message_at),
                    "reason": state.reason,
                    "attempts": state.attempts,
                    "failures": state.failures,
                    "fallback": state.fallback,
                    "next_attempt": _second(state.next_attempt_at),
                },
            )
            counted: list[Counted] = [
                *_messages_counted(state.messages),
                ("atom_saas_websocket_messages_invalid_total", state.invalid, {}),
                ("atom_saas_sync_errors_total", state.internal_errors, {"type": "skill", "error": "internal"}),
                ("atom_saas_websocket_reconnects_total", state.reconnects, {}),
                ("atom_saas_websocket_fallback_seconds_total", state.fallback_seconds, {}),
            ]
            increment_all(connection, counted)
            self._database.notifications.send(connection, 0, in_run=False)
        return switch

    def end(self, reason: str, now: datetime) -> None:
        """Record that `watch` was stopped cleanly, so that its absence is not a problem."""
        moment = now.replace(microsecond=0)
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE websocket_state SET connected = false, disconnect_reason = %s, fallback_to_polling = false, "
                "fallback_started_at = NULL, next_ws_attempt_at = NULL, pid = NULL, stopped_at = %s, heartbeat_at = %s",
                (reason, moment, moment),
            )

    def last_poll(self) -> datetime | None:
        """Return when the last run of the skills began, however it was started."""
        return last_run_started_at(self._database, "skills")


class Schedule:
    """The periodic jobs of `watch --jobs`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def stopped(self) -> bool:
        """Tell whether the emergency stop is on, or the Atom backend has switched scheduled syncs off."""
        return ask_fact(self._database, EMERGENCY_STOP) is not None or bool(self._database.ask(AUTO_SYNC_OFF))

    def last_started(self, kind: str) -> datetime | None:
        """Return when the last run of a kind began, however it was started."""
        return last_run_started_at(self._database, kind)

    def plan(self, jobs: Sequence[ScheduledJob], now: datetime) -> None:
        """Replace the stored jobs; an empty sequence if they no longer run."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM scheduled_job")
            connection.execute(
                "INSERT INTO scheduled_job (id, name, minutes, next_run_time, updated_at) SELECT id, name, minutes, "
                "next_run_time, %s FROM unnest(%b::text[], %b::text[], %b::integer[], %b::timestamptz[]) "
                "AS new (id, name, minutes, next_run_time)",
                (
                    now.replace(microsecond=0),
                    [job.id for job in jobs],
                    [job.name for job in jobs],
                    [job.minutes for job in jobs],
                    [_second(job.next_run_time) for job in jobs],
                ),
            )


def _switch(connection: psycopg.Connection[Row]) -> ConnectionSwitch:
    """Return what other programs have written to the row; recreate it if they deleted it."""
    connection.execute(LOCK_ROW)
    row = connection.execute(
        "SELECT websocket_enabled, reconnect_attempts, fallback_to_polling FROM websocket_state WHERE id = 1"
    ).fetchone()
    assert row is not None
    return ConnectionSwitch(enabled=row[0], attempts=row[1], fallback=row[2])


def _lately(by_minute: Mapping[str, tuple[int, int]], now: datetime) -> dict[str, tuple[int, int]]:
    first, last = _minute(now - _WINDOW), _minute(now + _WINDOW)  # a clock may be set back
    return {minute: entry for minute, entry in by_minute.items() if first <= minute <= last}


def _minute(moment: datetime) -> str:
    return format_time(moment)[:16]


def _second(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(microsecond=0)


def _messages_counted(messages: Mapping[str, int]) -> list[Counted]:
    return [("atom_saas_websocket_messages_total", number, {"type": kind}) for kind, number in messages.items()]
