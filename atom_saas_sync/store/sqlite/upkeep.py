"""SQLite maintenance in a process that writes continuously."""

from __future__ import annotations

import sqlite3

from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.store.sqlite.failures import translated_errors

PAUSE_SECONDS = 0.12
"""Pause after two seconds of almost continuous writing, so that other processes can take SQLite's write lock.

A waiter polls at most every 100 ms and usually gives up after 5 s. Without the pause, a flood that is faster than the
disk would never let it succeed.
"""
_ALMOST_CONTINUOUS = 0.8


class SQLiteUpkeep:
    """Checkpoints and fair locking, over a connection of its own, so that the writer does not wait."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def tidy(self) -> None:
        """Checkpoint the part of the write-ahead log that no reader needs.

        Otherwise SQLite would do it in the middle of a commit, when the log is long, and new messages would wait for
        the disk.
        """
        with translated_errors(self._database.path, (sqlite3.Error,)):
            self._database.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    def pause(self, writing: float, *, of: float) -> float:
        """Return how long to leave the lock free after `writing` of the last `of` seconds."""
        return PAUSE_SECONDS if writing > _ALMOST_CONTINUOUS * of else 0.0
