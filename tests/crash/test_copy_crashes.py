"""`db copy` that is killed, stopped, cut off or out of space: its target stays empty, and the next copy fills it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from conftest import Machine
from machine_databases import FileDatabase, at
from postgres_support import binaries, server, url_of_new_schema

from atom_saas_sync.store import open_store
from atom_saas_sync.store.moving import STATES

# In the middle of a table, when others are written already.
HALFWAY = """
import os, resource, signal, threading
import psycopg
from atom_saas_sync.cli.runtime import RunClock
from atom_saas_sync.store.{engine} import moving

def rows(self, table, rows=moving.RowsOut.rows):
    for number, row in enumerate(rows(self, table)):
        if (table, number) == ("skill_base", 30):
            halfway(self)
        yield row

moving.RowsOut.rows = rows

def end_session(condition, *values):
    with psycopg.connect(os.environ["SERVER"], autocommit=True) as connection:
        ended = connection.execute(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity "
            "WHERE application_name = 'atom-sync/db-copy' AND " + condition, values).fetchall()
    assert ended == [(True,)], ended
"""
KILLED = "def halfway(source): os.kill(os.getpid(), signal.SIGKILL)"
STOPPED = """
stopped = threading.Event()

def stop(self, number, stop=RunClock.stop):
    stop(self, number)
    stopped.set()

RunClock.stop = stop

def halfway(source):
    os.kill(os.getpid(), signal.{name})
    assert stopped.wait(60)
"""
ITS_SESSION = "def halfway(source): end_session('true')"
SOURCES_SESSION = "def halfway(source): end_session('pid = %s', source._connection.info.backend_pid)"
NO_ROOM = "def halfway(source): resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))"
SERVER_KILLED = """
def halfway(source):
    with psycopg.connect(os.environ["SERVER"], autocommit=True) as connection:
        (pid,) = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'atom-sync/db-copy'").fetchone()
    os.kill(pid, signal.SIGKILL)
"""


class Copying:
    """A machine with a file and a server; copies from one to the other are interrupted."""

    def __init__(self, machine: Machine, url: str, file: Path) -> None:
        self.machine = machine
        self.server = url
        machine.database = FileDatabase(file)
        machine.pull()

    def run(self, source: str, target: str, halfway: str = "") -> subprocess.CompletedProcess[str]:
        engine = "postgresql" if source.startswith("postgresql:") else "sqlite"
        return self.machine.command(
            "db",
            "copy",
            "--to",
            target,
            first=HALFWAY.format(engine=engine) + halfway if halfway else "",
            ATOM_SAAS_DATABASE_URL=source,
            SERVER=self.server.partition("&schema=")[0],
        )

    def fails(self, source: str, target: str, halfway: str, code: int, said: str) -> None:
        """Interrupt a copy: one line and a hint are printed, and the target is empty."""
        ended = self.run(source, target, halfway)
        assert ended.returncode == code, ended.stderr
        message, *hint = ended.stderr.splitlines() or [""]
        assert said in message, ended.stderr
        assert [line[:4] for line in hint] == ["  → "] * (code > 0), ended.stderr
        with open_store(at(target).location) as store, store.moving_out() as rows:
            assert {table for table in rows.tables() if table not in STATES and [*rows.rows(table)]} == set()

    def succeeds(self, source: str, target: str) -> None:
        ended = self.run(source, target)
        assert ended.returncode == 0, ended.stderr
        assert "60 skills" in ended.stdout


@pytest.fixture
def copying(machine: Machine, postgresql_url: str, tmp_path: Path) -> Copying:
    return Copying(machine, postgresql_url, tmp_path / "source.db")


def test_a_copy_to_a_server_that_ends_early_leaves_nothing(copying: Copying) -> None:
    source = copying.machine.database.url
    copying.fails(source, copying.server, KILLED, -9, "")
    copying.fails(source, copying.server, STOPPED.format(name="SIGINT"), 130, "stopped by SIGINT")
    copying.fails(source, copying.server, ITS_SESSION, 74, "cannot use the database postgresql://atom@/postgres")
    copying.succeeds(source, copying.server)


def test_a_copy_to_a_file_that_ends_early_leaves_nothing(copying: Copying, tmp_path: Path) -> None:
    copying.succeeds(copying.machine.database.url, copying.server)
    file = str(tmp_path / "target.db")
    copying.fails(copying.server, file, KILLED, -9, "")
    copying.fails(copying.server, file, STOPPED.format(name="SIGTERM"), 143, "stopped by SIGTERM")
    copying.fails(copying.server, file, SOURCES_SESSION, 74, "cannot use the database postgresql://atom@/postgres")
    copying.fails(copying.server, file, NO_ROOM, 74, f"writing the database {file} failed")
    copying.succeeds(copying.server, file)


@pytest.mark.postgresql
def test_the_database_whose_connection_ended_is_named(copying: Copying) -> None:
    """Both are on a server, so both connections can end."""
    copying.succeeds(copying.machine.database.url, copying.server)
    other = url_of_new_schema(copying.server.partition("&schema=")[0])
    copying.fails(copying.server, other, SOURCES_SESSION, 74, copying.server.partition("?")[2].partition("&")[2])
    copying.succeeds(copying.server, other)


@pytest.mark.postgresql
def test_a_server_that_breaks_down_under_a_copy_is_empty_afterwards(machine: Machine, tmp_path: Path) -> None:
    with server(binaries(), "wal_level=replica") as url:
        copying = Copying(machine, url, tmp_path / "source.db")
        source = machine.database.url
        copying.fails(source, url, SERVER_KILLED, 74, "cannot use the database")
        copying.succeeds(source, url)
