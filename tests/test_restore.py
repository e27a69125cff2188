"""`db restore`: a backup replaces the database, and nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import Machine, on_a_terminal
from database_rules import check_rules

from atom_saas_sync.cli.session import all_runs_locked
from atom_saas_sync.core.signing import Signer
from atom_saas_sync.errors import DatabaseError, Locked
from atom_saas_sync.store import engine_at
from atom_saas_sync.store.sqlite import maintenance, migrations, revisions
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.store.sqlite.kept_copies import back_up
from atom_saas_sync.store.sqlite.lock import run_lock
from atom_saas_sync.store.sqlite.restore import prepare, put_in_place, read_backup, staged

pytestmark = pytest.mark.sqlite("files of backups; tests/store/postgresql/test_server_copies.py has those of a server")

NAMES = list(revisions.NAMES)


def backup_of(machine: Machine) -> Path:
    return back_up(machine.database_path, now=machine.clock.now())


def document(machine: Machine, *arguments: str, exit_code: int = 0) -> Any:
    done = machine.command("db", *arguments, "--json")
    assert done.returncode == exit_code, done.stderr
    return json.loads(done.stdout)


def restored(machine: Machine, file: Path, *arguments: str) -> Any:
    """Restore a backup; `db check` must find nothing afterwards."""
    found = document(machine, "restore", str(file), *arguments)
    with Database.open(machine.database_path, migrate=False, read_only=True) as database:
        assert maintenance.check(database) == []
    return found


def test_a_backup_takes_the_place_of_the_database_and_that_is_kept(machine: Machine) -> None:
    machine.pull()
    before = machine.cached()
    backup = backup_of(machine)
    skill_id = min(before)
    machine.edit(skill_id, description="mine")
    machine.sql("INSERT INTO skill_rating (skill_id, user_id, rating) VALUES ('a', 'me', 4)")
    with closing(sqlite3.connect(machine.database_path)) as another_program:
        refused = machine.command("db", "restore", str(backup))
        assert refused.returncode == 2
        assert f"edit: {skill_id}" in refused.stderr
        assert "rating: 4 of 5 for a by me" in refused.stderr
        assert machine.cached()[skill_id]["description"] == "mine"

        found = restored(machine, backup, "--yes")
        assert another_program.execute("SELECT count(*) FROM skill_rating").fetchone() == (0,)
    assert machine.cached() == before
    with closing(sqlite3.connect(found["kept"])) as kept:
        assert kept.execute("SELECT count(*) FROM skill_rating").fetchone() == (1,)
    assert machine.sql("SELECT action FROM audit_log WHERE subject = ?", str(backup)) == [("db restore",)]
    assert backup.exists()


def test_a_restore_without_a_loss_does_not_ask(machine: Machine) -> None:
    machine.pull()
    machine.edit(min(machine.cached()), description="mine")
    backup = backup_of(machine)
    assert restored(machine, backup)["kept"] is not None
    machine.database_path.unlink()
    machine.database_path.with_name("atom.db-wal").write_bytes(b"what is left of a lost database")
    lost = restored(machine, backup)
    assert Path(f"{lost['kept']}-wal").exists()
    assert len(machine.cached()) == 60
    assert machine.database_path.stat().st_mode & 0o777 == 0o600


def test_on_a_terminal_it_lists_and_asks(machine: Machine) -> None:
    machine.pull()
    backup = backup_of(machine)
    skill_id = min(machine.cached())
    machine.edit(skill_id, description="mine")
    arguments = ["db", "restore", str(backup)]
    said = on_a_terminal(machine, arguments, [("Restore it?", "n")], exit_code=1)
    assert f"edit: {skill_id}" in said
    assert machine.cached()[skill_id]["description"] == "mine"
    on_a_terminal(machine, arguments, [("Restore it?", "y")])
    assert machine.cached()[skill_id]["description"] != "mine"


@pytest.mark.parametrize("harm", ["no database", "a damaged page"])
def test_a_damaged_database_is_moved_away(machine: Machine, harm: str) -> None:
    machine.pull()
    backup = backup_of(machine)
    machine.sql("PRAGMA wal_checkpoint(TRUNCATE)")
    page = machine.sql("SELECT rootpage FROM sqlite_master WHERE name = 'idx_conflict_log_skill_id'")[0][0]
    with machine.database_path.open("r+b") as file:
        file.seek(0 if harm == "no database" else (page - 1) * 4096)
        file.write(b"?" * 4096)
    assert "not known" in machine.command("db", "restore", str(backup)).stderr
    found = restored(machine, backup, "--yes")
    assert b"?" * 4096 in Path(found["kept"]).read_bytes()
    assert len(machine.cached()) == 60


def test_an_older_backup_is_upgraded_and_a_newer_one_refused(machine: Machine) -> None:
    machine.pull()
    old = machine.directory / "old.db"
    with Database.open(old, migrate=False) as made:
        migrations.upgrade(made, NAMES[3])
    before = old.read_bytes()
    found = restored(machine, old, "--yes")
    assert (found["former_revision"], found["revision"], found["applied"]) == (NAMES[3], NAMES[-1], NAMES[4:])
    assert old.read_bytes() == before
    with Database.open(machine.directory / f"atom.db.before-{NAMES[4]}.bak", migrate=False, read_only=True) as copy:
        assert revisions.current(copy) == NAMES[3]

    machine.sql("INSERT INTO _sqlite_migrations VALUES (99, 'atom_saas_sync', '9999_later', '2026-01-01')")
    newer = backup_of(machine)
    error = document(machine, "restore", str(newer), "--yes", exit_code=74)["error"]
    assert error["message"].startswith(f"the backup {newer} was made by a newer atom-sync")
    assert "9999_later" in error["message"]
    assert "before-" not in error["hint"]


def test_a_file_that_is_not_a_backup_of_this_database_is_refused(machine: Machine) -> None:
    machine.pull()
    backup = backup_of(machine)
    foreign, text, damaged = (machine.directory / name for name in ("foreign.db", "text.db", "damaged.db"))
    with closing(sqlite3.connect(foreign)) as connection:
        connection.execute("CREATE TABLE users (id)")
    text.write_text("this is not a database", encoding="utf-8")
    damaged.write_bytes(backup.read_bytes()[:-4096])
    unlike = machine.directory / "unlike.db"
    shutil.copyfile(backup, unlike)
    with closing(sqlite3.connect(unlike)) as connection:
        connection.execute("DROP TABLE audit_log")
    elsewhere = machine.directory / "elsewhere.db"
    shutil.copyfile(backup, elsewhere)
    with closing(sqlite3.connect(elsewhere)) as connection, connection:
        connection.execute("INSERT INTO fact VALUES ('marketplace', 'https://elsewhere.example', '')")
    os.mkfifo(pipe := machine.directory / "pipe")
    before = machine.database_path.stat()
    for file, message in (
        (foreign, "is not a database of atom-sync"),
        (text, "is damaged, or is not an SQLite database"),
        (damaged, "is damaged"),
        (machine.directory / "nothing.db", "there is no file"),
        (pipe, "is not a regular file"),
    ):
        with pytest.raises(DatabaseError, match=message):
            read_backup(file)
    for file, exit_code, message in (
        (text, 74, "is damaged, or is not an SQLite database"),
        (elsewhere, 74, "belongs to https://elsewhere.example, but ATOM_SAAS_API_URL is"),
        (unlike, 74, "the table audit_log is missing"),
        (machine.database_path, 2, "is the database itself"),
    ):
        found = document(machine, "restore", str(file), "--yes", exit_code=exit_code)
        assert message in found["error"]["message"]
    after = machine.database_path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert not list(machine.directory.glob("*.restoring*"))


def test_a_restore_is_refused_during_a_run(machine: Machine) -> None:
    machine.pull()
    backup = backup_of(machine)
    for kind in ("skills", "ratings", "watch"):
        with (
            run_lock(machine.database_path, kind, command=kind, now=lambda: "now", sleep=lambda _: None),
            pytest.raises(Locked),
            all_runs_locked(engine_at(machine.database_path).copies(), command="db restore", clock=machine.clock),  # type: ignore[arg-type]
        ):
            pytest.fail("it did not wait")
    with run_lock(machine.database_path, "watch", command="watch", now=lambda: "now", sleep=lambda _: None):
        assert document(machine, "restore", str(backup), "--yes", exit_code=75)["error"]["type"] == "locked"


# No file grows from the n-th copy of pages on: to SQLite, a disk that has filled up.
FULL_FROM_COPY = """
import resource, sqlite3
connect, copies = sqlite3.connect, []
class Connection(sqlite3.Connection):
    def backup(self, *arguments, **named):
        copies.append(self)
        if len(copies) == {number}:
            resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
        super().backup(*arguments, **named)
