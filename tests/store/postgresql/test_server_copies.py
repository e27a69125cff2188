"""Backups of a database on a server: written by pg_dump, and restored completely or not at all."""

from __future__ import annotations

import signal
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from conftest import Machine, wait_until
from postgres_support import binaries
from server_support import NOON, nothing

from atom_saas_sync.core.server_address import read_server_address
from atom_saas_sync.errors import ConfigError, DatabaseBusy, DatabaseError, UsageError
from atom_saas_sync.store.postgresql import dumps, schema
from atom_saas_sync.store.postgresql.copies import Copies
from atom_saas_sync.store.postgresql.database import Database

NOW = datetime(2026, 7, 4, 12, tzinfo=UTC)
ODD = 'a\tb\\n\\\\ "c"\r\n\u2028é\x01'


@pytest.fixture
def copies(db: Database, monkeypatch: pytest.MonkeyPatch) -> Copies:
    """Return the backups of a database with data in every table, made with the server's own programs."""
    monkeypatch.setenv("PATH", str(binaries()), prepend=":")
    insert = "INSERT INTO skill_cache (skill_id, skill_data) VALUES (%s, %s)"
    with db.transaction(bulk=True) as connection:
        for name, text in (("same", "same"), ("edited", "after"), ("local", ODD)):
            connection.execute(insert, (name, text))
        for name, data in (("same", None), ("edited", "before")):
            connection.execute(
                "INSERT INTO skill_base (skill_id, wire_digest, content_digest, exec_digest, confirmed_at, data) "
                "VALUES (%s, '1', '1', '1', %s, %s)",
                (name, NOON, data),
            )
        connection.execute(
            "INSERT INTO skill_rating (skill_id, user_id, rating, review) VALUES ('same', 'me', 4, %s)", (ODD,)
        )
        connection.execute(
            "INSERT INTO failed_rating_upload (rating_id, error_message, failed_at) VALUES ('1', 'no', now())"
        )
        connection.execute(
            "INSERT INTO fact VALUES ('marketplace', 'https://m', now()), ('emergency_stop', 'then', now())"
        )
        connection.execute(
            "INSERT INTO audit_log (at, actor, action, subject) VALUES (%s, 'me', 'conflict resolve', '7')", (NOON,)
        )
    return Copies(db.address)


def content(db: Database) -> dict[str, list[tuple[object, ...]]]:
    kept = {"audit_log", "run_lock", "fact"}
    return {
        table: sorted(map(tuple, db.connection.execute(f"SELECT t::text FROM {table} AS t".encode())))
        for table in schema.expected_columns()
        if table not in kept
    }


def test_a_backup_holds_everything_and_is_taken_back_whole(copies: Copies, db: Database, tmp_path: Path) -> None:
    file = tmp_path / "backup.dump"
    before, work = content(db), copies.current_work()
    copies.back_up(file, force=False)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["backup.dump"]
    revision, marketplace, found = copies.read_backup(file)
    assert (revision, marketplace) == ("0001_tables", "https://m")
    assert work is not None
    assert found == work
    assert set(work.edits) == {"edited", "local"}
    assert (len(work.ratings), len(work.decisions)) == (1, 1)

    db.connection.execute("DELETE FROM skill_cache")
    db.connection.execute("DELETE FROM skill_ratings")
    db.connection.execute("UPDATE fact SET value = 'now' WHERE name = 'emergency_stop'")
    db.connection.execute(
        "INSERT INTO gate_revocation (skill_id, source, added_at, added_by) VALUES ('other', 'command', now(), 'me')"
    )
    copies.restore(file, signer=None, actor="me", now=NOW)
    after = content(db)
    assert after.pop("gate_revocation") != before.pop("gate_revocation")
    assert after == before
    assert db.connection.execute("SELECT value FROM fact WHERE name = 'emergency_stop'").fetchone() == ("now",)
    # What is written next gets a number of its own.
    db.connection.execute("INSERT INTO skill_cache (skill_id, skill_data) VALUES ('new', '')")


def test_locks_are_held_during_the_run(copies: Copies, db: Database) -> None:
    from atom_saas_sync.store.postgresql.lock import holder

    with copies.exclusive("skills", command="db restore", now=lambda: NOON, sleep=nothing):
        assert (holder(db, "skills") or {})["command"] == "db restore"


