"""Failures of a server or its connection: the exit code, one clear line, and never a password."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import wait_until
from link_support import StuckLink
from server_support import opened

from atom_saas_sync.core.server_address import ServerAddress, read_server_address
from atom_saas_sync.errors import AtomSyncError, ConfigError, DatabaseBusy, DatabaseError
from atom_saas_sync.store.postgresql import link, require_driver, session, suggestions
from atom_saas_sync.store.postgresql.connection import Connection
from atom_saas_sync.store.postgresql.database import Database
from atom_saas_sync.store.postgresql.failures import explained, unconnected
from atom_saas_sync.store.postgresql.moving import moving_in, moving_out
from atom_saas_sync.store.postgresql.rows import Row

ADDRESS = read_server_address("postgresql://worker:hunter2@db.example/site")


def reading(url: str) -> Connection:
    return Connection(read_server_address(url), busy_timeout_seconds=1, writes=False)


@pytest.mark.parametrize(
    ("said", "kind", "shown"),
    [
        ('FATAL:  password authentication failed for user "worker"', ConfigError, "refuses this user's password"),
        ("fe_sendauth: no password supplied", ConfigError, "asks for a password"),
        ('FATAL:  Peer authentication failed for user "worker"', ConfigError, "Peer authentication failed"),
        ('FATAL:  role "worker" is not permitted to log in', ConfigError, "not permitted to log in"),
        ('FATAL:  database "site" is not currently accepting connections', ConfigError, "not currently accepting"),
        ("FATAL:  connection requires a valid client certificate", ConfigError, "valid client certificate"),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.1"', ConfigError, "no pg_hba.conf entry"),
        ("server does not support SSL, but SSL was required", DatabaseError, "does not offer encryption"),
        ("SSL error: certificate verify failed", DatabaseError, "certificate is not valid"),
        ('private key file "/k" has group or world access', ConfigError, "group or world access"),
        ('root certificate file "/c" does not exist', ConfigError, "does not exist"),
        ("FATAL:  sorry, too many clients already", DatabaseBusy, "no connection left"),
        ("FATAL:  the database system is starting up", DatabaseBusy, "starting up"),
        ("FATAL:  the database system is not yet accepting connections", DatabaseBusy, "not accepting connections yet"),
        (
            "FATAL:  the database system is not accepting connections\nDETAIL:  Hot standby mode is disabled.",
            DatabaseError,
            "a standby that nobody may read",
        ),
        ("timeout expired", DatabaseError, "no answer in time"),
        ("session is read-only", DatabaseError, "standby"),
        ("FATAL:  le mot de passe ne va pas hunter2", DatabaseError, r"le mot de passe ne va pas \*\*\*\*"),
    ],
)
def test_failures_to_connect_name_the_cause(said: str, kind: type[AtomSyncError], shown: str) -> None:
    text = f'connection failed: connection to server at "10.0.0.9", port 5432 failed: {said}'
    error = unconnected(psycopg.OperationalError(text), ADDRESS)
    assert type(error) is kind
    assert error.exit_code == (78 if kind is ConfigError else 74)
    with pytest.raises(AtomSyncError, match=shown):
        raise error
    assert error.hint
    assert "hunter2" not in error.message + error.hint
    assert "\n" not in error.message


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("LockNotAvailable", DatabaseBusy, "locked for longer than 3 s"),
        ("DeadlockDetected", DatabaseBusy, "cannot use"),
        ("QueryCanceled", DatabaseBusy, "cannot use"),
        ("TooManyConnections", DatabaseBusy, "cannot use"),
        ("AdminShutdown", DatabaseError, "it ended the connection"),
        ("IdleInTransactionSessionTimeout", DatabaseError, "paused in a transaction"),
        ("ReadOnlySqlTransaction", DatabaseError, "standby"),
        ("DiskFull", DatabaseError, "disk is full"),
        ("OutOfMemory", DatabaseError, "no memory"),
        ("InsufficientPrivilege", DatabaseError, "the role worker may not"),
        ("InvalidPassword", ConfigError, "cannot use"),
        ("InvalidCatalogName", ConfigError, "cannot use"),
        ("UndefinedTable", DatabaseError, "cannot use"),
        ("DivisionByZero", DatabaseError, "refused a statement"),
    ],
)
def test_server_error_codes_become_typed_errors(name: str, kind: type[AtomSyncError], said: str) -> None:
    error = explained(getattr(psycopg.errors, name)("words"), ADDRESS, 3)
    assert type(error) is kind
    assert said in error.message
    assert error.hint
    assert "postgresql://worker@db.example/site" in error.message or "role worker" in error.message


def test_a_missing_table_names_the_upgrade() -> None:
    assert "atom-sync db upgrade" in str(explained(psycopg.errors.UndefinedTable("x"), ADDRESS).hint)


def test_a_row_that_a_policy_refuses_needs_no_grant() -> None:
    refused = psycopg.errors.InsufficientPrivilege('new row violates row-level security policy for table "skill_cache"')
    assert 'ALTER ROLE "worker" BYPASSRLS' in str(explained(refused, ADDRESS).hint)


def test_errors_do_not_repeat_stored_values(db: Database) -> None:
    insert = "INSERT INTO skill_due VALUES ('stored secret')"
    db.connection.execute(insert.encode())
    with pytest.raises(DatabaseError) as error, db.transaction() as connection:
        connection.execute(insert.encode())
    assert "duplicate key" in error.value.message
    assert "stored secret" not in error.value.message + str(error.value.hint)


def test_real_attempts_that_fail(database_url: str, tmp_path: Path) -> None:
    for url, kind, said in (
        ("postgresql://a@127.0.0.1:1/x", DatabaseError, "the connection was refused"),
        (f"postgresql://a@/x?host={tmp_path}", DatabaseError, "no such Unix socket"),
        (database_url.replace("atom@", "nobody_here@"), ConfigError, 'role "nobody_here" does not exist'),
        (database_url.partition("/test_")[0] + "/nowhere?" + database_url.partition("?")[2], ConfigError, "nowhere"),
        ("postgresql://a@127.0.0.1:1/x?sslmode=verify-full&sslrootcert=/nowhere", ConfigError, "no such file"),
    ):
        with pytest.raises(kind, match=said) as error:
            reading(url)
        assert type(error.value) in {kind, DatabaseBusy}, url


@pytest.mark.parametrize("variable", ["PGHOST", "PGHOSTADDR", "PGSERVICE"])
def test_a_host_of_the_environment_is_no_local_one(
    variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A URL without a host leads to libpq's, and a password must not travel there unencrypted."""
    services = tmp_path / "services"
    services.write_text("[remote]\nhost=db.example\n")
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    where = {"PGHOST": "db.example", "PGHOSTADDR": "192.0.2.1", "PGSERVICE": "remote"}[variable]
    monkeypatch.setenv(variable, where)
    given: list[dict[str, Any]] = []

    def connect(**parameters: Any) -> None:
        given.append(parameters)
        raise psycopg.OperationalError("connection refused")

    monkeypatch.setattr(psycopg.Connection, "connect", staticmethod(connect))
    with pytest.raises(DatabaseError, match="db.example" if variable != "PGHOSTADDR" else where):
        reading("postgresql://worker:hunter2@/site")
    assert (given[0]["sslmode"], given[0]["hostaddr"]) == ("require", "")


