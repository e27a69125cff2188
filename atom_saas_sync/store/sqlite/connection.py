"""One connection to the database file, and its transactions; database.py opens it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from atom_saas_sync.errors import DatabaseError
from atom_saas_sync.store.sqlite import digests, search_index
from atom_saas_sync.store.sqlite.failures import LOCKED, primary_code, translated_errors
from atom_saas_sync.store.sqlite.files import identity

# Retry interval for statements that SQLite rejects as locked without honouring busy_timeout.
_RETRY_SECONDS = 0.02
# A checkpoint truncates the write-ahead log to this size, so that one huge sync does not occupy the disk forever.
_WAL_BYTES = 16 * 1024 * 1024
# Checkpoint every 64 MB: pages that a long sync rewrites reach the database file only then.
_CHECKPOINT_PAGES = 16_384
# Without an adapter of its own, sqlite3 looks for one at each value of these types and formats an exception for not
# finding it: half a microsecond, and a new skill has eighteen such values.
_AS_THEY_ARE: dict[type, Callable[[Any], Any]] = {type(None): lambda none: none, bytes: bytes, bool: int}


class Connection:
    """One connection to the database file, for one thread."""

    def __init__(self, path: Path, connection: sqlite3.Connection, *, busy_timeout_seconds: float) -> None:
        self.path = path
        self.connection = connection
        self.busy_timeout_seconds = busy_timeout_seconds
        self._file = identity(path)

    def set_up(self) -> None:
        """Give the connection our functions and settings. Nothing is read or written."""
        self.connection.row_factory = sqlite3.Row
        # Other programs may store text that is not UTF-8: it must not fail the query for all other rows.
        self.connection.text_factory = _text
        for kind, adapter in _AS_THEY_ARE.items():
            sqlite3.register_adapter(kind, adapter)
        search_index.register(self.connection)
        digests.register(self.connection)
        self.connection.execute("PRAGMA foreign_keys = ON")
        self.connection.execute("PRAGMA synchronous = NORMAL")
        self.connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        self.connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write in one transaction: all of the block, or nothing if it ends with any exception.

        The write lock is taken at the start (`BEGIN IMMEDIATE`): a transaction that reads first and writes later
        would fail at once, whatever the timeout is, if another process wrote in between.

        Raises DatabaseError for every failure of SQLite, also when another program holds the lock for too long, and if
        the file was moved, removed or replaced since it was opened: nobody would find there what is written.
        """
        self._refuse_nesting()
        self._require_in_place()
        with translated_errors(self.path, (sqlite3.Error,), busy_timeout_seconds=self.busy_timeout_seconds):
            self._patiently("BEGIN IMMEDIATE")
            try:
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Open a read snapshot. It neither blocks writers nor waits for them.

        Raises DatabaseError for every failure of SQLite. What the block writes is rolled back.
        """
        self._refuse_nesting()
        with translated_errors(self.path, (sqlite3.Error,), busy_timeout_seconds=self.busy_timeout_seconds):
            self.connection.execute("BEGIN")
            try:
                yield self.connection
            finally:
                self._roll_back()

    @contextmanager
    def without_foreign_keys(self) -> Iterator[None]:
        """Allow rebuilding tables: with foreign keys on, DROP TABLE deletes the rows that refer to them."""
        self.connection.execute("PRAGMA foreign_keys = OFF")
        try:
            yield
        finally:
            self.connection.execute("PRAGMA foreign_keys = ON")

    def use_write_ahead_log(self) -> None:
        """Switch to WAL mode, so that readers and a writer of any program can work at the same time.

        Where the file system cannot do it the mode stays as it was. A copy (`db backup`) that was put in the place of
        the database gets the mode here, too.
        """
        with translated_errors(self.path, (sqlite3.Error,), busy_timeout_seconds=self.busy_timeout_seconds):
            if self.connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                self._patiently("PRAGMA journal_mode = WAL")

    def close(self) -> None:
        """Close the connection; closing it again does nothing."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _patiently(self, statement: str) -> None:
        """Execute a statement, and retry if SQLite reports "locked" without waiting for the busy timeout."""
        end = time.monotonic() + self.busy_timeout_seconds
        while True:
            try:
                self.connection.execute(statement).fetchone()
            except sqlite3.OperationalError as error:
                if primary_code(error) not in LOCKED or time.monotonic() >= end:
                    raise
                time.sleep(_RETRY_SECONDS)
            else:
                return

    def _roll_back(self) -> None:
        # After a full disk or an I/O error SQLite has already rolled back.
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def _require_in_place(self) -> None:
        if identity(self.path) != self._file:
            raise DatabaseError(
                f"the database {self.path} was moved, removed or replaced while it was in use",
                hint="start this again; stop `watch` before replacing its database file",
            )

    def _refuse_nesting(self) -> None:
        if self.connection.in_transaction:
            raise RuntimeError("a transaction is open already on this connection: transactions do not nest")


def _text(data: bytes) -> str:
    return data.decode(errors="replace")
