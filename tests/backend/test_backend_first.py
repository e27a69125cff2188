"""A database created by the Atom backend: adopted with its rows, used by both programs, and given back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from backend_models import LONG_AGO, ConflictLog, FailedRatingUpload, SkillCache, SkillRating, backend, fill, rows
from conftest import Machine
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from atom_saas_sync.errors import DatabaseError
from atom_saas_sync.store.backend_tables import TABLES
from atom_saas_sync.store.sqlite import migrations
from atom_saas_sync.store.sqlite.database import Database

pytestmark = pytest.mark.sqlite("the backend's tables in its file; test_backend_on_server.py has those of a server")


@pytest.fixture
def engine(machine: Machine) -> Engine:
    """Return the backend with a database that it has created and filled."""
    engine = backend(machine.database_path)
    skills = [dict(machine.sandbox.skill(name)) for name in machine.sandbox.skill_ids()[:20]]
    fill(engine, skills)
    return engine


def document(machine: Machine, *arguments: str, code: int = 0) -> Any:
    result = machine.command(*arguments, "--json")
    assert result.returncode == code, (arguments, result.stderr, result.stdout)
    return json.loads(result.stdout)


def raw(path: Path) -> dict[str, list[Any]]:
    with Database.open(path, migrate=False, read_only=True) as database:
        tables = [table.name for table in TABLES]
        found = {name: database.connection.execute(f"SELECT * FROM {name}").fetchall() for name in tables}
        return {name: [tuple(row) for row in found[name]] for name in tables}


def made(machine: Machine) -> list[Any]:
    return machine.sql(
        "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE '%sqlite%' ORDER BY name"
    )


def test_a_database_of_the_backend_is_adopted_and_used_by_both(machine: Machine, engine: Engine) -> None:
    upgraded = machine.command("db", "upgrade", "--json")
    found = json.loads(upgraded.stdout)
    assert (upgraded.returncode, len(found["adopted"])) == (0, 7)
    assert "adopted the Atom backend's database" in upgraded.stderr and " kB)" in upgraded.stderr
    assert Path(found["backup"]).exists()
    assert document(machine, "db", "current")["origin"] == "backend"
    machine.database_path.chmod(0o644)
    assert document(machine, "db", "check")["findings"] == []
    assert document(machine, "conflicts", "list")["total"] == 10

    synced = document(machine, "sync", "skills")
    assert (synced["success"], synced["conflicts"]["detected"]) == (True, 0)
    listed = machine.listed()
    assert {name: skill for name, skill in machine.cached().items() if name in listed} == listed
    assert machine.sql("SELECT count(DISTINCT skill_id) FROM skill_version") == [(20,)]
    assert document(machine, "sync", "ratings", code=0)["uploaded"] == 0  # failed permanently there
    assert document(machine, "ratings", "retry", "--all")["total"] == 10
    assert document(machine, "sync", "ratings")["uploaded"] == 10
    status = document(machine, "status")
    assert (status["database"]["origin"], status["sync"]["total_syncs"], status["ratings"]["synced"]) == (
        "backend",
        1,
        20,
    )
    assert document(machine, "db", "check")["findings"] == []
    after = rows(engine)
    assert [len(after[table.name]) for table in TABLES] == [60, len(after["category_cache"]), 1, 1, 20, 20, 0 + 10]
    assert after["sync_state"][0]["last_successful_sync_at"] is not None
    assert after["websocket_state"][0]["reconnect_attempts"] == 4


def test_the_backend_gets_its_tables_back(machine: Machine, engine: Engine) -> None:
    before, tables = raw(machine.database_path), made(machine)
    Database.open(machine.database_path).close()
    assert raw(machine.database_path) != before
    with Database.open(machine.database_path, migrate=False) as database:
        change = migrations.downgrade(database, "base")
    assert len(change.adopted) == 7
    assert raw(machine.database_path) == before
    assert made(machine) == tables
    with Session(engine) as session:
        session.add(SkillCache(skill_id="new", skill_data={}, expires_at=LONG_AGO))
        session.commit()


def test_a_scheduled_run_adopts_nothing(machine: Machine, engine: Engine) -> None:
    before = made(machine)
    refused = machine.command("sync", "skills", "--scheduled", ENABLE_SCHEDULER="true")
    assert refused.returncode == 74 and "db upgrade" in refused.stderr
    assert made(machine) == before
    assert list(machine.directory.glob("*.bak")) == []
    assert document(machine, "db", "current")["origin"] == "backend"


def test_commands_that_write_adopt_and_those_that_read_do_not(machine: Machine, engine: Engine) -> None:
    refused = machine.command("conflicts", "list", "--json")
    assert refused.returncode == 74 and "db upgrade" in refused.stderr
    resolved = machine.command("conflicts", "resolve", "1", "--strategy", "local_wins")
    assert resolved.returncode == 0 and "adopted the Atom backend's database" in resolved.stderr
    assert document(machine, "conflicts", "list")["total"] == 9


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("ALTER TABLE skill_cache DROP COLUMN hit_count", "skill_cache .*hit_count is missing"),
        ("ALTER TABLE sync_state RENAME COLUMN last_sync TO lastsync", "sync_state .*last_sync is missing"),
        ("ALTER TABLE conflict_log ADD COLUMN note TEXT NOT NULL DEFAULT ''", None),
        ("ALTER TABLE skill_ratings ADD COLUMN mood VARCHAR", None),
        ("ALTER TABLE skill_ratings ADD COLUMN version VARCHAR", "version has the name of one of ours"),
        (
            "ALTER TABLE sync_state DROP COLUMN user_id; ALTER TABLE sync_state ADD user_id TEXT NOT NULL DEFAULT ''",
            "sync_state .*user_id is NOT NULL",
        ),
        (
            "ALTER TABLE sync_state DROP COLUMN last_error; ALTER TABLE sync_state ADD COLUMN last_error JSON",
            "sync_state .*last_error is JSON, not text",
        ),
        ("CREATE TABLE fact (name)", "table fact that another program made"),
    ],
)
def test_another_shape_is_refused_by_name(machine: Machine, statement: str, words: str | None) -> None:
    backend(machine.database_path)
    for each in statement.split("; "):
        machine.sql(each)
    before = made(machine)
    if words is None:
        Database.open(machine.database_path).close()
        column = statement.split()[5]
        assert column in {row[0] for row in machine.sql("SELECT name FROM pragma_table_info(?)", statement.split()[2])}
        return
    with pytest.raises(DatabaseError, match=words):
        Database.open(machine.database_path)
    assert made(machine) == before


def test_the_models_are_as_the_facts_say(tmp_path: Path) -> None:
    """The description of the columns matches the models exactly."""
    from backend_models import Base

    for table in TABLES:
        columns = Base.metadata.tables[table.name].columns
        assert {column.name: not column.nullable for column in columns} == {
            column.name: column.required for column in table.columns
        }, table.name


def test_atom_sync_first(machine: Machine) -> None:
    machine.pull()
    engine = backend(machine.database_path)
    name = machine.sandbox.skill_ids()[0]
    with Session(engine) as session:
        rating = SkillRating(skill_id=name, user_id="user", rating=4)
        session.add_all(
            [rating, SkillCache(skill_id="own", skill_data={"skill_id": "own", "name": "o"}, expires_at=LONG_AGO)]
        )
        session.flush()
        session.add(FailedRatingUpload(rating_id=rating.id, error_message="no", failed_at=LONG_AGO))
        session.add(ConflictLog(skill_id="own", conflict_type="OTHER", severity="LOW", local_data={}, remote_data={}))
        session.commit()
        session.execute(select(SkillRating)).scalar_one().review = "better"
        session.commit()
    assert machine.send_ratings().counts.uploaded == 1
    found = rows(engine)
    assert [each["remote_rating_id"] for each in found["skill_ratings"]] == [
        each["rating_id"] for each in machine.sandbox.ratings()
    ]
    assert found["sync_state"][0]["total_syncs"] == 1
    assert document(machine, "db", "current")["origin"] == "atom-sync"
    with Session(engine) as session:
        for model in (FailedRatingUpload, ConflictLog, SkillRating):
            for row in session.execute(select(model)).scalars():
                session.delete(row)
        session.commit()


def test_the_backends_ratings_beside_ours_are_adopted_too(machine: Machine) -> None:
    """A database of an earlier version in which the backend has created the missing tables."""
    with Database.open(machine.database_path) as database:
        migrations.downgrade(database, "0014_websocket_switch")
    machine.sql("INSERT INTO skill_rating (skill_id, user_id, rating, updated_at) VALUES ('a', 'u', 4, '2026-01-01')")
    with Session(backend(machine.database_path)) as session:
        for skill_id in ("a", "b"):
            session.add(SkillRating(skill_id=skill_id, user_id="u", rating=1, updated_at=LONG_AGO))
        session.commit()
    Database.open(machine.database_path).close()
    assert machine.sql("SELECT skill_id, rating, synced_to_saas FROM skill_ratings ORDER BY 1") == [
        ("a", 1, 0),
        ("b", 1, 0),
    ]
