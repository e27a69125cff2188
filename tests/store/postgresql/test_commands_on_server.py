"""The real commands with a database on a server: only ATOM_SAAS_DATABASE_URL differs."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from conftest import Machine, wait_until
from server_support import NOON, nothing, opened

from atom_saas_sync.store.postgresql.lock import run_lock

Json = dict[str, Any]


class Commands:
    """Runs commands that use the database at a URL."""

    def __init__(self, machine: Machine, url: str) -> None:
        self._machine = machine
        self._url = url

    def text(self, *arguments: str, exit_code: int = 0, **variables: str) -> str:
        result = self._machine.command(*arguments, ATOM_SAAS_DATABASE_URL=self._url, **variables)
        assert result.returncode == exit_code, result.stdout + result.stderr
        assert "Traceback" not in result.stderr
        return result.stdout or result.stderr

    def json(self, *arguments: str, exit_code: int = 0, **variables: str) -> Json:
        found: Json = json.loads(self.text(*arguments, "--json", exit_code=exit_code, **variables))
        return found

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Do what another program does, with plain SQL."""
        server, _, schema = self._url.partition("&schema=")
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"SET search_path = {schema}".encode())
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []


@pytest.fixture
def commands(machine: Machine, postgresql_url: str) -> Commands:
    return Commands(machine, postgresql_url)


def test_a_sync_and_what_readers_get(commands: Commands, machine: Machine) -> None:
    first = commands.json("sync", "skills")
    assert (first["success"], first["added"]) == (True, 60)
    again = commands.json("sync", "skills")
    assert (again["unchanged"], again["added"]) == (60, 0)
    name = machine.listed()[machine.sandbox.skill_ids()[0]]["name"]
    assert name in commands.text("skills", "search", name.split()[0])
    assert commands.json("cache", "stats")["skills"] == 60
    assert commands.json("status")["database"]["revision"]
    assert commands.json("db", "check")["success"]
    commands.text("skills", "verify")


def test_an_edit_of_another_program_and_its_conflict(commands: Commands, machine: Machine) -> None:
    commands.text("sync", "skills")
    skill_id = machine.sandbox.skill_ids()[0]
    fields = {**machine.sandbox.skill(skill_id), "name": "Mine"}
    commands.sql("UPDATE skill_cache SET skill_data = %s WHERE skill_id = %s", json.dumps(fields), skill_id)
    assert [each["skill_id"] for each in commands.json("skills", "list", "--modified")["skills"]] == [skill_id]
    machine.sandbox.patch_skill(skill_id, {"name": "Theirs", "version": "99.0.0"})
    report = commands.json("sync", "skills", "--strategy", "manual")
    assert report["conflicts"]["manual"] == 1
    (conflict,) = commands.json("conflicts", "list")["conflicts"]
    commands.text("conflicts", "resolve", str(conflict["id"]), "--strategy", "remote_wins")
    assert commands.json("skills", "show", skill_id)["skill"]["name"] == "Theirs"
    assert commands.json("conflicts", "list")["conflicts"] == []


def test_ratings_are_sent_once(commands: Commands, machine: Machine) -> None:
    commands.text("sync", "skills")
    skill_id = machine.sandbox.skill_ids()[0]
    commands.text("ratings", "add", skill_id, "5", "--comment", "good")
    assert commands.json("sync", "ratings")["uploaded"] == 1
    assert commands.json("sync", "ratings")["uploaded"] == 0
    assert [each["state"] for each in commands.json("ratings", "list")["ratings"]] == ["sent"]


