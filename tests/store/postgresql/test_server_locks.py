"""The lock of a run on a server: it ends with its session, and a run that has lost it writes nothing more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from conftest import wait_until
from server_support import NOON, nothing, opened

from atom_saas_sync.errors import DatabaseError, Locked
from atom_saas_sync.model import ConnectionSwitch, ReportedConnection
from atom_saas_sync.store.postgresql import realtime
from atom_saas_sync.store.postgresql.connection import Connection
from atom_saas_sync.store.postgresql.database import Database
from atom_saas_sync.store.postgresql.lock import holder, run_lock
from atom_saas_sync.store.postgresql.realtime import RealtimeStore
from atom_saas_sync.store.postgresql.rows import Row

NOW = datetime(2026, 2, 19, 12, tzinfo=UTC)
FAILED = ReportedConnection(connected=False, ws_url="wss://x", attempts=1, failures=2)


@pytest.fixture
def pair(database_url: str) -> Iterator[tuple[Database, Database]]:
    with opened(database_url, host="alpha") as one, opened(database_url) as other:
        yield one, other


def locked(db: Connection, kind: str = "skills") -> AbstractContextManager[None]:
    return run_lock(db, kind, command="sync skills", now=lambda: NOON, sleep=nothing, may_wait=True)


def cut(victim: Connection, by: Connection) -> None:
    by.connection.execute("SELECT pg_terminate_backend(%s, 5000)", (victim.session.backend,))


def test_one_run_of_a_kind_has_the_lock_and_is_named(pair: tuple[Database, Database]) -> None:
    one, other = pair
    assert holder(other, "skills") is None
    with locked(one):
        with pytest.raises(
            Locked, match=r"another skills run is in progress: `sync skills`, process \d+ on alpha"
        ) as error:
            locked(other).__enter__()
        assert "--wait SECONDS" in str(error.value.hint)
        assert (holder(other, "skills") or {})["since"] == NOON
        with locked(other, "ratings"):
            pass
    assert holder(other, "skills") is None
    with locked(other):
        pass


def test_two_schemas_of_one_database_do_not_meet(pair: tuple[Database, Database], postgresql_server: str) -> None:
    with locked(pair[0]), opened(f"{postgresql_server}&schema=another_site") as other, locked(other):
        pass


def test_a_waiting_run_gets_the_lock_when_it_is_free(pair: tuple[Database, Database]) -> None:
    one, other = pair
    held = locked(one)
    held.__enter__()
    pauses = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            held.__exit__(None, None, None)

    with run_lock(other, "skills", command="", now=lambda: NOON, sleep=sleep, wait_seconds=60):
        assert len(pauses) == 3
    assert all(0.25 <= each <= 1 for each in pauses)


def test_a_waiting_process_has_no_connection_between_attempts(pair: tuple[Database, Database]) -> None:
    one, other = pair
    held = locked(one)
    held.__enter__()
    closed = []

    def sleep(_: float) -> None:
        closed.append(other.connection.closed)
        if len(closed) == 2:
            held.__exit__(None, None, None)

    with run_lock(other, "skills", command="", now=lambda: NOON, sleep=sleep, wait_seconds=float("inf")):
        assert closed == [True, True]


def test_a_waiting_process_outlasts_a_server_that_cannot_be_reached(
    pair: tuple[Database, Database], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = pair
    held = locked(one)
    held.__enter__()
    connect, failures = other.reconnect, iter(["no answer in time", "no answer in time", "it is a standby"])

    def reconnect() -> None:
        if said := next(failures, None):
            raise DatabaseError(said)
        held.__exit__(None, None, None)
        connect()

    monkeypatch.setattr(other, "reconnect", reconnect)
    with run_lock(other, "skills", command="", now=lambda: NOON, sleep=nothing, wait_seconds=float("inf")):
        pass
    assert [record.message for record in caplog.records] == [
        "no answer in time; trying again",
        "it is a standby; trying again",
    ]


def test_a_run_survives_a_broken_connection_between_transactions(pair: tuple[Database, Database]) -> None:
    one, other = pair
    with locked(one):
        cut(one, other)
        with one.transaction() as connection:
            connection.execute("INSERT INTO skill_due VALUES ('a')")
        assert holder(other, "skills") is not None


def test_a_run_that_has_reconnected_is_still_named(pair: tuple[Database, Database]) -> None:
    one, other = pair
    with locked(one):
        cut(one, other)
        with one.transaction():
            pass
        assert (holder(other, "skills") or {}).get("host") == "alpha"


def test_a_run_is_overtaken_though_a_failover_has_lost_its_token(pair: tuple[Database, Database]) -> None:
    one, other = pair
    with locked(one):
        pass
    before = other.connection.execute("SELECT kind, token FROM run_lock").fetchall()
    with locked(one):
        # The new primary never got the transaction that began this run.
        other.connection.cursor().executemany(
            "UPDATE run_lock SET token = %s WHERE kind = %s", [row[::-1] for row in before]
        )
        cut(one, other)
        with locked(other):
            pass
        with pytest.raises(Locked), one.transaction():
            pass


def test_a_run_that_was_overtaken_writes_nothing_more(pair: tuple[Database, Database]) -> None:
    one, other = pair
    with locked(one):
        cut(one, other)
        with locked(other):
            pass
        with pytest.raises(Locked, match="while this one had no connection"), one.transaction() as connection:
            connection.execute("INSERT INTO skill_due VALUES ('a')")
    with other.reading() as connection:
        assert connection.execute("SELECT count(*) FROM skill_due").fetchone() == (0,)


def test_the_token_fences_off_a_session_that_believes_it_has_the_lock(pair: tuple[Database, Database]) -> None:
    one, other = pair
    with locked(one):
        one.connection.execute("SELECT pg_advisory_unlock_all()")  # as by a pooler that reassigns the session
        with locked(other):
            pass
        with pytest.raises(Locked), one.transaction():
            pass
        with pytest.raises(Locked), one.transaction():  # nor later, and no transaction is left open
            pass


def test_a_transaction_that_cannot_begin_leaves_none_open(pair: tuple[Database, Database]) -> None:
    one, other = pair
    with locked(one):
        other.connection.execute("ALTER TABLE run_lock RENAME TO elsewhere")
        try:
            with pytest.raises(DatabaseError, match="run_lock"), one.transaction():
                pass
        finally:
            other.connection.execute("ALTER TABLE elsewhere RENAME TO run_lock")
        with one.transaction():
            pass


def test_a_broken_connection_within_a_transaction_is_an_error(pair: tuple[Database, Database]) -> None:
    one, other = pair

    def writing() -> None:
        with one.transaction() as connection:
            connection.execute("INSERT INTO skill_due VALUES ('a')")
            cut(one, other)
            connection.execute("SELECT 1")

    with pytest.raises(DatabaseError, match="it ended the connection"):
        writing()
    with other.reading() as connection:
        assert connection.execute("SELECT count(*) FROM skill_due").fetchone() == (0,)


def test_what_another_program_writes_meanwhile_is_not_lost(
    pair: tuple[Database, Database], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`watch` stores its state over a row that administrators write, too: what it replaces it must have read."""
    watch, admin = pair
    store = RealtimeStore(watch, history_versions=1)
    store.begin("wss://x", NOW)
    store.note(FAILED, NOW)
    read: Callable[[psycopg.Connection[Row]], ConnectionSwitch] = vars(realtime)["_switch"]

    with ThreadPoolExecutor(1) as thread, opened(database_url) as observer:

        def read_then_written(connection: psycopg.Connection[Row]) -> ConnectionSwitch:
            found = read(connection)
            reset = thread.submit(admin.connection.execute, "UPDATE websocket_state SET reconnect_attempts = 0")
            wait_until(lambda: reset.done() or waits_for_a_lock(observer, admin))
            return found

        monkeypatch.setattr(realtime, "_switch", read_then_written)
        store.note(FAILED, NOW)
    monkeypatch.undo()
    assert store.note(FAILED, NOW).attempts == 0


def test_a_row_that_another_program_deletes_meanwhile_comes_back(
    pair: tuple[Database, Database], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It deletes the row right after `watch` has made sure that it is there."""
    watch, other = pair
    store = RealtimeStore(watch, history_versions=1)
    store.begin("wss://x", NOW)
    execute = watch.connection.execute

    with ThreadPoolExecutor(1) as thread, opened(database_url) as observer:

        def execute_then_delete(query: Any, *values: Any) -> Any:
            found = execute(query, *values)
            if "INSERT INTO websocket_state" in str(query):
                deletion = thread.submit(other.connection.execute, "DELETE FROM websocket_state")
                wait_until(lambda: deletion.done() or waits_for_a_lock(observer, other))
            return found

        monkeypatch.setattr(watch.connection, "execute", execute_then_delete)
        assert store.note(FAILED, NOW).enabled
    monkeypatch.undo()
    store.note(FAILED, NOW)
    assert other.connection.execute("SELECT consecutive_failures FROM websocket_state").fetchone() == (2,)


def waits_for_a_lock(observer: Connection, other: Connection) -> bool:
    activity = "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
    return observer.connection.execute(activity, (other.session.backend,)).fetchone() is not None
