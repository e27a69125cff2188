from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from store_support import plain, sql

from atom_saas_sync.store.sqlite import maintenance
from atom_saas_sync.store.sqlite.database import Database


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "atom.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    with Database.open(path) as database:
        yield database


def messages(path: Path, *, quick: bool = False) -> list[str]:
    with Database.open(path, read_only=True, migrate=False) as database:
        findings = maintenance.check(database, quick=quick)
    assert all(each.hint for each in findings)
    return [f"{each.check}: {each.message}" for each in findings]


# Checks


def test_a_sound_database_has_no_findings(path: Path, database: Database) -> None:
    sql(path, "INSERT INTO skill_cache (skill_id, skill_data) VALUES ('a', '{\"name\": \"a\"}'), ('b', 'not JSON')")
    assert maintenance.check(database) == []
    assert maintenance.check(database, quick=True) == []


def test_additions_of_other_programs_are_not_findings(path: Path, database: Database) -> None:
    sql(
        path,
        "CREATE TABLE users (id INTEGER PRIMARY KEY, boss REFERENCES users)",
        "INSERT INTO users VALUES (1, 99)",
        "ALTER TABLE skill_cache ADD COLUMN notes",
        "CREATE INDEX idx_theirs ON skill_cache(notes)",
    )
    assert maintenance.check(database) == []


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        (["DROP INDEX idx_conflict_log_open"], ["schema: the index idx_conflict_log_open is missing"]),
        (["DROP TRIGGER skill_cache_after_delete"], ["schema: the trigger skill_cache_after_delete is missing"]),
        (["DROP TABLE counter"], ["schema: the table counter is missing"]),
        (
            ["DROP VIEW usable_skill", "CREATE VIEW usable_skill AS SELECT * FROM skill_cache"],
            ["schema: the view usable_skill was changed by another program"],
        ),
        (
            ["ALTER TABLE audit_log RENAME COLUMN actor TO who"],
            ["schema: the column audit_log.actor is missing"],
        ),
        (
            ["DROP TABLE fact", "CREATE TABLE fact (name INTEGER PRIMARY KEY, value TEXT NOT NULL, updated_at TEXT)"],
            [
                "schema: the column fact.name was changed by another program",
                "schema: the column fact.updated_at was changed by another program",
            ],
        ),
        (
            ["INSERT INTO failed_rating_upload (rating_id, error_message, failed_at) VALUES (5, 'no', 'now')"],
            ["foreign_key: failed_rating_uploads row 1 refers to a row of skill_ratings that is gone"],
        ),
        (
            ["INSERT INTO bulk_write VALUES (1)"],
            ["search_index: the triggers are disabled for a bulk write, but none is running"],
        ),
        (
            [
                "INSERT INTO skill_cache (skill_id, skill_data) VALUES ('a', '{}'), ('b', '{}')",
                "DROP TRIGGER skill_cache_after_delete",
                "DELETE FROM skill_cache WHERE skill_id = 'a'",
            ],
            [
                "schema: the trigger skill_cache_after_delete is missing",
                "search_index: 0 skills cannot be found, 1 that are gone can",
            ],
        ),
        (
            [
                "DROP TRIGGER skill_cache_after_insert",
                "INSERT INTO skill_cache (skill_id, skill_data) VALUES ('a', '{}')",
            ],
            [
                "schema: the trigger skill_cache_after_insert is missing",
                "search_index: 1 skills cannot be found, 0 that are gone can",
            ],
        ),
        (["DROP TABLE skill_fts"], ["schema: the table skill_fts is missing"]),
        (
            ["INSERT INTO _sqlite_migrations VALUES (99, 'atom_saas_sync', '0099_future', '2030-01-01 00:00:00')"],
            ["migrations: a newer atom-sync added 0099_future"],
        ),
    ],
)
def test_each_inconsistency_is_found(path: Path, statements: list[str], expected: list[str]) -> None:
    Database.open(path).close()
    sql(path, *statements)
    found = messages(path)
    assert found[: len(expected)] == expected
    # Without the table, those that SQLite keeps for it are missing too.
    assert all("skill_fts_" in each for each in found[len(expected) :])


def test_files_that_everybody_can_open_are_found(path: Path, database: Database) -> None:
    path.chmod(0o640)
    assert maintenance.check(database) == []
    path.chmod(0o644)
    finding = maintenance.check(database)[0]
    assert finding.message == f"{path} can be opened by every user: -rw-r--r--"
    assert finding.hint == f"`chmod o= {path}`"


def test_damage_is_found(path: Path) -> None:
    with Database.open(path) as database, database.transaction() as connection:
        connection.executemany(
            "INSERT INTO audit_log (at, actor, action, subject) VALUES ('now', 'me', 'test', ?)",
            [(f"subject {number:05} {'x' * 500}",) for number in range(300)],
        )
    content = bytearray(path.read_bytes())
    content[-30 * 4096 :] = b"\xff" * (30 * 4096)
    path.write_bytes(content)
    for quick in (False, True):
        assert messages(path, quick=quick)[0].startswith("integrity: ")


def test_a_full_check_compares_indexes_with_their_tables(path: Path) -> None:
    Database.open(path).close()
    with plain(path) as connection:
        connection.execute("INSERT INTO audit_log (at, actor, action, subject) VALUES ('now', 'me', 'test', 'x')")
        # The schema is made to say that the index is on another column than the one it was filled from.
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET sql = 'CREATE INDEX idx_audit_log_subject ON audit_log(actor)' "
            "WHERE name = 'idx_audit_log_subject'"
        )
    assert any("idx_audit_log_subject" in each and "integrity" in each for each in messages(path))
    assert not any("integrity" in each for each in messages(path, quick=True))


def test_a_repair_makes_the_index_right_again(path: Path, database: Database) -> None:
    sql(
        path,
        "INSERT INTO bulk_write VALUES (1)",
        "INSERT INTO skill_cache (skill_id, skill_data) VALUES ('a', '{\"name\": \"alpha\"}'), ('b', 'not JSON')",
    )
    assert len(maintenance.check(database)) == 2
    maintenance.repair(database)
    assert maintenance.check(database) == []
    assert sql(path, "SELECT rowid FROM skill_fts WHERE skill_fts MATCH 'alpha'") == [(1,)]
    sql(path, "DELETE FROM skill_cache")
    assert maintenance.check(database) == []


# Backups
