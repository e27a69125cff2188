"""Migrating the schema on a server: automatically only if it is empty, and without long locks."""

from __future__ import annotations

import threading
from hashlib import sha256

import psycopg
import pytest
from server_support import nothing, opened

from atom_saas_sync.core.server_address import read_server_address
from atom_saas_sync.errors import DatabaseError, UsageError
from atom_saas_sync.store.postgresql import migrations, schema
from atom_saas_sync.store.postgresql.connection import Connection
from atom_saas_sync.store.postgresql.database import Database
from atom_saas_sync.store.postgresql.session import advisory_class, advisory_key


def plain(url: str) -> Connection:
    return Connection(read_server_address(url), busy_timeout_seconds=1)


def test_the_first_writer_creates_the_schema(postgresql_url: str) -> None:
    with pytest.raises(DatabaseError, match="not up to date: it lacks 0001_tables") as error:
        opened(postgresql_url, read_only=True)
    assert "db upgrade" in str(error.value.hint)
    with opened(postgresql_url) as database:
        assert migrations.current(database) == migrations.known()[-1]
        assert migrations.pending(database) == []
        assert migrations.history(database)[0][1] is not None
        assert migrations.upgrade(database).migrations == ()
    opened(postgresql_url, read_only=True).close()


def test_texts_are_not_compressed_by_the_slow_method(postgresql_url: str) -> None:
    with opened(postgresql_url) as database, database.reading() as connection:
        found = connection.execute(
            "SELECT attstorage::text, attcompression::text FROM pg_attribute "
            "WHERE (attrelid, attname) IN (('skill_cache'::regclass, 'skill_data'), ('skill_base'::regclass, 'data'))"
        ).fetchall()
    assert set(found) in ({("x", "l")}, {("e", "")}), "lz4 if the server has it, else no compression"


def test_no_key_is_kept_apart_from_its_row(db: Database) -> None:
    key = sha256(b"key").hexdigest()  # which cannot be compressed
    values = {"key": key, "text": "".join(map(chr, range(300, 6000)))}
    with db.transaction(bulk=True) as connection:
        connection.execute("INSERT INTO skill_cache (skill_id, skill_data) VALUES (%(key)s, %(text)s)", values)
        connection.execute(
            "INSERT INTO skill_text (skill_id, name, head, words) VALUES (%(key)s, %(key)s, '', "
            "array_to_tsvector(array(SELECT 'word' || n FROM generate_series(1, 500) AS n)))",
            values,
        )
        for table in ("skill_cache", "skill_text"):
            toast = connection.execute(
                "SELECT reltoastrelid::regclass::text FROM pg_class WHERE oid = %s::regclass", (table,)
            )
            (name,) = toast.fetchone() or ("",)
            apart = connection.execute(f"SELECT count(DISTINCT chunk_id) FROM {name}".encode()).fetchone()
            assert apart == (1,), f"only the text of {table} is elsewhere"


def test_many_hosts_may_make_it_at_the_same_moment(postgresql_url: str) -> None:
    opened_ones: list[Database] = []
    threads = [threading.Thread(target=lambda: opened_ones.append(opened(postgresql_url))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened_ones) == 4
    for database in opened_ones:
        assert migrations.pending(database) == []
        database.close()


def test_a_host_waits_for_another_that_makes_it_for_long(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "_LOCK_SECONDS", 0.05)
    with plain(postgresql_url) as other, plain(postgresql_url) as database:
        lock = f"{advisory_class(other.schema)}, {advisory_key('migrations')}"
        other.connection.execute(f"SELECT pg_advisory_lock({lock})".encode())
        waits: list[float] = []

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 2:
                other.connection.execute(f"SELECT pg_advisory_unlock({lock})".encode())

        assert migrations.upgrade(database, sleep=sleep).migrations == tuple(migrations.known())
    assert len(waits) == 2


def test_the_tables_are_as_the_check_expects_them(db: Database) -> None:
    columns = {}
    for table in schema.expected_columns():
        rows = db.connection.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY attnum", (table,)
        )
        columns[table] = tuple(name for (name,) in rows)
    assert columns == schema.expected_columns()
    rows = db.connection.execute(
        "SELECT tgrelid::regclass::text, tgname::text FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = tgrelid "
        "WHERE NOT tgisinternal AND relnamespace = 'atom_sync'::regnamespace"
    )
    assert sorted(map(tuple, rows)) == sorted(schema.expected_triggers())


def test_public_has_no_privileges(db: Database) -> None:
    db.connection.execute("DROP ROLE IF EXISTS stranger")
    db.connection.execute("CREATE ROLE stranger")
    try:
        rows = db.connection.execute(
            "SELECT c.oid::regclass::text FROM pg_class AS c WHERE relkind IN ('r', 'v', 'S') "
            "AND relnamespace IN ('atom_sync'::regnamespace, 'public'::regnamespace) "
            "AND (CASE relkind WHEN 'S' THEN has_sequence_privilege('stranger', c.oid, 'USAGE') "
            "ELSE has_table_privilege('stranger', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRIGGER') END)"
        ).fetchall()
        assert rows == []
        asked = db.connection.execute("SELECT has_schema_privilege('stranger', 'atom_sync', 'USAGE')").fetchone()
        assert asked == (False,)
    finally:
        db.connection.execute("DROP ROLE stranger")


def test_another_schema_has_no_views_in_public(postgresql_url: str) -> None:
    with opened(postgresql_url) as database:
        rows = database.connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'v'"
        ).fetchall()
        assert rows == []


