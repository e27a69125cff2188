from __future__ import annotations

import json
import re
import signal
import stat
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from store_support import child, plain, run_child, schema_of, sql

from atom_saas_sync.core.canonical import content_digest, exec_digest
from atom_saas_sync.errors import DatabaseError, UsageError
from atom_saas_sync.model.upkeep import Change
from atom_saas_sync.store.packing import pack
from atom_saas_sync.store.sqlite import maintenance, migrations, revisions, schema
from atom_saas_sync.store.sqlite.database import Database

NAMES = list(revisions.NAMES)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "atom.db"


@pytest.fixture
def older(path: Path) -> Path:
    """Return a database that has the first two migrations, and data."""
    with Database.open(path, migrate=False) as database:
        migrations.upgrade(database, NAMES[1])
        database.connection.execute("INSERT INTO skill_cache (skill_id, skill_data) VALUES ('a', '{}')")
    return path


def backups(path: Path) -> list[str]:
    return sorted(each.name for each in path.parent.iterdir() if each.suffix == ".bak")


def revision(path: Path) -> str | None:
    with Database.open(path, migrate=False, read_only=True) as database:
        return revisions.current(database)


# Up


def test_a_new_database_has_everything(path: Path) -> None:
    with Database.open(path) as database:
        assert revisions.current(database) == NAMES[-1]
        assert revisions.pending(database) == []
        history = revisions.history(database)
        assert migrations.upgrade(database) == Change()
    assert [name for name, _ in history] == NAMES
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", str(applied_at)) for _, applied_at in history)
    assert backups(path) == []