def test_two_runs_of_a_kind_do_not_meet(commands: Commands, machine: Machine, postgresql_url: str) -> None:
    commands.text("sync", "skills")
    with machine.started("watch", ATOM_SAAS_DATABASE_URL=postgresql_url) as first:
        wait_until(lambda: commands.json("status", exit_code=0)["websocket"]["connected"])
        assert "another watch" in commands.text("watch", exit_code=75)
        skill_id = machine.sandbox.skill_ids()[0]
        machine.sandbox.patch_skill(skill_id, {"name": "By message", "version": "99.0.0"})
        wait_until(lambda: commands.json("skills", "show", skill_id)["skill"]["name"] == "By message")
        first.terminate()
        assert first.wait(timeout=60) == 0


READING = (
    ("status",),
    ("skills", "list"),
    ("skills", "show", "ID"),
    ("skills", "search", "a"),
    ("skills", "log", "ID"),
    ("skills", "diff", "ID"),
    ("skills", "verify"),
    ("updates", "list"),
    ("pins", "list"),
    ("revocations", "list"),
    ("quarantine", "list"),
    ("policy", "explain", "ID"),
    ("lock", "write"),
    ("conflicts", "list"),
    ("ratings", "list"),
    ("ratings", "failed"),
    ("runs", "list"),
    ("runs", "show", "1"),
    ("jobs",),
    ("cache", "stats"),
    ("metrics",),
    ("budget", "show"),
    ("db", "current"),
    ("db", "history"),
    ("db", "check"),
    ("config", "show"),
)


def test_where_nothing_can_be_written_all_that_reads_works(machine: Machine, database_url: str) -> None:
    """As on a standby: sessions of this role only read."""
    Commands(machine, database_url).text("sync", "skills")
    skill_id = machine.sandbox.skill_ids()[0]
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("CREATE ROLE onlooker LOGIN SUPERUSER")
        owner.execute("ALTER ROLE onlooker SET default_transaction_read_only = on")
        try:
            (first,) = owner.execute("SELECT min(id) FROM atom_sync.sync_run").fetchall()[0]
            commands = Commands(machine, database_url.replace("atom@", "onlooker@"))
            for words in READING:
                commands.text(*(str({"ID": skill_id, "1": first}.get(word, word)) for word in words))
            for written in ("sync skills", f"skills edit {skill_id} --set description=x", "jobs stop"):
                assert "lets sessions only read" in commands.text(*written.split(), exit_code=74)
            findings = {each["check"]: each for each in commands.json("doctor", exit_code=1)["findings"]}
            assert findings["standby"]["verdict"] == "problem"
            assert "database" not in {name for name, each in findings.items() if each["verdict"] == "problem"}
        finally:
            owner.execute("DROP ROLE onlooker")


@pytest.mark.parametrize(
    ("table", "column", "words"),
    [
        ("sync_run", "counts", "status"),
        ("sync_run", "counts", "runs list"),
        ("websocket_state", "connected", "status"),
        ("gate_pin", "note", "pins list"),
    ],
)
def test_a_column_that_somebody_has_dropped_is_named(
    machine: Machine, own_url: str, table: str, column: str, words: str
) -> None:
    commands = Commands(machine, own_url)
    commands.text("sync", "skills")
    commands.text("pins", "add", machine.sandbox.skill_ids()[0])
    with psycopg.connect(own_url, autocommit=True) as owner:
        owner.execute(f"ALTER TABLE atom_sync.{table} DROP COLUMN {column} CASCADE".encode())
    assert column in commands.text(*words.split(), exit_code=74)


def test_a_downgrade_drops_nothing_under_another_host(machine: Machine, own_url: str) -> None:
    commands = Commands(machine, own_url)
    commands.text("sync", "skills")
    with (
        opened(own_url, host="one") as other,
        run_lock(other, "watch", command="watch", now=lambda: NOON, sleep=nothing),
    ):
        assert "on one" in commands.text("db", "downgrade", "base", "--yes", exit_code=75)
    assert commands.json("skills", "list")["total"] == 60
    assert commands.json("db", "downgrade", "base", "--yes")["current"] is None
    assert commands.json("db", "downgrade", "base", "--yes")["current"] is None  # nothing is left, not even the lock