def test_existing_objects_are_refused_and_left_alone(postgresql_url: str) -> None:
    with plain(postgresql_url) as connection:
        connection.connection.execute(f"CREATE SCHEMA {connection.schema}".encode())
        connection.connection.execute("CREATE TABLE counter (mine integer)")
    with pytest.raises(DatabaseError, match=r"has test_\d+\.counter of another program; nothing was changed"):
        opened(postgresql_url)
    with plain(postgresql_url) as connection:
        assert connection.connection.execute("SELECT mine FROM counter").fetchall() == []
        assert migrations.applied(connection) == {}


def test_a_table_in_public_that_is_not_the_backends_is_refused_and_left(own_url: str) -> None:
    with opened(own_url) as database:
        migrations.downgrade(database, migrations.BASE)
        database.connection.execute("CREATE TABLE public.skill_cache (id integer)")
    with pytest.raises(DatabaseError, match=r"public\.skill_cache of another program.*skill_id is missing") as error:
        opened(own_url)
    assert "?schema=" in str(error.value.hint)
    opened(f"{own_url}&schema=beside").close()


def test_taking_back_leaves_nothing(own_url: str) -> None:
    with opened(own_url) as db:
        assert migrations.loss(db, migrations.BASE)["sync_state"] == 1
        assert migrations.downgrade(db, migrations.BASE).migrations == migrations.known()[::-1]
        left = db.connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace IN ('atom_sync'::regnamespace, 'public'::regnamespace) "
            "UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'atom_sync'::regnamespace"
        ).fetchall()
        assert left == []
        assert migrations.upgrade(db).migrations == migrations.known()


def test_objects_that_depend_on_our_tables_are_not_dropped(postgresql_url: str) -> None:
    with opened(postgresql_url) as db:
        db.connection.execute("CREATE VIEW report AS SELECT count(*) FROM usable_skill")
        with pytest.raises(DatabaseError, match="something of another program depends on"):
            migrations.downgrade(db, migrations.BASE)
        assert migrations.pending(db) == []


def test_an_unknown_target_is_refused(db: Database) -> None:
    with pytest.raises(UsageError, match="no migration is called '0999_x'"):
        migrations.upgrade(db, "0999_x")
    with pytest.raises(UsageError, match="no migration '0999_x' to go back to"):
        migrations.downgrade(db, "0999_x")


def test_an_older_program_continues_only_if_unknown_migrations_are_additive(postgresql_url: str) -> None:
    with opened(postgresql_url) as db:
        insert = "INSERT INTO schema_migration (name, additive) VALUES (%s, %s)"
        db.connection.execute(insert, ("0998_more", True))
        opened(postgresql_url).close()
        with pytest.raises(DatabaseError, match="newer atom-sync"):
            migrations.downgrade(db, migrations.BASE)
        db.connection.execute(insert, ("0999_other", False))
        with pytest.raises(DatabaseError, match="this version does not know 0999_other"):
            opened(postgresql_url)


def test_a_filled_schema_is_upgraded_only_by_db_upgrade(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(postgresql_url) as db:
        later = schema.Migration("0002_later", "schema.sql")
        monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, later))
        monkeypatch.setattr(schema, "_read", lambda _: "CREATE TABLE later (id bigint);")
        with pytest.raises(DatabaseError, match="not up to date: it lacks 0002_later"):
            opened(postgresql_url)
        assert migrations.upgrade(db).migrations == ("0002_later",)
        opened(postgresql_url).close()


def test_a_reader_that_stays_is_waited_for_a_while_and_then_nothing_was_changed(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(postgresql_url) as db:
        monkeypatch.setattr(migrations, "_LOCK_SECONDS", 0.02)
        pauses: list[float] = []
        with plain(postgresql_url) as reader, reader.reading() as connection:
            connection.execute("SELECT count(*) FROM skill_cache")
            with pytest.raises(DatabaseError, match="was locked for longer than"):
                migrations.downgrade(db, migrations.BASE, sleep=pauses.append)
        assert len(pauses) == 4
        assert migrations.pending(db) == []
        assert migrations.downgrade(db, migrations.BASE, sleep=nothing).migrations == migrations.known()


def test_a_missing_right_is_named_with_its_grant(db: Database, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("DROP ROLE IF EXISTS worker")
        owner.execute("CREATE ROLE worker LOGIN")
        try:
            as_worker = database_url.replace("atom@", "worker@")
            with pytest.raises(DatabaseError) as error:
                opened(f"{as_worker}&schema=workers")
            name = owner.info.dbname
            assert f'GRANT CREATE ON DATABASE "{name}" TO "worker";' in str(error.value.hint)
            with pytest.raises(DatabaseError) as error:
                opened(as_worker)
            assert 'GRANT USAGE, CREATE ON SCHEMA atom_sync TO "worker";' in str(error.value.hint)
            owner.execute("GRANT USAGE ON SCHEMA atom_sync TO worker")
            owner.execute("GRANT SELECT ON atom_sync.schema_migration TO worker")
            with opened(as_worker) as database:
                with pytest.raises(DatabaseError) as error, database.transaction() as connection:
                    connection.execute("INSERT INTO skill_due VALUES ('a')")
                assert "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA atom_sync" in str(error.value.hint)
        finally:
            owner.execute("DROP OWNED BY worker")
            owner.execute("DROP ROLE worker")


def test_a_migration_may_have_a_time_that_is_none(own_url: str) -> None:
    with opened(own_url) as db:
        db.connection.execute("UPDATE schema_migration SET applied_at = 'infinity'")
    with opened(own_url) as db:
        assert {at for _, at in migrations.history(db)} == {"unknown"}