sqlite3.connect = lambda *arguments, **named: connect(*arguments, **named, factory=Connection)
"""


@pytest.mark.parametrize("number", [1, 2, 3], ids=["staging", "keeping", "overwriting"])
def test_a_full_disk_changes_nothing_and_keeps_no_copy(machine: Machine, number: int) -> None:
    machine.fill()
    backup = backup_of(machine)
    machine.sql("UPDATE sync_state SET user_id = 'of today'")
    full = FULL_FROM_COPY.format(number=number)
    ended = machine.command("db", "restore", str(backup), first=full, PYTHONDONTWRITEBYTECODE="1")
    assert ended.returncode == 74, ended.stderr
    assert "I/O error" in ended.stderr and "  → " in ended.stderr and "Traceback" not in ended.stderr
    assert machine.sql("SELECT user_id FROM sync_state") == [("of today",)]
    assert check_rules(machine.database) == []
    assert [each.name for each in machine.directory.iterdir() if "restor" in each.name] == []
    assert document(machine, "restore", str(backup))["kept"]


def restored_here(machine: Machine, file: Path, signer: Signer | None = None) -> list[str]:
    """Restore in this process, and return what is said of it."""
    with staged(file, machine.database_path) as copy:
        _, findings = prepare(
            copy, machine.database_path, signer=signer, actor="me", source="it", now=machine.clock.now()
        )
        put_in_place(copy, machine.database_path)
    return [each.message for each in findings]


def test_a_restore_keeps_the_emergency_stop(machine: Machine) -> None:
    machine.pull()
    backup = backup_of(machine)
    machine.sql("INSERT INTO fact VALUES ('emergency_stop', '2026-02-19T12:00:00Z', '')")
    stopped = backup_of(machine)
    restored_here(machine, backup)
    assert machine.status().emergency_stop
    machine.sql("DELETE FROM fact WHERE name = 'emergency_stop'")
    restored_here(machine, stopped)
    assert not machine.status().emergency_stop


def test_a_digest_key_that_does_not_fit_is_said(machine: Machine) -> None:
    one, two = Signer(b"1" * 32), Signer(b"2" * 32)
    machine.pull(signer=one)
    backup = backup_of(machine)
    assert restored_here(machine, backup, one) == []
    assert restored_here(machine, backup, two) == ["60 skills are not signed with the key"]
    assert restored_here(machine, backup) == ["60 skills are signed with a digest key, but none is set"]
    said = machine.command("db", "restore", str(backup))
    assert "signed with a digest key, but none is set" in said.stderr


def test_a_restore_keeps_revocations_and_decisions_made_since_the_backup(machine: Machine) -> None:
    machine.pull()
    revoked, quarantined, approved = sorted(machine.cached())[:3]
    backup = backup_of(machine)
    assert machine.command("revocations", "add", "--id", revoked, "--note", "stole tokens").returncode == 0
    assert machine.command("quarantine", "add", quarantined, "--note", "odd").returncode == 0
    machine.sql(
        "INSERT INTO gate_decision (skill_id, content_digest, kind, at, by) SELECT skill_id, content_digest, 'reject', "
        "'2026-02-19T12:00:00.000000Z', 'ada' FROM skill_base WHERE skill_id = ?",
        approved,
    )
    kept = machine.sql("SELECT skill_id, reason, by, note FROM gate_quarantine ORDER BY 1")
    restored(machine, backup, "--yes")
    assert set(machine.cached()).isdisjoint({revoked, quarantined})
    assert len(machine.cached()) == 58
    assert [row[:2] for row in kept] == machine.sql("SELECT skill_id, reason FROM gate_quarantine ORDER BY 1")
    assert machine.sql("SELECT note FROM gate_quarantine WHERE skill_id = ?", quarantined) == [("odd",)]
    assert machine.sql("SELECT skill_id, note FROM gate_revocation") == [(revoked, "stole tokens")]
    assert machine.sql("SELECT skill_id, by FROM gate_decision") == [(approved, "ada")]
    assert machine.command("revocations", "remove", "1").returncode == 0
    assert machine.command("quarantine", "release", revoked, quarantined).returncode == 0
    assert len(machine.cached()) == 60
