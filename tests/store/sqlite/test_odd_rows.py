"""A row with a wrong type or encoding, which another program may write, affects only that skill."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from command_lines import READING, REPORTING, minimal, run_all
from conftest import Machine
from web_support import ADMIN_TOKEN, served

from atom_saas_sync.model import Health
from atom_saas_sync.store.sqlite.status import read_status
from atom_saas_sync.web.page import status_page

ODD = {
    "bytes": "UPDATE skill_cache SET skill_data = CAST(skill_data AS BLOB) WHERE skill_id = 's1'",
    "edited bytes": "UPDATE skill_cache SET skill_data = CAST(replace(skill_data, 'one', 'uno') AS BLOB) "
    "WHERE skill_id = 's1'",
    "not UTF-8": "UPDATE skill_cache SET skill_data = CAST(x'7b22ff227d' AS TEXT) WHERE skill_id = 's1'",
    "half a character": """UPDATE skill_cache SET skill_data = '{"name": "\\ud800"}' WHERE skill_id = 's1'""",
    "UTF-16": "UPDATE skill_cache SET skill_data = CAST(x'fffe7b007d00' AS TEXT) WHERE skill_id = 's1'",
}


@pytest.fixture
def three(machine: Machine) -> Machine:
    for name in ("s1", "s7", "s9"):
        machine.sandbox.put_skill({"skill_id": name, "name": f"one {name}", "version": "1.0.0"}, push=False)
    machine.pull()
    return machine


@pytest.mark.parametrize("statement", ODD.values(), ids=ODD)
def test_an_odd_row_freezes_no_other_skill(three: Machine, statement: str) -> None:
    three.sql(statement)
    found = three.command("db", "check", "--json")
    if "ud800" not in statement:
        assert found.returncode == 74
        assert "s1" in json.loads(found.stdout)["findings"][0]["message"]
    for words in (("skills", "list", "--limit", "1000"), ("skills", "show", "s1"), ("status",)):
        shown = three.command(*words)
        assert shown.returncode == 0, (words, shown.stderr)

    three.sandbox.patch_skill("s7", {"version": "2.0.0"}, push=False)
    three.sandbox.patch_skill("s1", {"version": "2.0.0"}, push=False)
    three.sandbox.delete_skill("s9", push=False)
    report = three.pull()
    assert (report.status, report.counts.deleted) == ("success", 1)
    versions = three.sql("SELECT skill_id, version, source FROM usable_skill WHERE skill_id LIKE 's_' ORDER BY 1")
    assert versions == [("s1", "2.0.0", "marketplace"), ("s7", "2.0.0", "marketplace")]
    assert three.command("db", "check").returncode == 0
    assert three.sql("SELECT DISTINCT typeof(skill_data) FROM skill_cache") == [("text",)]


@pytest.mark.parametrize("statement", ODD.values(), ids=ODD)
def test_an_odd_row_can_be_reverted(three: Machine, statement: str) -> None:
    three.sql(statement)
    assert three.command("skills", "revert", "s1").returncode == 0
    assert three.sql("SELECT version, source FROM usable_skill WHERE skill_id = 's1'") == [("1.0.0", "marketplace")]
    assert three.command("db", "check").returncode == 0


def test_odd_rows_elsewhere_do_not_affect_status_and_metrics(three: Machine) -> None:
    for statement in (
        "INSERT OR REPLACE INTO fact VALUES ('rate_limit', '{}', ''), ('clock_skew_seconds', 'nan', '')",
        "INSERT INTO counter VALUES ('atom_saas_sync_items_total', 'no JSON', 1), ('x', x'ff', 1)",
        "UPDATE sync_run SET reasons = '{', counts = x'ff'",
        "INSERT INTO sync_run (kind, started_at, status, started_by, pid) VALUES (x'3c62', x'ff', '', '', 1)",
        "UPDATE sync_run SET reasons = 7 WHERE pid = 1",
        f"UPDATE sync_run SET reasons = '[{'9' * 5000}]' WHERE pid != 1",  # which SQLite takes for JSON
        "UPDATE sync_run SET duration_seconds = 'long'",
        "INSERT INTO skill_rating (skill_id, user_id, rating, review) VALUES ('s1', x'ff41', 3, x'ff')",
    ):
        three.sql(statement)
    for words in (("status",), ("status", "--json"), ("metrics",), ("ratings", "list"), ("ratings", "list", "--json")):
        result = three.command(*words)
        assert (result.returncode, result.stderr.removesuffix("1 rating\n")) == (0, ""), words
    now = three.clock.now()
    status = read_status(
        three.database_path, now=now, per_minute=1, per_hour=1, admission="open", admission_scope="all"
    )
    assert "&lt;b" in status_page(status, Health(()), now)


WRONG: dict[str, object] = {"TEXT": b"\xff\x00", "INTEGER": "no number", "REAL": "no number", "BLOB": 5}


def spoil_every_column(path: Path) -> set[str]:
    """Add a row with a value of a wrong type in every column to each of our tables; return the names of the columns."""
    spoiled = set()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("INSERT INTO bulk_write VALUES (1)")
        tables = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite~_%' ESCAPE '~' "
            "AND name NOT LIKE '~_sqlite%' ESCAPE '~' AND name NOT LIKE 'skill_fts%' ORDER BY name = 'bulk_write'"
        )
        for (table,) in tables.fetchall():
            columns = connection.execute("SELECT name, upper(type), pk FROM pragma_table_info(?)", (table,)).fetchall()
            # An integer that is the whole key is the number of the row, and SQLite refuses anything else for it.
            keys = [name for name, kind, place in columns if place and kind == "INTEGER"]
            values = {name: WRONG[kind] for name, kind, _ in columns if name not in keys}
            places = ", ".join("?" * len(values))
            connection.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({places})", tuple(values.values()))
            spoiled |= {f"{table}.{name}" for name in values}
        connection.execute("DELETE FROM bulk_write")
    return spoiled - {"bulk_write.process", "conflict_log.resolved"}  # removed again; corrected by a trigger


def reading_lines() -> list[list[str]]:
    """Return a line for every command that reads the database, without and with --json."""
    paths = [path for path in READING if path[0] not in {"schedule", "completion", "config", "files", "lock"}]
    known = {"skill_id": "s1", "text": "one", "conflict_id": "1", "rating_id": "1", "run_id": "1"}
    lines = [minimal(path, **known) for path in paths]
    return [*lines, *([*line, "--json"] for line, path in zip(lines, paths, strict=True) if path in REPORTING)]


WRITING = [
    line.split()
    for line in """
        lock write, sync skills, sync ratings, sync categories, sync skills --force, updates approve --all
        updates reject s1, pins add s1, pins remove s1, quarantine add s9, quarantine release s9
        revocations add --id s9, revocations remove 1, ratings add s1 5, ratings retry --all
        conflicts resolve --all --strategy merge, conflicts undo 1, budget reset, jobs stop, jobs start
    """.replace("\n", ",").split(",")
    if line.strip()
]


def run_in_turn(machine: Machine, lines: list[list[str]]) -> list[tuple[list[str], tuple[int, str, str]]]:
    """Run the lines in one process; return each with its exit code and output."""
    return list(zip(lines, run_all(machine.directory, lines, **machine.environment()), strict=True))


def test_every_value_of_a_wrong_type_is_named_and_no_command_fails_otherwise(three: Machine) -> None:
    """The columns are taken from the database itself, so that a new one is covered."""
    kept = "SELECT skill_data FROM skill_cache WHERE skill_id IN ('s1', 's7')"
    before = three.sql(kept)
    spoiled = spoil_every_column(three.database_path)
    assert len(spoiled) > 150
    found = json.loads(three.command("db", "check", "--json").stdout)["findings"]
    named = {each["message"].partition(" ")[0] for each in found if each["check"] in {"types", "text"}}
    assert spoiled - named == set()

    for line, (code, _, err) in run_in_turn(three, [*reading_lines(), *WRITING]):
        assert code in {0, 1, 4, 74}, (line, err)
        assert "Traceback" not in err and "bug ended" not in err, (line, err)
        if code == 74 and line[:2] != ["db", "check"]:
            assert "has values that only another program can have written" in err, (line, err)
            assert len(err.splitlines()) < 5, (line, err)
    assert three.sql(kept) == before


def test_a_value_of_a_wrong_type_is_one_clear_error(three: Machine) -> None:
    three.sql("UPDATE skill_cache SET skill_id = x'ff' WHERE skill_id = 's9'")
    ended = three.command("skills", "list", "--limit", "1000", "--json")
    error = json.loads(ended.stdout)["error"]
    assert (ended.returncode, error["type"], len(ended.stderr.splitlines())) == (74, "database", 2), ended.stderr
    assert "skill_cache.skill_id of row " in error["message"]
    assert error["message"].endswith(" is stored as blob, not as text")
    assert "db check" in error["hint"]
    assert "TypeError" in three.command("--log-level", "debug", "skills", "list", "--json").stderr


def test_json_stays_json_for_numbers_that_it_does_not_have(three: Machine) -> None:
    three.sql("UPDATE skill_cache SET hit_count = 9e999")
    three.sql("UPDATE sync_run SET duration_seconds = -9e999")

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    for words in (("cache", "stats"), ("runs", "list"), ("status",)):
        ended = three.command(*words, "--json")
        assert ended.returncode == 0, ended.stderr
        json.loads(ended.stdout, parse_constant=refuse)


def test_a_missing_value_is_one_clear_error(three: Machine) -> None:
    with closing(sqlite3.connect(three.database_path, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET sql = replace(sql, ' NOT NULL', '') WHERE name = 'skill_cache'")
        connection.execute("PRAGMA writable_schema = RESET")
    three.unseen_sql("UPDATE skill_cache SET skill_data = NULL WHERE skill_id = 's9'")
    ended = three.command("skills", "list")
    assert ended.returncode == 74, ended.stderr
    assert re.search(r"skill_cache.skill_data of row \d+ is missing", ended.stderr)


def test_requests_that_meet_a_value_of_a_wrong_type_are_503(three: Machine) -> None:
    three.sql("INSERT INTO conflict_log (skill_id, conflict_type, severity) VALUES ('s1', x'ff', 'LOW')")
    with served(three, ATOM_SYNC_ADMIN_TOKEN=ADMIN_TOKEN) as server:
        answer = server.admin("GET", "conflicts")
        assert answer.status_code == 503, answer.text
        assert "conflict_log.conflict_type of row 1 is stored as blob" in answer.json()["error"]["message"]
        assert server.get("/health/live").status_code == 200
    assert "Traceback" not in server.log