def contents(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Return all rows of all tables, with the times cut down to their form."""
    with plain(path) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name != 'sqlite_sequence'")
        return {
            table: [
                tuple(re.sub(r"\d", "0", each) if re.match(r"20\d\d-", str(each)) else each for each in row)
                for row in connection.execute(f'SELECT * FROM "{table}"')
            ]
            for (table,) in tables.fetchall()
        }


def test_a_new_database_is_what_all_migrations_one_by_one_leave(tmp_path: Path) -> None:
    at_once, stepwise = tmp_path / "at_once.db", tmp_path / "stepwise.db"
    Database.open(at_once).close()
    with Database.open(stepwise, migrate=False) as database:
        migrations.upgrade(database, NAMES[0])
    Database.open(stepwise).close()
    assert sorted(schema_of(at_once)) == sorted(schema_of(stepwise))
    assert contents(at_once) == contents(stepwise)
    # SQLite fires the triggers of one event in an order that depends on this one.
    triggers = "SELECT name FROM sqlite_master WHERE type = 'trigger' ORDER BY rowid"
    assert sql(at_once, triggers) == sql(stepwise, triggers)


def test_every_migration_that_has_a_name_has_statements() -> None:
    assert tuple(each.name for each in schema.MIGRATIONS) == revisions.NAMES


def test_a_new_database_gets_the_migrations_that_the_snapshot_lacks(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = schema.Migration("9999_newer", up=("CREATE TABLE newer (id)",), down=("DROP TABLE newer",))
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, newer))
    monkeypatch.setattr(revisions, "NAMES", (*NAMES, newer.name))
    monkeypatch.setattr(migrations, "NAMES", (*NAMES, newer.name))
    with Database.open(path) as database:
        assert [name for name, applied_at in revisions.history(database) if applied_at] == [*NAMES, newer.name]
        assert database.connection.execute("SELECT count(*) FROM newer").fetchone()[0] == 0


def test_the_tables_and_indexes_of_the_deployment_guide_are_there(path: Path) -> None:
    Database.open(path).close()
    names = {row[1] for row in schema_of(path)}
    assert names >= {
        *("conflict_log", "failed_rating_upload", "skill_cache", "category_cache", "sync_state", "websocket_state"),
        *("skill_rating", "usable_skill", "idx_skill_cache_skill_id", "idx_skill_cache_expires_at"),
        *("idx_category_cache_name", "idx_sync_state_device_id", "idx_conflict_log_skill_id"),
        "idx_conflict_log_resolved",
    }


def test_an_empty_database_has_nothing(path: Path) -> None:
    with Database.open(path, migrate=False) as database:
        assert revisions.current(database) is None
        assert revisions.pending(database) == NAMES
        assert revisions.history(database) == [(name, None) for name in NAMES]


def test_an_upgrade_stops_at_its_target(path: Path) -> None:
    with Database.open(path, migrate=False) as database:
        assert migrations.upgrade(database, NAMES[1]).migrations == tuple(NAMES[:2])
        assert migrations.upgrade(database, NAMES[0]).migrations == ()
        assert migrations.upgrade(database, migrations.HEAD).migrations == tuple(NAMES[2:])


def test_an_older_database_is_upgraded_after_a_copy(older: Path) -> None:
    Database.open(older).close()
    assert revision(older) == NAMES[-1]
    assert backups(older) == [f"atom.db.before-{NAMES[2]}.bak"]
    copy = older.with_name(backups(older)[0])
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert revision(copy) == NAMES[1]
    assert sql(copy, "SELECT skill_id FROM skill_cache") == sql(older, "SELECT skill_id FROM skill_cache") == [("a",)]


def test_a_copy_never_replaces_an_earlier_one(older: Path) -> None:
    for _ in range(2):
        with Database.open(older) as database:
            migrations.downgrade(database, NAMES[1])
    up, down = f"atom.db.before-{NAMES[2]}", f"atom.db.before-downgrade-of-{NAMES[-1]}"
    assert backups(older) == [f"{up}.2.bak", f"{up}.bak", f"{down}.2.bak", f"{down}.bak"]


def test_a_refused_upgrade_changes_nothing_and_leaves_no_copy(older: Path) -> None:
    sql(older, "CREATE TABLE skill_rating (stars)")
    before = schema_of(older)
    with pytest.raises(DatabaseError, match="table skill_rating that another program made"):
        Database.open(older)
    assert schema_of(older) == before
    assert backups(older) == []


def test_a_failed_upgrade_changes_nothing_and_leaves_no_copy(older: Path) -> None:
    before = schema_of(older)
    # Room for the copy, and for some pages of the upgrade.
    output = run_child("limit_files(path.stat().st_size + 9000); report(lambda: Database.open(path))", older)
    assert output.startswith("74 ")
    assert schema_of(older) == before
    assert backups(older) == []
    Database.open(older).close()


@pytest.mark.parametrize("act", [migrations.upgrade, migrations.downgrade, migrations.loss])
def test_unknown_targets_are_refused(path: Path, act: object) -> None:
    with Database.open(path) as database, pytest.raises(UsageError, match="nonsense") as caught:
        act(database, "nonsense")  # type: ignore[operator]
    assert "`atom-sync db history` lists them" in str(caught.value.hint)


def test_a_newer_database_is_neither_upgraded_nor_downgraded(path: Path) -> None:
    Database.open(path).close()
    sql(path, "INSERT INTO _sqlite_migrations VALUES (99, 'atom_saas_sync', '0099_future', '2030-01-01 00:00:00')")
    with Database.open(path, migrate=False) as database:
        assert revisions.history(database)[-1] == ("0099_future", "2030-01-01T00:00:00Z")
        with pytest.raises(DatabaseError, match="newer"):
            migrations.upgrade(database)
        with pytest.raises(DatabaseError, match="newer"):
            migrations.downgrade(database, -1)


# Down


def test_up_down_and_up_again_is_the_same_schema(path: Path) -> None:
    Database.open(path).close()
    before = schema_of(path)
    with Database.open(path) as database:
        assert migrations.downgrade(database, migrations.BASE).migrations == tuple(reversed(NAMES))
        assert revisions.current(database) is None
    left = {row[1] for row in schema_of(path)}
    assert left == {"_sqlite_migrations", "idx__sqlite_migrations_migration_set_name", "sqlite_sequence"}
    Database.open(path).close()
    assert schema_of(path) == before


def test_each_step_down_leaves_what_the_steps_before_it_made(path: Path) -> None:
    with Database.open(path) as database:
        for kept in range(len(NAMES) - 1, 0, -1):
            migrations.downgrade(database, -1)
            assert revisions.current(database) == NAMES[kept - 1]
            findings = maintenance.check(database)
            assert [each.message for each in findings] == [f"not applied: {', '.join(NAMES[kept:])}"]
            names = {row[1] for row in schema_of(path)}
            earlier = {each for name in NAMES[:kept] for each in migrations.created(name)}
            assert not names & set(migrations.created(NAMES[kept])) - earlier


def test_a_downgrade_says_what_it_would_lose_and_keeps_a_copy_of_it(path: Path) -> None:
    with Database.open(path) as database:
        with database.transaction() as connection:
            connection.execute("INSERT INTO skill_rating (skill_id, user_id, rating) VALUES ('a', 'ada', 5)")
            connection.execute(
                "INSERT INTO failed_rating_upload (rating_id, error_message, failed_at) VALUES (1, 'no', 'now')"
            )
            connection.execute("INSERT INTO skill_cache (skill_id, skill_data) VALUES ('a', '{\"name\": \"a\"}')")
        assert migrations.loss(database, "0003_conflicts") == {"skill_rating": 1, "failed_rating_upload": 1}
        assert migrations.loss(database, migrations.BASE) == {
            "skill_cache": 1,
            "sync_state": 1,
            "websocket_state": 1,
            "skill_rating": 1,
            "failed_rating_upload": 1,
        }
        assert migrations.loss(database, NAMES[-1]) == {}
        change = migrations.downgrade(database, "0003_conflicts")
    assert change.backup is not None
    assert sql(change.backup, "SELECT user_id, rating FROM skill_rating") == [("ada", 5)]
    assert sql(path, "SELECT skill_id FROM skill_cache") == [("a",)]


def test_more_steps_than_there_are_go_to_the_base(path: Path) -> None:
    with Database.open(path) as database:
        assert len(migrations.downgrade(database, -99).migrations) == len(NAMES)
        assert migrations.downgrade(database, -1) == Change()


def test_a_downgrade_leaves_other_programs_alone(path: Path) -> None:
    sql(
        path,
        "CREATE TABLE users (id INTEGER PRIMARY KEY, name)",
        "INSERT INTO users VALUES (1, 'ada')",
        "CREATE TABLE _sqlite_migrations (id INTEGER PRIMARY KEY, migration_set TEXT, name TEXT, applied_at TEXT)",
        "INSERT INTO _sqlite_migrations VALUES (1, 'theirs', '0001_catalogue', 'once')",
    )
    before = schema_of(path)
    with Database.open(path) as database:
        migrations.downgrade(database, migrations.BASE)
    assert [row for row in schema_of(path) if row[1] != "sqlite_sequence"] == before
    assert sql(path, "SELECT * FROM users") == [(1, "ada")]
    assert sql(path, "SELECT * FROM _sqlite_migrations") == [(1, "theirs", "0001_catalogue", "once")]


def test_a_table_that_another_programs_rows_refer_to_is_not_dropped(path: Path) -> None:
    with Database.open(path) as database:
        sql(
            path,
            "CREATE TABLE favourite (rating_id REFERENCES Skill_Rating(id) ON DELETE CASCADE)",
            "INSERT INTO skill_rating (id, skill_id, user_id, rating) VALUES (1, 'a', 'ada', 5)",
            "INSERT INTO favourite VALUES (1)",
        )
        with pytest.raises(DatabaseError, match="favourite of another program refers to Skill_Rating"):
            migrations.downgrade(database, "0003_conflicts")
        assert revisions.current(database) == "0004_ratings"
    assert sql(path, "SELECT * FROM favourite") == [(1,)]


# Several processes, and sudden death

OPEN_TOGETHER = """
print("ready", flush=True)
sys.stdin.read(1)
report(lambda: Database.open(path))
"""


def open_together(path: Path, number: int) -> list[str]:
    """Let several processes open the database at the same moment."""
    processes = [child(OPEN_TOGETHER, path) for _ in range(number)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go")
        process.stdin.flush()
    return [process.communicate(timeout=60)[0].strip() for process in processes]


def test_processes_that_open_a_new_database_at_once_migrate_it_once(tmp_path: Path) -> None:
    for attempt in range(2):
        path = tmp_path / str(attempt) / "state" / "atom.db"
        assert open_together(path, 4) == ["0"] * 4
        assert [name for (name,) in sql(path, "SELECT name FROM _sqlite_migrations ORDER BY id")] == NAMES
        assert sql(path, "PRAGMA journal_mode") == [("wal",)]
        assert backups(path) == []


def test_processes_that_open_an_older_database_at_once_copy_and_upgrade_it_once(older: Path) -> None:
    assert open_together(older, 3) == ["0"] * 3
    assert [name for (name,) in sql(older, "SELECT name FROM _sqlite_migrations ORDER BY id")] == NAMES
    assert backups(older) == [f"atom.db.before-{NAMES[2]}.bak"]
    assert revision(older.with_name(backups(older)[0])) == NAMES[1]


# The child dies at the first statement of open() that contains STATEMENT.
DIE = """
connect = sqlite3.connect
def die_at(statement):
    if STATEMENT in statement:
        os.kill(os.getpid(), signal.SIGKILL)
def traced(*arguments, **options):
    connection = connect(*arguments, **options)
    connection.set_trace_callback(die_at)
    return connection
sqlite3.connect = traced
Database.open(path)
"""


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE conflict_log", "CREATE INDEX idx_skill_rating_pending", "0004_ratings", "COMMIT"]
)
def test_a_migration_that_is_killed_leaves_the_old_state(older: Path, statement: str) -> None:
    before = schema_of(older)
    run_child(f"STATEMENT = {statement!r}" + DIE, older, exit_code=-signal.SIGKILL)
    assert schema_of(older) == before
    with Database.open(older) as database:
        assert revisions.pending(database) == []
        assert maintenance.check(database) == []


@pytest.mark.parametrize("statement", ["CREATE TABLE skill_cache", "CREATE TABLE conflict_log", "journal_mode = WAL"])
def test_a_database_whose_creation_was_killed_is_created_by_the_next_command(path: Path, statement: str) -> None:
    run_child(f"STATEMENT = {statement!r}" + DIE, path, exit_code=-signal.SIGKILL)
    with Database.open(path) as database:
        assert revisions.pending(database) == []
        assert maintenance.check(database) == []


def test_another_process_that_migrates_during_a_downgrade_is_noticed(path: Path) -> None:
    with Database.open(path) as database:

        def interfere(statement: str) -> None:
            if statement == "BEGIN IMMEDIATE":
                database.connection.set_trace_callback(None)
                with plain(path) as other:
                    other.execute("DELETE FROM _sqlite_migrations WHERE name = ?", (NAMES[-1],))

        database.connection.set_trace_callback(interfere)
        with pytest.raises(DatabaseError, match="at the same time"):
            migrations.downgrade(database, -1)


def test_the_totals_of_an_older_database_are_kept_and_put_back(path: Path) -> None:
    with Database.open(path, migrate=False) as database:
        migrations.upgrade(database, "0012_seen_signatures")
        sql(
            path,
            "UPDATE sync_state SET total_syncs = 7, successful_syncs = 5, failed_syncs = 2, "
            "last_successful_sync_at = '2026-01-01T00:00:00Z'",
        )
        migrations.upgrade(database)
        assert sql(path, "SELECT id, last_sync FROM sync_state") == [("marketplace_sync", "2026-01-01T00:00:00Z")]
        assert sql(path, "SELECT labels, value FROM counter ORDER BY 1") == [
            ('{"result": "failed"}', 2.0),
            ('{"result": "success"}', 5.0),
        ]
        migrations.downgrade(database, "0012_seen_signatures")
        assert sql(path, "SELECT id, device_id, total_syncs FROM sync_state") == [(1, "marketplace_sync", 7)]


def test_a_setting_stored_by_watch_is_not_an_administrator_s_switch(path: Path) -> None:
    with Database.open(path, migrate=False) as database:
        migrations.upgrade(database, "0013_backend_state")
        sql(path, "UPDATE websocket_state SET websocket_enabled = 0, started_at = '2026-01-01T00:00:00Z'")
        migrations.upgrade(database)
    assert sql(path, "SELECT websocket_enabled FROM websocket_state") == [(1,)]


def test_digests_of_an_older_database_are_recomputed_and_put_back(path: Path) -> None:
    fields = {"skill_id": "a", "name": "A", "code": "x", "limit": 1e16, "setup": "make", "metadata": {"likes": 1}}
    text = json.dumps(fields)
    wanted = {(content_digest(fields), exec_digest(fields))}
    with Database.open(path, migrate=False) as database:
        migrations.upgrade(database, "0006_index_characters")
        for skill_id, data in (("a", text), ("broken", "{"), ("edited", '{"skill_id": "edited", "name": "mine"}')):
            database.connection.execute(
                "INSERT INTO skill_cache (skill_id, skill_data) VALUES (?, ?)", (skill_id, data)
            )
            database.connection.execute(
                "INSERT INTO skill_base (skill_id, wire_digest, content_digest, exec_digest, confirmed_at, data) "
                "VALUES (?, x'', x'00', x'00', '2026-01-01T00:00:00Z', ?)",
                (skill_id, text if skill_id == "edited" else None),
            )
        packed = pack(text.encode())
        database.connection.execute(
            "INSERT INTO skill_version (skill_id, content_digest, exec_digest, ended_at, ended_by, data) "
            "VALUES ('a', x'00', x'00', '2026-01-01T00:00:00Z', 'superseded', ?)",
            (packed,),
        )
        query = "SELECT content_digest, exec_digest FROM {} WHERE skill_id != 'broken'"
        queries = [query.format(table) for table in ("skill_base", "skill_version")]

        migrations.upgrade(database, "0007_digests")
        for each in queries:
            assert {tuple(row) for row in database.connection.execute(each)} == wanted
        broken = database.connection.execute("SELECT content_digest FROM skill_base WHERE skill_id = 'broken'")
        assert broken.fetchone()[0] == b"\0"

        migrations.downgrade(database, "0006_index_characters")
        old = msgspec.json.Encoder(order="deterministic").encode
        before = (sha256(old(fields)).digest(), sha256(old(["x", *[None] * 6])).digest())
        for each in queries:
            assert {tuple(row) for row in database.connection.execute(each)} == {before}


def test_stored_texts_of_two_meanings_get_the_one_that_was_digested(path: Path) -> None:
    twice = '{"skill_id": "a", "name": "A", "code": "EVIL()", "code": "GOOD()"}'
    escaped = '{"skill_id": "b", "name": "B", "c\\u006fde": "GOOD()"}'
    plain = '{ "skill_id": "c", "name": "caf\\u00e9", "code": "GOOD()" }'
    with Database.open(path, migrate=False) as database:
        migrations.upgrade(database, "0008_seen_versions")
        for skill_id, text in (("a", twice), ("b", escaped), ("c", plain), ("d", "{")):
            database.connection.execute(
                "INSERT INTO skill_cache (skill_id, skill_data) VALUES (?, ?)", (skill_id, text)
            )
        migrations.upgrade(database)
        rows = database.connection.execute("SELECT skill_data FROM skill_cache ORDER BY skill_id").fetchall()
        texts = [row[0] for row in rows]
        assert texts[2:] == [plain, "{"]
        codes = [
            database.connection.execute("SELECT json_extract(?, '$.code')", (text,)).fetchone()[0] for text in texts[:3]
        ]
        assert codes == ["GOOD()"] * 3
        assert texts[0].count("code") == 1
        assert database.connection.execute("SELECT count(*) FROM bulk_write").fetchone()[0] == 0
        assert maintenance.check(database) == []
