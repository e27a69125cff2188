"""Executed before a command, this makes its process kill itself with SIGKILL at a chosen point of its work on disk.

A point is the moment before or after a COMMIT, a fsync, a rename, a copy of pages, and after each statement that
writes. Each point that is reached is appended to the file CRASH_TRACE before anything else happens; the process dies at
the point number CRASH_AT. The product does not contain this; it simulates a crash at an exact time.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from typing import Any

_WRITING = ("INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "PRAGMA JOURNAL_MODE")


class _Trap:
    def __init__(self, trace: str, die_at: int) -> None:
        self._turn = threading.Lock()
        self._trace = os.open(trace, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._die_at = die_at
        self._reached = 0

    def point(self, name: str) -> None:
        with self._turn:
            self._reached += 1
            os.write(self._trace, f"{name}\n".encode())
            if self._reached == self._die_at:
                os.kill(os.getpid(), signal.SIGKILL)


def _set(trap: _Trap) -> None:
    class Connection(sqlite3.Connection):
        def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
            verb = statement.lstrip().upper()
            committing = verb.startswith("COMMIT")
            if committing:
                trap.point("before commit")
            cursor = super().execute(statement, *parameters)
            if committing:
                trap.point("after commit")
            elif verb.startswith(_WRITING):
                trap.point("after a statement")
            elif verb.startswith("BEGIN IMMEDIATE"):
                trap.point("after begin")
            return cursor

        def backup(self, *arguments: Any, **named: Any) -> None:
            trap.point("before copying pages")
            super().backup(*arguments, **named)
            trap.point("after copying pages")

    connect = sqlite3.connect

    def connect_trapped(database: Any, *arguments: Any, **named: Any) -> Any:
        if database == ":memory:":
            return connect(database, *arguments, **named)
        return connect(database, *arguments, **named, factory=Connection)

    sqlite3.connect = connect_trapped
    for name in ("fsync", "replace", "rename", "ftruncate"):
        setattr(os, name, _around(trap, name, getattr(os, name)))


def _around(trap: _Trap, name: str, function: Any) -> Any:
    def call(*arguments: Any, **named: Any) -> Any:
        trap.point(f"before {name}")
        result = function(*arguments, **named)
        trap.point(f"after {name}")
        return result

    return call


if "CRASH_TRACE" in os.environ:
    _set(_Trap(os.environ["CRASH_TRACE"], int(os.environ.get("CRASH_AT", "0"))))
