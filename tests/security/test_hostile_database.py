"""Another program writes anything into any column: no command fails, none obeys it, and JSON stays JSON.

Tables and columns are those of the database itself, so that new ones are covered. Values of a wrong type, which only
SQLite takes, are in tests/store/sqlite/test_odd_rows.py.
"""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from command_lines import run_all
from conftest import Machine, wait_until
from hostile_values import FORBIDDEN, TEXTS
from machine_databases import FileDatabase
from stocked_machine import LOCK, WAITING, reading_lines, stock
from watch_support import messages, stop, watching

from atom_saas_sync.times import format_time

MINUTE = timedelta(minutes=1)
CODES = {0, 1, 2, 3, 4, 65, 69, 74, 75, 77, 78}
NUMBERS = (2**63 - 1, -(2**63), -1, 0, 7)
FRACTIONS = ("9e999", "-9e999", "1e308", "-1.0")
FRACTIONS_ON_SERVER = ("'Infinity'", "'-Infinity'", "'NaN'", "-1.0")
# What a row is found by. The migrations' own table, and the tenants of the Atom backend, are not ours to fill.
KEPT = {"id", "skill_id", "tenant_id", "device_id", "number"}
LEFT_OUT = 0.5
WRITING = """
    lock write, sync skills, sync ratings, sync categories, updates approve --all, updates reject {0}, pins add {0}
    pins remove {2}, quarantine release {4}, quarantine add {5}, revocations remove 1, revocations add --id {6}
    ratings add {0} 5, ratings restore 1, ratings retry --all, conflicts resolve --all --strategy merge
    conflicts undo 1, skills edit {7} --set description=x, skills revert {0}, budget reset, jobs stop, jobs start
    cache purge, sync skills --force, db check, db compact, status, doctor, metrics
"""


def columns(machine: Machine) -> Iterator[tuple[str, str, str]]:
    """Yield table, column and type (TEXT, INTEGER or REAL) of everything that is not a key."""
    if isinstance(machine.database, FileDatabase):
        yield from machine.sql(
            "SELECT t.name, c.name, upper(c.type) FROM sqlite_master AS t, pragma_table_info(t.name) AS c "
            "WHERE t.type = 'table' AND NOT c.pk AND t.name NOT LIKE '%sqlite~_%' ESCAPE '~' "
            "AND t.name NOT LIKE 'skill_fts%' AND t.name != 'bulk_write'"
        )
        return
    kinds = {"text": "TEXT", "bigint": "INTEGER", "integer": "INTEGER", "double precision": "REAL"}
    for table, column, kind in machine.sql(
        "SELECT c.table_name, c.column_name, c.data_type FROM information_schema.columns AS c "
        "JOIN information_schema.tables AS t USING (table_schema, table_name) "
        "WHERE table_schema = 'atom_sync' AND table_type = 'BASE TABLE' AND table_name != 'migration'"
    ):
        if kind in kinds:
            yield table, column, kinds[kind]


def write_into_many(machine: Machine, turn: int) -> int:
    """Write another value into every second column or so; return how many.

    It goes into one row, or into all where rows have no numbers. Not into all columns at once: what is written into one
    keeps commands from looking at others.
    """
    chance, written = random.Random(turn), 0
    on_file = isinstance(machine.database, FileDatabase)
    row = "rowid" if on_file else "ctid"
    for table, column, kind in list(columns(machine)):
        if column in KEPT or kind not in {"TEXT", "INTEGER", "REAL"} or chance.random() < LEFT_OUT:
            continue
        where = f"WHERE {row} = (SELECT min({row}) FROM {table})"
        if on_file and "WITHOUT ROWID" in machine.sql("SELECT sql FROM sqlite_master WHERE name = ?", table)[0][0]:
            where = ""
        fractions = FRACTIONS if on_file else FRACTIONS_ON_SERVER
        place = chance.choice(fractions) if kind == "REAL" else "?"
        values = {"TEXT": TEXTS, "INTEGER": NUMBERS}.get(kind)
        given = () if values is None else (chance.choice(values),)
        with suppress(psycopg.Error, sqlite3.IntegrityError):  # what the database itself refuses, nobody can write
            written += write(machine, f"UPDATE {table} SET {column} = {place} {where}", given)
    return written


def write(machine: Machine, statement: str, values: tuple[object, ...]) -> bool:
    """Execute a statement past our triggers, and past what SQLite checks only if asked to."""
    if not isinstance(machine.database, FileDatabase):
        machine.unseen_sql(statement, *values)
        return True
    with closing(sqlite3.connect(machine.database_path)) as connection, connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("INSERT INTO bulk_write VALUES (1)")
        connection.execute(statement, values)
        connection.execute("DELETE FROM bulk_write")
    return True


