"""Problems of the machine: a full disk, missing permissions, another program's lock. With whole commands."""

from __future__ import annotations

import resource
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from conftest import Machine, wait_until, without_capabilities
from database_rules import check_rules
from watch_support import stop, watching

pytestmark = pytest.mark.sqlite("the disk, the rights and the locks of its file")

# Python keeps what it could write of a compiled module on a full disk, and fails over it for ever.
NO_CACHE = {"PYTHONDONTWRITEBYTECODE": "1"}
LIMITS = {"ATOM_SAAS_RATE_LIMIT_PER_MINUTE": "100000", "ATOM_SAAS_RATE_LIMIT_PER_HOUR": "100000"}

WRITERS = [
    ("sync", "skills"),
    ("sync", "ratings"),
    ("cache", "purge", "--all"),
    ("conflicts", "resolve", "--all", "--strategy", "merge"),
    ("skills", "edit", "ours", "--set", "name=Other"),
]
READERS = [("status", "--json"), ("skills", "list", "--json"), ("metrics",)]


# Run before the command, in its process: without threads, unlike this one.
FULL_DISK = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))"
"""Files cannot grow, which looks like a full disk to SQLite. Python ignores the signal."""

NO_RIGHTS = without_capabilities(1, 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH: the rights of files count for root, too


def in_need(machine: Machine, arguments: tuple[str, ...], need: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process without some capabilities."""
    return machine.command(*arguments, first=need, **LIMITS, **NO_CACHE)


@pytest.fixture
def synced(machine: Machine) -> Machine:
    machine.clock.moment = datetime.now(UTC)
    machine.follow_clock()
    assert machine.pull().status == "success"
    skill_id = machine.sandbox.skill_ids()[0]
    with closing(sqlite3.connect(machine.database_path)) as connection, connection:
        connection.execute(
            'INSERT INTO skill_cache (skill_id, skill_data) VALUES (\'ours\', \'{"skill_id": "ours", "name": "O"}\')'
        )
        connection.executemany(
            "INSERT INTO skill_rating (skill_id, user_id, rating) VALUES (?, ?, 4)",
            [(skill_id, f"user{each}") for each in range(10)],
        )
    machine.sql("PRAGMA wal_checkpoint(TRUNCATE)")
    return machine


def assert_74(ended: subprocess.CompletedProcess[str], words: str) -> None:
    assert ended.returncode == 74, ended.stderr
    assert words in ended.stderr, ended.stderr
    assert "  → " in ended.stderr and "Traceback" not in ended.stderr, ended.stderr


@pytest.mark.parametrize(
    "arguments", [("db", "backup", "copy.db"), ("sync", "ratings"), ("metrics", "--textfile", "m")]
)
def test_a_full_disk(synced: Machine, arguments: tuple[str, ...]) -> None:
    before = synced.cached()
    ended = in_need(synced, arguments, FULL_DISK)
    assert_74(ended, "disk" if "backup" in arguments or "metrics" in arguments else "database")
    assert not [
        each.name for each in synced.directory.iterdir() if each.name in {"copy.db", "m"} or ".tmp" in each.name
    ]
    assert synced.cached() == before
    assert check_rules(synced.database) == []
    assert synced.command(*arguments).returncode == 0


def test_watch_waits_for_room_on_the_disk_and_loses_nothing(synced: Machine) -> None:
    sandbox = synced.sandbox
    with watching(synced, **LIMITS, **NO_CACHE) as service:
        hard = resource.prlimit(service.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(service.pid, resource.RLIMIT_FSIZE, (4096, hard))
        for each in range(20):
            sandbox.patch_skill(sandbox.skill_ids()[each], {"description": "x" * 10_000 + str(each)})
        assert service.stderr is not None
        assert any("database" in line and "trying again" in line for line in service.stderr)
        resource.prlimit(service.pid, resource.RLIMIT_FSIZE, (hard, hard))
        wait_until(lambda: {k: v for k, v in synced.cached().items() if k != "ours"} == synced.listed())
        stop(service)
    assert check_rules(synced.database) == []


@pytest.fixture
def read_only(synced: Machine) -> Iterator[Machine]:
    synced.database_path.chmod(0o400)
    synced.directory.chmod(0o500)
    yield synced
    synced.directory.chmod(0o700)
    synced.database_path.chmod(0o600)


@pytest.mark.parametrize("arguments", [("sync", "skills"), ("watch",), ("status",), ("metrics", "--textfile", "m")])
def test_a_read_only_database_in_a_read_only_directory(read_only: Machine, arguments: tuple[str, ...]) -> None:
    before = read_only.database_path.read_bytes()
    ended = in_need(read_only, arguments, NO_RIGHTS)
    assert_74(ended, "ermission")
    assert read_only.database_path.read_bytes() == before


@pytest.mark.soak
def test_a_lock_that_is_kept_for_longer_than_our_patience(synced: Machine) -> None:
    ended: dict[tuple[str, ...], subprocess.CompletedProcess[str]] = {}
    with closing(sqlite3.connect(synced.database_path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        threads = [
            threading.Thread(target=lambda each=each: ended.update({each: synced.command(*each)}))
            for each in WRITERS + READERS
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        holder.execute("ROLLBACK")
    for each in WRITERS:
        assert_74(ended[each], "was locked for longer than 10 s")
    assert [ended[each].returncode for each in READERS] == [0, 0, 0]
    assert check_rules(synced.database) == []


def test_a_directory_that_is_gone(synced: Machine, tmp_path: Path) -> None:
    ended = synced.command("metrics", "--textfile", str(tmp_path / "gone" / "m.prom"))
    assert_74(ended, "No such file or directory")


def test_watch_says_nothing_of_another_program_that_writes_for_seconds(synced: Machine) -> None:
    with watching(synced, **LIMITS) as service:
        with closing(sqlite3.connect(synced.database_path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            synced.sandbox.patch_skill(synced.sandbox.skill_ids()[0], {"description": "meanwhile"})
            time.sleep(1.5)  # what the other program takes; longer than `watch` waits at a time
            other.execute("COMMIT")
        wait_until(lambda: {k: v for k, v in synced.cached().items() if k != "ours"} == synced.listed())
        logged = stop(service)
    assert "locked" not in logged
