"""`db backup`: consistent copies while others write."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from store_support import child_at_work, plain, run_child, sql

from atom_saas_sync.errors import DatabaseError, UsageError
from atom_saas_sync.store.sqlite import maintenance, revisions
from atom_saas_sync.store.sqlite.backup import backup
from atom_saas_sync.store.sqlite.database import Database


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "atom.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    with Database.open(path) as database:
        yield database


def test_a_backup_is_whole_private_and_one_file(path: Path, database: Database, tmp_path: Path) -> None:
    database.connection.execute("UPDATE sync_state SET total_syncs = 3")
    target = tmp_path / "backups" / "copy.db"
    target.parent.mkdir()
    before = os.umask(0)
    try:
        backup(database.path, target)
    finally:
        os.umask(before)
    assert [each.name for each in target.parent.iterdir()] == ["copy.db"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert sql(target, "PRAGMA journal_mode") == [("delete",)]
    with Database.open(target) as copy:
        assert revisions.pending(copy) == []
        assert maintenance.check(copy) == []
    assert sql(target, "SELECT total_syncs FROM sync_state") == [(3,)]


WRITE_PAIRS = """
import select
connection = sqlite3.connect(path, isolation_level=None, timeout=60)
number = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    number += 1
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE sync_state SET total_syncs = ?", (number,))
    connection.execute("INSERT OR REPLACE INTO fact VALUES (?, hex(zeroblob(2000)), 'now')", (str(number % 300),))
    connection.execute("UPDATE websocket_state SET reconnect_attempts = ?", (number,))
    connection.execute("COMMIT")
    if number == 300:
        print("ready", flush=True)
"""


def test_a_backup_is_consistent_while_others_write(path: Path, database: Database, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    seen = []
    with child_at_work(WRITE_PAIRS, path):
        for _ in range(5):
            backup(database.path, target, force=True)
            ((one, other),) = sql(
                target, "SELECT s.total_syncs, w.reconnect_attempts FROM sync_state AS s, websocket_state AS w"
            )
            assert one == other
            seen.append(one)
    assert len(set(seen)) > 1


def test_a_backup_can_be_made_by_a_reader(path: Path, database: Database, tmp_path: Path) -> None:
    with Database.open(path, read_only=True) as reader:
        backup(reader.path, tmp_path / "copy.db")
    assert (tmp_path / "copy.db").exists()


@pytest.mark.parametrize("force", [False, True])
def test_unsuitable_targets_are_refused(path: Path, database: Database, tmp_path: Path, *, force: bool) -> None:
    database.connection.execute("UPDATE sync_state SET total_syncs = 1")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "twin").hardlink_to(path)
    (tmp_path / "round").mkdir()
    (tmp_path / "live.db-wal").touch()
    for name, reason in {
        "atom.db": "is the database itself",
        "atom.db-wal": "is the database itself",
        "round/../atom.db": "is the database itself",
        "twin": "is the database itself",
        "link": "is a symbolic link",
        "round": "is a directory",
        "live.db": "is a database in use",
    }.items():
        with pytest.raises(UsageError, match=reason) as caught:
            backup(database.path, tmp_path / name, force=force)
        assert caught.value.hint
    assert not (tmp_path / "elsewhere").exists()


def test_an_existing_file_is_replaced_only_by_force(database: Database, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    target.write_text("precious")
    with pytest.raises(UsageError, match="exists"):
        backup(database.path, target)
    assert target.read_text() == "precious"
    backup(database.path, target, force=True)
    assert sql(target, "PRAGMA quick_check") == [("ok",)]


def test_a_backup_that_fails_leaves_nothing(path: Path, database: Database, tmp_path: Path) -> None:
    target = tmp_path / "backups" / "copy.db"
    with pytest.raises(DatabaseError, match="No such file or directory"):
        backup(database.path, target)
    target.parent.mkdir()
    target.write_text("yesterday's")
    code = "from atom_saas_sync.store.sqlite.backup import backup; Database.open(path); limit_files(50_000); "
    code += "report(lambda: backup(path, path.parent / 'backups' / 'copy.db', force=True))"
    output = run_child(code, path)
    assert output.startswith("74 ")
    assert str(target) in output
    assert [each.name for each in target.parent.iterdir()] == ["copy.db"]
    assert target.read_text() == "yesterday's"


def test_a_backup_of_a_damaged_database_is_not_kept(path: Path, tmp_path: Path) -> None:
    Database.open(path).close()
    with plain(path) as connection:
        page = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'counter'").fetchone()[0]
    content = bytearray(path.read_bytes())
    content[(page - 1) * 4096 : page * 4096] = b"\xff" * 4096
    path.write_bytes(content)
    with Database.open(path) as database, pytest.raises(DatabaseError, match="is damaged"):
        backup(database.path, tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()


def test_the_full_text_index_is_part_of_a_backup(path: Path, database: Database, tmp_path: Path) -> None:
    sql(path, "INSERT INTO skill_cache (skill_id, skill_data) VALUES ('a', '{\"name\": \"alpha\"}')")
    backup(database.path, tmp_path / "copy.db")
    assert sql(tmp_path / "copy.db", "SELECT rowid FROM skill_fts WHERE skill_fts MATCH 'alpha'") == [(1,)]


def test_a_link_in_the_place_of_the_unfinished_copy_is_not_written_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, victim = tmp_path / "source.db", tmp_path / "victim.db"
    for path, value in ((source, "ours"), (victim, "theirs")):
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("CREATE TABLE t (value TEXT)")
            connection.execute("INSERT INTO t VALUES (?)", (value,))
    before = victim.read_bytes()
    (shared := tmp_path / "shared").mkdir()
    connect = sqlite3.connect
    for kind in ("link", "file"):

        def swapping(name: str, *arguments: Any, kind: str = kind, **options: Any) -> Any:
            (unfinished,) = shared.glob(".copy.db.*.tmp")
            if "mode=rw" in name and kind == "link":  # between making it and opening it by name
                unfinished.unlink()
                unfinished.symlink_to(victim)
            connection = connect(name, *arguments, **options)
            if "mode=rw" in name and kind == "file":
                unfinished.unlink()
                unfinished.write_bytes(before)
            return connection

        monkeypatch.setattr(sqlite3, "connect", swapping)
        with pytest.raises(DatabaseError, match=r"another file has taken the place|refused a statement|read and write"):
            backup(source, shared / "copy.db")
        assert victim.read_bytes() == before
        assert list(shared.iterdir()) == [], kind