def test_the_url_decides_about_the_server(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "db.example")
    monkeypatch.setenv("PGHOSTADDR", "192.0.2.1")
    reading(database_url).close()


def test_writers_retry_for_a_while_and_readers_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    address = read_server_address("postgresql://a@127.0.0.1:1/x")
    pauses: list[float] = []
    moments = iter(range(100))
    monkeypatch.setattr(time, "monotonic", lambda: next(moments))
    with pytest.raises(DatabaseError, match="refused"):
        session.connect(address, writes=True, patience_seconds=5, sleep=pauses.append)
    assert len(pauses) == 4
    assert len(set(pauses)) > 1
    assert all(0 <= each <= 1 for each in pauses)
    pauses.clear()
    with pytest.raises(DatabaseError, match="refused"):
        session.connect(address, writes=False, patience_seconds=0, sleep=pauses.append)
    assert pauses == []


def test_a_connection_cut_off_by_a_server_that_starts_again_is_retried() -> None:
    """After the crash of one of its processes a server ends the others, even one that is still greeting a client."""
    with socket.create_server(("127.0.0.1", 0)) as crashed:
        address = read_server_address(f"postgresql://a@127.0.0.1:{crashed.getsockname()[1]}/x?sslmode=disable")

        def greet(times: int) -> threading.Thread:
            def cut_off() -> None:
                for _ in range(times):
                    crashed.accept()[0].close()

            thread = threading.Thread(target=cut_off)
            thread.start()
            return thread

        thread = greet(1)
        with pytest.raises(DatabaseError, match="it ended the connection before answering"):
            session.connect(address, writes=False, patience_seconds=0)
        thread.join()
        thread = greet(3)
        pauses: list[float] = []

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 3:
                thread.join()
                crashed.close()

        with pytest.raises(DatabaseError, match="the connection was refused"):
            session.connect(address, writes=True, patience_seconds=1, sleep=pause)
        assert len(pauses) > 3


