"""Helpers for tests of the store: real files, plain connections of other programs, other processes."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]

# Imported by a child before it drops its privileges, without which it might not be able to read the modules.
_CHILD = """
import os, resource, signal, sqlite3, sys, sqlite_utils
from pathlib import Path
from atom_saas_sync.errors import AtomSyncError
from atom_saas_sync.store.sqlite import lock, maintenance, migrations
from atom_saas_sync.store.sqlite.database import Database
path = Path(sys.argv[1])
def become_nobody():
    if os.geteuid() == 0:
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
def limit_files(size):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
def report(action):
    try:
        action()
    except AtomSyncError as error:
        print(f"{error.exit_code} {error.message} | {error.hint}")
    else:
        print("0")
"""


def child(code: str, path: Path) -> subprocess.Popen[str]:
    """Start another process that runs `code` with `path` and uses its standard input and output."""
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD + code, str(path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def run_child(code: str, path: Path, *, exit_code: int = 0) -> str:
    """Run `code` in another process to its end and return what it printed."""
    with child(code, path) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == exit_code
    return output.strip()


@contextmanager
def child_at_work(code: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """Run `code` in another process, which says "ready" and then waits for its standard input to close."""
    with child(code, path) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.communicate(timeout=60)


HOLD_THE_WRITE_LOCK = """
connection = sqlite3.connect(path, isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("ready", flush=True)
sys.stdin.read()
connection.execute("ROLLBACK")
"""


def plain(path: Path) -> closing[sqlite3.Connection]:
    """Open the file as another program would: no pragmas, each statement committed at once."""
    return closing(sqlite3.connect(path, isolation_level=None))


def sql(path: Path, *statements: str) -> list[tuple[Any, ...]]:
    """Execute statements as another program and return the rows of the last one."""
    with plain(path) as connection:
        rows: list[tuple[Any, ...]] = []
        for statement in statements:
            rows = connection.execute(statement).fetchall()
        return rows


def schema_of(path: Path) -> list[tuple[Any, ...]]:
    """Return the whole schema of the file."""
    return sql(path, "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name")