@pytest.mark.parametrize("turn", range(4))
def test_nothing_in_the_database_breaks_or_misleads_a_command(machine: Machine, turn: int) -> None:
    stock(machine)
    assert write_into_many(machine, turn) > 40
    ids = machine.sandbox.skill_ids()
    lines = reading_lines(machine)
    lines += [line.split() for line in WRITING.format(*ids).replace("\n", ",").split(",") if line.strip()]
    ended = run_all(machine.directory, lines, **machine.environment(**WAITING, ATOM_SYNC_LOCK_FILE=LOCK))
    for line, (code, out, err) in zip(lines, ended, strict=True):
        assert code in CODES, (line, code, err)
        assert "Traceback" not in err, (line, err)
        assert "bug ended" not in err, (line, err)
        assert FORBIDDEN.search(err) is None, (line, err)
        if "--json" not in line:
            assert FORBIDDEN.search(out) is None, (line, FORBIDDEN.search(out))
        elif out:
            json.loads(out, parse_constant=refused)


@pytest.mark.parametrize(
    "foreign",
    [
        "{}",
        "[]",
        '{"rating": "5"}',
        '{"rating": 6, "comment": null}',
        '{"rating": true}',
        '{"rating": 3, "comment": []}',
    ],
)
def test_what_is_no_rating_is_neither_shown_as_replaced_nor_restored(machine: Machine, foreign: str) -> None:
    stock(machine)
    machine.unseen_sql("UPDATE skill_ratings SET replaced = ?", foreign)
    shown = machine.command("ratings", "show", "1", "--json")
    assert json.loads(shown.stdout)["rating"]["replaced"] is None
    words = machine.command("ratings", "show", "1")
    assert (words.returncode, "replaced" in words.stdout) == (0, False), words.stderr
    restored = machine.command("ratings", "restore", "1")
    assert (restored.returncode, "nothing was replaced" in restored.stderr) == (1, True), restored.stderr
    assert json.loads(machine.command("ratings", "show", "1", "--json").stdout)["rating"]["rating"] == 4


@pytest.mark.parametrize("number", FRACTIONS)
def test_no_number_that_another_program_wrote_stops_syncs_or_status(machine: Machine, number: str) -> None:
    stock(machine)
    on_server = FRACTIONS_ON_SERVER[FRACTIONS.index(number)]
    for table, column in (("counter", "value"), ("sync_run", "duration_seconds")):
        where = "WHERE id % 2 = 0" if table == "sync_run" else ""
        machine.sql(
            f"UPDATE {table} SET {column} = {number} {where}",
            on_server=f"UPDATE {table} SET {column} = {on_server} {where}",
        )
    for words in (("status",), ("status", "--json"), ("metrics",), ("sync", "skills"), ("runs", "list"), ("status",)):
        ended = machine.command(*words, **WAITING)
        assert ended.returncode == 0, (words, ended.stderr)


@pytest.mark.parametrize("entry", ["7", '["a", "b"]', "[-1e9, 1]", "[1, 2, 3]", "[1, 99999999999999999999]"])
def test_no_stored_count_keeps_messages_out(machine: Machine, entry: str) -> None:
    machine.command("sync", "skills")
    now = datetime.now(UTC)
    minutes = ", ".join(f'"{format_time(now + number * MINUTE)[:16]}": {entry}' for number in range(-1, 5))
    for fact in ("additions_by_message", "deletions_by_message"):
        machine.sql("INSERT INTO fact (name, value, updated_at) VALUES (?, ?, ?)", fact, f"{{{minutes}}}", now)
    with watching(machine) as process:
        machine.sandbox.put_skill({"skill_id": "pushed", "name": "n", "version": "1"})
        machine.sandbox.delete_skill("pushed")
        wait_until(lambda: messages(machine, "skill_delete") == 1)
        log = stop(process)
    assert "Traceback" not in log
    assert ("skill_update: added pushed" in log, "skill_delete: deleted pushed" in log) == (True, True), log


@pytest.mark.sqlite("a server checks what may be written there")
def test_a_quarantine_of_unknown_kind_is_shown(machine: Machine) -> None:
    stock(machine)
    assert write(machine, "UPDATE gate_quarantine SET reason = ?1, served_source = ?1", (TEXTS[0],))
    shown = machine.command("quarantine", "show", machine.sandbox.skill_ids()[4])
    assert shown.returncode == 0, shown.stderr
    assert FORBIDDEN.search(shown.stdout) is None


def refused(constant: str) -> None:
    """Refuse what is no JSON, although Python reads it."""
    raise AssertionError(f"{constant} is not JSON")