def test_a_link_that_forwards_nothing_more_counts_as_broken(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Long enough for statements that are answered, also on a busy machine.
    monkeypatch.setattr(link, "LONGEST_SILENCE", 3.0)
    with StuckLink(database_url) as proxy, opened(proxy.url) as database:

        def writing() -> None:
            with database.transaction() as connection:
                connection.execute("INSERT INTO skill_due VALUES ('a')")
                proxy.get_stuck()
                connection.execute("INSERT INTO skill_due VALUES ('b')")

        with pytest.raises(DatabaseError, match="the connection broke"):
            writing()
        with opened(database_url) as other:
            other.connection.execute("SELECT pg_terminate_backend(%s, 5000)", (database.session.backend,))
        # Between two transactions it connects again.
        with database.transaction() as connection:
            assert connection.execute("SELECT count(*) FROM skill_due").fetchone() == (0,)
        for use in (database.reading, database.asking, lambda: database.pipelined("SELECT 1")):
            proxy.get_stuck()
            with pytest.raises(DatabaseError, match="broke") if use == database.asking else nullcontext(), use():
                pass
        proxy.get_stuck()
        assert database.ask("SELECT 1") == [(1,)]


def test_what_may_take_long_is_awaited_in_silence(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "LONGEST_SILENCE", 0.2)
    with moving_in(db) as _:
        db.connection.execute("SELECT pg_sleep(0.6)")
    with pytest.raises(DatabaseError, match="broke"):
        db.ask("SELECT pg_sleep(0.6)")


def test_a_completion_waits_for_a_connection_for_a_short_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(address: ServerAddress, **_: object) -> Connection:
        asked.append(address.options["connect_timeout"])
        raise DatabaseError("no answer")

    monkeypatch.setattr(suggestions, "Connection", refuse)
    address = read_server_address("postgresql://db.example/atom?connect_timeout=60")
    assert suggestions.suggestions(address, "skill", "a") == []
    assert asked == ["2"]


def test_a_writer_waits_for_another_for_a_limited_time(db: Database, database_url: str) -> None:
    with opened(database_url, busy_timeout_seconds=0.05) as other, db.transaction():
        with pytest.raises(DatabaseBusy, match=r"locked for longer than 0\.05 s"), other.transaction():
            pass
        with other.reading() as connection:  # no reader waits
            connection.execute("SELECT count(*) FROM skill_cache")
    with opened(database_url) as other, db.transaction(), pytest.raises(DatabaseBusy):  # noqa: SIM117 - one error
        with other.transaction(wait_seconds=0.01):
            pass


def test_a_reader_writes_nothing_and_sees_one_state(db: Database, database_url: str) -> None:
    with opened(database_url, read_only=True) as reader:
        with reader.reading() as connection:
            assert connection.execute("SELECT count(*) FROM skill_due").fetchone() == (0,)
            with db.transaction() as writing:
                writing.execute("INSERT INTO skill_due VALUES ('a')")
            assert connection.execute("SELECT count(*) FROM skill_due").fetchone() == (0,)
        with pytest.raises(DatabaseError), reader.reading() as connection:
            connection.execute("INSERT INTO skill_due VALUES ('b')")


def test_a_failure_rolls_the_whole_transaction_back(db: Database) -> None:
    def failing() -> None:
        with db.transaction() as connection:
            connection.execute("INSERT INTO skill_due VALUES ('a')")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    with db.reading() as connection:
        assert connection.execute("SELECT count(*) FROM skill_due").fetchone() == (0,)
    with pytest.raises(RuntimeError, match="do not nest"), db.transaction(), db.reading():
        pass


def test_each_session_is_set_up_and_named(database_url: str) -> None:
    address = replace(read_server_address(database_url), program="atom-sync/sync-skills")
    with Connection(address, busy_timeout_seconds=3) as connection:
        for name, value in {
            "application_name": "atom-sync/sync-skills",
            "TimeZone": "UTC",
            "jit": "off",
            "search_path": '"atom_sync", pg_temp',
            "lock_timeout": "3s",
            "statement_timeout": "1min",
            "idle_in_transaction_session_timeout": "1min",
            "client_connection_check_interval": "1s",
        }.items():
            assert connection.connection.execute("SELECT current_setting(%s)", (name,)).fetchone() == (value,), name


# What an administrator may have set for a role or a database, and what our sessions have.
ROLE_SETTINGS = {
    "array_nulls": ("off", "on"),
    "gin_fuzzy_search_limit": ("1", "0"),
    "idle_session_timeout": ("1min", "0"),
    "lock_timeout": ("1min", "10s"),
    "quote_all_identifiers": ("on", "off"),
    "standard_conforming_strings": ("off", "on"),
    "transaction_timeout": ("1min", "0"),
    "transform_null_equals": ("on", "off"),
}


@pytest.fixture
def role(database_url: str) -> Iterator[Callable[..., str]]:
    """Return what makes a role with settings, and returns a URL with it."""
    with psycopg.connect(database_url, autocommit=True) as owner:

        def make(settings: Mapping[str, str], options: str = "SUPERUSER") -> str:
            owner.execute(f"CREATE ROLE peculiar LOGIN {options}".encode())
            for name, value in settings.items():
                owner.execute(f"ALTER ROLE peculiar SET {name} = '{value}'".encode())
            return database_url.replace("atom@", "peculiar@")

        try:
            yield make
        finally:
            owner.execute("DROP OWNED BY peculiar")
            owner.execute("DROP ROLE peculiar")


def test_sessions_do_not_depend_on_the_settings_of_a_role(
    db: Database, role: Callable[[Mapping[str, str]], str]
) -> None:
    known = {name for (name,) in db.connection.execute("SELECT name FROM pg_settings")}
    chosen = {name: values for name, values in ROLE_SETTINGS.items() if name in known}
    with opened(role({name: unwanted for name, (unwanted, _) in chosen.items()})) as other:
        for name, (_, wanted) in chosen.items():
            assert other.connection.execute("SELECT current_setting(%s)", (name,)).fetchone() == (wanted,), name


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_writer_that_waited_sees_what_the_other_one_wrote(
    db: Database, role: Callable[[Mapping[str, str]], str], level: str
) -> None:
    with opened(role({"default_transaction_isolation": level})) as other, ThreadPoolExecutor(1) as thread:

        def count() -> Any:
            with other.transaction() as connection:
                return connection.execute("SELECT count(*) FROM skill_due").fetchone()

        with db.transaction() as connection:
            connection.execute("INSERT INTO skill_due VALUES ('a')")
            waiting = thread.submit(count)
            activity = "SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s"
            wait_until(lambda: connection.execute(activity, (other.session.backend,)).fetchone() == ("Lock",))
        assert waiting.result() == (1,)


def test_sessions_that_only_read_are_no_standby(role: Callable[[Mapping[str, str]], str]) -> None:
    url = role({"default_transaction_read_only": "on"})
    with pytest.raises(DatabaseError, match="its administrator lets sessions only read") as error:
        opened(url)
    assert error.value.exit_code == 74
    with opened(url, read_only=True) as reader, reader.reading() as connection:
        assert connection.execute("SELECT count(*) FROM skill_cache").fetchone() == (0,)
    # What may only read is refused once it writes; of several servers it takes any.
    for each in (url, url.replace("?host=", "?host=/nowhere,"), f"{url},/nowhere"):
        with Database.open(read_server_address(each), create=False) as perhaps:
            with perhaps.reading() as connection:
                assert connection.execute("SELECT count(*) FROM skill_cache").fetchone() == (0,)
            with pytest.raises(DatabaseError, match="its administrator lets sessions only read"), perhaps.transaction():
                pass


def test_row_level_security_hides_nothing_unnoticed(
    db: Database, database_url: str, role: Callable[[Mapping[str, str], str], str]
) -> None:
    url = role({}, "")
    for grant in ("USAGE ON SCHEMA atom_sync", "ALL ON ALL TABLES IN SCHEMA atom_sync"):
        db.connection.execute(f"GRANT {grant} TO peculiar".encode())
    opened(url).close()
    switch = "ALTER TABLE skill_cache {} ROW LEVEL SECURITY"
    db.connection.execute(switch.format("ENABLE").encode())
    try:
        for read_only in (False, True):
            with pytest.raises(DatabaseError, match=r"may hide rows .* on for atom_sync\.skill_cache") as error:
                opened(url, read_only=read_only)
            assert "BYPASSRLS" in str(error.value.hint)
        opened(database_url).close()  # the owner's
    finally:
        db.connection.execute(switch.format("DISABLE").encode())


def test_copying_a_large_database_has_no_time_limit(db: Database) -> None:
    for moving in (moving_out, moving_in):
        with moving(db):
            for limit in ("statement_timeout", "idle_in_transaction_session_timeout"):
                assert db.connection.execute(f"SHOW {limit}".encode()).fetchone() == ("0",)
    assert db.connection.execute("SHOW statement_timeout").fetchone() == ("1min",)


def test_strange_texts_are_stored_as_what_can_be(db: Database) -> None:
    for text in ("a\0b", "a\ud800b"):
        row = db.connection.execute("SELECT %s::text, %s::text[]", (text, [text])).fetchone()
        assert row == ("a\ufffdb", ["a\ufffdb"])


@pytest.mark.parametrize(
    ("texts", "stored"),
    [
        ([], []),
        (["", "NULL", '{"a, b"}', "é€😀", "x" * 100_000], None),
        (["a\0b", "c"], ["a\ufffdb", "c"]),
        (["a", "\0\ud800"], ["a", "\ufffd\ufffd"]),
        (["a", None, "\0"], ["a", None, "\ufffd"]),
        ([None], None),
        ([["a", "b"], ["c", "\0"]], [["a", "b"], ["c", "\ufffd"]]),
    ],
    ids=["none", "any", "NUL", "half a pair", "NULL", "NULL alone", "lists"],
)
def test_a_list_of_texts_arrives_as_an_array(db: Database, texts: list[Any], stored: list[Any] | None) -> None:
    row = db.connection.execute("SELECT %b::text[]", (texts,)).fetchone()
    assert row == (texts if stored is None else stored,)


def test_times_outside_the_range_of_datetime_are_none(db: Database) -> None:
    row = db.connection.execute(
        "SELECT 'infinity'::timestamptz, '-infinity'::timestamptz, '0044-03-15 BC'::timestamptz, "
        "'12000-01-01'::timestamptz, '2026-07-04 12:00:00.5+02'::timestamptz"
    ).fetchone()
    assert row is not None
    assert row[:4] == (None,) * 4
    assert row[4].isoformat() == "2026-07-04T10:00:00.500000+00:00"


def test_a_server_of_another_encoding_is_refused_before_anything_is_made(postgresql_server: str) -> None:
    with psycopg.connect(postgresql_server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(ConfigError, match="has the encoding LATIN1: UTF8 is needed"):
        opened(postgresql_server.replace("/postgres?", "/latin?"))


def test_a_server_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch, database_url: str) -> None:
    monkeypatch.setattr(session, "OLDEST", 990_000)
    with pytest.raises(ConfigError, match="15 or newer is needed"):
        reading(database_url)


def test_clocks_that_differ_much_keep_writers_off(
    database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    here = time.time
    monkeypatch.setattr(time, "time", lambda: here() - 30)
    Connection(read_server_address(database_url), busy_timeout_seconds=1).close()
    assert "ahead of this host's" in caplog.text
    monkeypatch.setattr(time, "time", lambda: here() + 90)
    with pytest.raises(DatabaseError, match="behind this host's; nothing was written"):
        Connection(read_server_address(database_url), busy_timeout_seconds=1)
    reading(database_url).close()


def test_a_pooler_in_transaction_mode_is_read_through_and_runs_nothing(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = session.begin_session

    def pooled(connection: psycopg.Connection[Row], *arguments: object, **options: object) -> session.Session:
        made = begin(connection, *arguments, **options)  # type: ignore[arg-type]
        connection.execute("RESET ALL")
        return made._replace(backend=7, is_pooled=True)

    monkeypatch.setattr("atom_saas_sync.store.postgresql.connection.begin_session", pooled)
    with Connection(read_server_address(database_url), busy_timeout_seconds=1) as connection:
        with connection.reading() as reading_one:
            assert reading_one.execute("SELECT count(*) FROM skill_cache").fetchone() == (0,)
            assert reading_one.execute("SHOW TimeZone").fetchone() == ("UTC",)
        assert connection.connection.execute("SELECT to_regclass('skill_due')").fetchone() == (None,)
        with pytest.raises(ConfigError, match="is a pooler in transaction mode"):
            connection.require_session()


def test_without_the_driver_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    require_driver()
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError) as error:
        require_driver()
    assert error.value.exit_code == 78
    assert "pip install 'atom-saas-sync[postgresql]'" in str(error.value.hint)
