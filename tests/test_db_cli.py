"""`atom-sync db` for scripts and operators."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import Machine
from loaded_command import run_command

from atom_saas_sync.store.sqlite import revisions
from atom_saas_sync.store.sqlite.lock import run_lock

NAMES = list(revisions.NAMES)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "atom.db"


def db(path: Path, *arguments: str, exit_code: int = 0) -> subprocess.CompletedProcess[str]:
    directory = path.parent.parent
    done = run_command(
        *("--database", str(path), "db", *arguments),
        environment={"PATH": os.environ["PATH"], "HOME": str(directory), "COLUMNS": "200"},
        directory=directory,
    )
    assert done.returncode == exit_code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def document(path: Path, *arguments: str, exit_code: int = 0) -> dict[str, Any]:
    found = json.loads(db(path, *arguments, "--json", exit_code=exit_code).stdout)
    assert isinstance(found, dict)
    return found


def sql(path: Path, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(statement).fetchall()


def test_up_down_and_what_they_say(path: Path) -> None:
    assert document(path, "upgrade") == {"success": True, "applied": NAMES, "current": NAMES[-1], "backup": None}
    assert document(path, "current") == {
        "success": True,
        "current": NAMES[-1],
        "head": True,
        "pending": [],
        "origin": "atom-sync",
    }
    assert sql(path, "PRAGMA journal_mode") == [("wal",)]

    copy = f"{path}.before-downgrade-of-{NAMES[-1]}.bak"
    down = document(path, "downgrade", NAMES[1])
    assert down == {"success": True, "taken_back": NAMES[:1:-1], "current": NAMES[1], "backup": copy}

    refused = db(path, "downgrade", "base", exit_code=2)
    assert "  sync_state (1 row)\n  websocket_state (1 row)\n" in refused.stderr
    assert "--yes" in refused.stderr
    assert document(path, "downgrade", "base", "--yes")["current"] is None

    history = document(path, "history")
    assert history["migrations"] == [{"name": name, "applied_at": None} for name in NAMES]
    assert history["total"] == len(NAMES)


def test_for_people(path: Path) -> None:
    assert db(path, "upgrade", NAMES[1]).stdout.splitlines() == [
        f"applied: {NAMES[0]}",
        f"applied: {NAMES[1]}",
        f"{path} is at {NAMES[1]}",
    ]
    assert db(path, "current").stdout == f"{NAMES[1]}\n"
    history = db(path, "history").stdout
    assert history.count("pending") == len(NAMES) - 2
    assert history.count("Z") == 2
    assert f"the previous state is kept in {path}.before-{NAMES[2]}.bak" in db(path, "upgrade", "head").stdout
    assert db(path, "upgrade").stdout == f"{path} is at {NAMES[-1]}: nothing to do\n"
    assert db(path, "downgrade").stdout.splitlines()[0] == f"reverted: {NAMES[-1]}"


def test_wrong_targets_are_wrong_usage(path: Path) -> None:
    assert "nonsense" in db(path, "upgrade", "nonsense", exit_code=2).stderr
    db(path, "upgrade")
    assert "--frob" in db(path, "downgrade", "--frob", exit_code=2).stderr


@pytest.mark.parametrize("command", ["current", "history", "check", "downgrade", "backup", "compact"])
def test_only_an_upgrade_creates_a_database(path: Path, command: str) -> None:
    arguments = [command, str(path.parent / "copy.db")] if command == "backup" else [command]
    found = document(path, *arguments, exit_code=74)
    assert found["success"] is False
    assert found["error"]["type"] == "database"
    assert "there is no database" in found["error"]["message"]
    assert "db upgrade" in found["error"]["hint"]
    assert not path.parent.exists()


@pytest.mark.parametrize("kept", ["backup", "before a downgrade"])
def test_a_copy_in_the_place_of_the_database_has_no_findings(path: Path, kept: str) -> None:
    db(path, "upgrade")
    copy = path.with_name("copy.db")
    if kept == "backup":
        db(path, "backup", str(copy))
    else:
        copy = Path(document(path, "downgrade", "--yes")["backup"])
    shutil.copyfile(copy, path)
    assert document(path, "check") == {
        "success": True,
        "database": str(path),
        "origin": "atom-sync",
        "findings": [],
        "total": 0,
    }
    db(path, "upgrade")
    assert sql(path, "PRAGMA journal_mode") == [("wal",)]


def test_a_check_with_findings_exits_with_74_and_repair_rebuilds_the_index(path: Path) -> None:
    db(path, "upgrade")
    assert document(path, "check") == {
        "success": True,
        "database": str(path),
        "origin": "atom-sync",
        "findings": [],
        "total": 0,
    }
    sql(path, "INSERT INTO bulk_write VALUES (1)")
    found = document(path, "check", exit_code=74)
    assert (found["success"], found["total"], found["findings"][0]["check"]) == (False, 1, "search_index")
    assert "--repair" in db(path, "check", exit_code=74).stdout
    assert db(path, "check", "--repair", "--quick").stdout == f"{path}: no findings\n"


def test_a_backup_is_made_and_not_overwritten(path: Path) -> None:
    db(path, "upgrade")
    target = path.parent.parent / "copy.db"
    assert document(path, "backup", "copy.db") == {
        "success": True,
        "backup": str(target),
        "size_bytes": target.stat().st_size,
        "removed": [],
        "reason": None,
    }
    assert "--force" in db(path, "backup", "copy.db", exit_code=2).stderr
    assert db(path, "backup", "copy.db", "--force").stdout.startswith(f"{target}: ")
    assert sql(target, "PRAGMA quick_check") == [("ok",)]


def test_backups_named_by_time_are_kept_and_the_oldest_go(path: Path) -> None:
    db(path, "upgrade")
    backups = path.parent / "backups"
    first = Path(document(path, "backup")["backup"])
    assert first.parent == backups
    assert (backups.stat().st_mode & 0o777, first.stat().st_mode & 0o777) == (0o700, 0o600)
    later = backups / "atom-29990101T000000Z.db"  # a clock that was ahead
    shutil.copyfile(first, later)
    others = [backups / name for name in ("mine.db", "other-20200101T000000Z.db", "atom-2020.db")]
    for each in others:
        each.touch()
    second = document(path, "backup", "--keep", "2")
    assert second["removed"] == [str(first)]
    third = db(path, "backup", "--keep", "1")
    assert third.stdout.splitlines()[1] == "removed 2 older backups; 1 kept"
    (left,) = set(backups.iterdir()) - set(others)
    assert sql(left, "PRAGMA quick_check") == [("ok",)]
    assert sql(path, "SELECT status, counts FROM sync_run WHERE kind = 'backup'")[-1] == (
        "success",
        json.dumps({"size_bytes": left.stat().st_size, "removed": 2}),
    )


def test_a_failed_backup_removes_no_backups_and_is_recorded(path: Path) -> None:
    db(path, "upgrade")
    kept = Path(document(path, "backup")["backup"])
    sql(path, "INSERT INTO fact VALUES ('damaged', randomblob(90000), '')")
    (page,) = sql(path, "SELECT rootpage FROM sqlite_master WHERE name = 'idx_conflict_log_skill_id'")[0]
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\0" * 4096)
    assert "damaged" in db(path, "backup", "--keep", "1", exit_code=74).stderr
    assert list(kept.parent.iterdir()) == [kept]
    assert sql(path, "SELECT status, error_type FROM sync_run WHERE kind = 'backup' ORDER BY id") == [
        ("success", None),
        ("failed", "database"),
    ]


@pytest.mark.parametrize(
    "arguments", [["--keep", "0"], ["--keep", "2", "copy.db"], ["--keep", "-1"], ["--keep", "two"]], ids=" ".join
)
def test_a_number_of_backups_that_makes_no_sense_is_wrong_usage(path: Path, arguments: list[str]) -> None:
    db(path, "upgrade")
    db(path, "backup", *arguments, exit_code=2)
    assert not (path.parent / "backups").exists()


@pytest.mark.parametrize("command", [["backup"], ["upgrade"]], ids=" ".join)
def test_copies_of_migrations_go_after_thirty_days(path: Path, command: list[str]) -> None:
    db(path, "upgrade", NAMES[1])
    names = [".before-0001_catalogue.bak", ".before-downgrade-of-0002_sync_state.3.bak", ".before-mine.bak", ".bak"]
    old = [path.with_name(f"{path.name}{name}") for name in names]
    for each in old:
        each.touch()
        os.utime(each, (0, 0))
    young = path.with_name(f"{path.name}.before-0001_catalogue.2.bak")
    young.touch()
    db(path, *command)
    assert [each.exists() for each in (*old, young)] == [False, False, True, True, True]


def test_compacting_gives_space_back_and_says_how_much(path: Path) -> None:
    db(path, "upgrade")
    sql(path, "INSERT INTO fact VALUES ('large', hex(randomblob(500000)), '')")
    sql(path, "DELETE FROM fact WHERE name = 'large'")
    found = document(path, "compact")
    assert found["freed_bytes"] == found["size_before_bytes"] - found["size_bytes"] > 900_000
    assert found["size_bytes"] == path.stat().st_size
    assert document(path, "check")["findings"] == []
    with run_lock(path, "skills", command="sync skills", now=lambda: "now", sleep=lambda _: None):
        assert "process" in db(path, "compact", exit_code=75).stderr
    assert db(path, "compact").stdout.endswith("nothing to free\n")


def test_a_copy_is_a_whole_database_and_the_target_must_be_empty(path: Path) -> None:
    db(path, "upgrade")
    sql(path, "INSERT INTO skill_rating (skill_id, user_id, rating) VALUES ('a', 'ada', 5)")
    copy = path.with_name("copy.db")
    with run_lock(path, "skills", command="sync skills", now=lambda: "now", sleep=lambda _: None):
        assert "process" in db(path, "copy", "--to", str(copy), exit_code=75).stderr
    assert not copy.exists()
    done = document(path, "copy", "--to", str(copy))
    assert (done["database"], done["copied_to"], done["rows"]["skill_ratings"]) == (str(path), str(copy), 1)
    assert document(copy, "check")["findings"] == []
    version = "SELECT version, synced_to_saas FROM skill_rating"
    assert sql(copy, version) == sql(path, version)
    assert "is not empty" in db(path, "copy", "--to", str(copy), exit_code=74).stderr
    assert "itself" in db(path, "copy", "--to", str(path), exit_code=2).stderr
    assert "expected" in db(path, "copy", "--to", "mysql://here", exit_code=78).stderr


def test_a_database_that_cannot_be_used_is_one_line_and_a_hint(path: Path) -> None:
    path.mkdir(parents=True)
    done = db(path, "upgrade", exit_code=74)
    assert done.stdout == ""
    line, hint = done.stderr.splitlines()
    assert line == f"atom-sync: cannot use the database {path}: Is a directory"
    assert hint.startswith("  → set ATOM_SAAS_DATABASE_URL")


def test_a_backup_reports_its_size_or_the_missing_directory(machine: Machine) -> None:
    machine.command("db", "upgrade")
    done = machine.command("db", "backup", "copy.db")
    assert re.search(r"copy\.db: [\d.]+ kB$", done.stdout.strip())
    missing = machine.command("db", "backup", "nowhere/copy.db")
    assert missing.returncode == 74
    assert f"No such file or directory: {machine.directory / 'nowhere'}" in missing.stderr
    assert "ATOM_SAAS_DATABASE_URL" not in missing.stderr
    too_long = machine.command("db", "backup", "x" * 300)
    assert (too_long.returncode, too_long.stderr.count("\n")) == (74, 2)
    assert "File name too long" in too_long.stderr