def test_a_file_that_is_cut_off_changes_nothing(copies: Copies, db: Database, tmp_path: Path) -> None:
    file, cut = tmp_path / "whole", tmp_path / "cut"
    copies.back_up(file, force=False)
    before = content(db)
    for part in (b"", file.read_bytes()[:100], file.read_bytes()[:-20_000], b"x" * 1000):
        cut.write_bytes(part)
        with pytest.raises(DatabaseError):
            copies.restore(cut, signer=None, actor="me", now=NOW)
        assert content(db) == before


def test_invalid_targets(copies: Copies, database_url: str, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "there")
    for name, said in (("there", "exists"), ("link", "symbolic link"), (".", "is a directory")):
        with pytest.raises(UsageError, match=said):
            copies.back_up(tmp_path / name, force=False)
    with pytest.raises(DatabaseError, match="No such file or directory"):
        copies.back_up(tmp_path / "missing" / "x", force=False)
    copies.back_up(tmp_path / "there", force=True)
    address = replace(read_server_address(database_url), backups=str(tmp_path / "there" / "backups"))
    with pytest.raises(DatabaseError, match="cannot write backups to"):
        Copies(address).back_up_and_tidy(keep=None, now=NOW)
    with pytest.raises(DatabaseError, match="there is no file"):
        copies.read_backup(tmp_path / "nowhere")


def test_a_backup_waits_for_a_locked_table_only_for_a_while(
    copies: Copies, db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dumps, "BUSY_TIMEOUT_SECONDS", 0.5)
    with db.transaction() as connection:
        connection.execute("LOCK TABLE skill_cache IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(DatabaseBusy, match=r"another program has locked a table for longer than 0\.5 s"):
            copies.back_up(tmp_path / "backup.dump", force=False)
    assert list(tmp_path.iterdir()) == []


def test_a_backup_that_is_stopped_leaves_no_program_and_no_file_behind(
    machine: Machine, copies: Copies, db: Database, database_url: str
) -> None:
    def pids() -> list[int]:
        return [int(each) for each in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]

    def name(pid: int) -> str:
        with suppress(OSError):
            return Path(f"/proc/{pid}/comm").read_text().strip()
        return ""

    before = files(machine)
    variables = {"ATOM_SAAS_DATABASE_URL": database_url, "PATH": f"{binaries()}:/usr/bin:/bin"}
    with db.transaction() as connection:
        connection.execute("LOCK TABLE skill_cache IN ACCESS EXCLUSIVE MODE")
        with machine.started("db", "backup", "stopped.dump", **variables) as process:
            waits = "SELECT FROM pg_locks WHERE NOT granted AND relation = 'skill_cache'::regclass"
            wait_until(lambda: connection.execute(waits).fetchall())
            (pid,) = pids()
            assert name(pid) == "pg_dump"
            assert files(machine) != before
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 143
    assert name(pid) != "pg_dump"
    assert files(machine) == before


def files(machine: Machine) -> set[Path]:
    return set(machine.directory.iterdir())


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def make(text: str) -> None:
        path = tmp_path / "bin" / "pg_dump"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")

    return make


def test_a_program_that_is_missing_or_too_old_is_named(
    program: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    program('echo "pg_dump (PostgreSQL) 14.9 (Debian 14.9-1)"')
    with pytest.raises(ConfigError, match="of version 14, older than the server, which is PostgreSQL 15") as error:
        dumps.require_program("pg_dump", server=15)
    assert "postgresql-client-15" in str(error.value.hint)
    assert dumps.require_program("pg_dump", server=14).endswith("/bin/pg_dump")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="the program pg_dump is not installed"):
        dumps.require_program("pg_dump")


@pytest.mark.parametrize("content", ["#!/bin/sh\nexec sleep 60\n", "no program", "#!/nowhere\n"])
def test_a_program_that_does_not_answer_is_named(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pg_dump"
    path.write_text(content, encoding="utf-8")
    path.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(dumps, "_ANSWER_SECONDS", 0.2)
    with pytest.raises(ConfigError, match="pg_dump does not work: it does not tell its version") as error:
        dumps.require_program("pg_dump", server=15)
    assert "postgresql-client-15" in str(error.value.hint)


def test_no_list_of_processes_shows_a_password(program: Callable[[str], None], db: Database, tmp_path: Path) -> None:
    program(
        f'echo "$@" > {tmp_path}/words; cat "$(echo "$@" | grep -o "passfile=[^ ]*" | cut -d= -f2)" > {tmp_path}/file'
    )
    dumps.dump(str(tmp_path / "bin" / "pg_dump"), replace(db.address, password="hun:ter\\2"), tmp_path / "target")
    assert "hun" not in (tmp_path / "words").read_text()
    assert (tmp_path / "file").read_text() == "*:*:*:*:hun\\:ter\\\\2\n"
