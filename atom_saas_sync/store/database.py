"""The database file: opening it, and its transactions.

Only the standard library is imported here: `status` opens the database at every start. And nothing here opens the
database file except through SQLite, or to create it: closing any other descriptor of a file drops all POSIX locks
that this process holds on it, those of SQLite's other connections among them.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from atom_saas_sync.errors import DatabaseError
from atom_saas_sync.store import digests, migrations, search_index
from atom_saas_sync.store.failures import LOCKED, hand_over, is_there, primary_code, translated_errors

# Retry interval for statements that SQLite rejects as locked without honouring busy_timeout.
_RETRY_SECONDS = 0.02
# The write-ahead log is cut back to this size at a checkpoint, so that one huge sync does not keep the disk for ever.
_WAL_BYTES = 16 * 1024 * 1024
# A checkpoint each 64 MB: pages that a long sync writes again and again go to the database file only then.
_CHECKPOINT_PAGES = 16_384


class Database:
    """One connection to the database file, for one thread."""

    def __init__(self, path: Path, connection: sqlite3.Connection, *, busy_timeout_seconds: float) -> None:
        self.path = path
        self.connection = connection
        self.busy_timeout_seconds = busy_timeout_seconds
        self._file = _identity(path)

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        busy_timeout_seconds: float = 10.0,
        migrate: bool = True,
        read_only: bool = False,
        create: bool = True,
        adopt: bool | None = None,
        any_thread: bool = False,
    ) -> Database:
        """Open the file, creating it (0600) and its missing directories (0700).

        With `migrate`, a new, empty or foreign database gets our tables, and an older one is upgraded, after a copy
        was put beside it; so is one that the Atom backend made, if `adopt` (default: with `create`). Without, the
        database is taken as it is. With `read_only` nothing is created, upgraded or written; with `migrate` the
        database must then be up to date. Without `create` it is likewise, but may be written to: for commands that look
        for something. With `any_thread` several threads may use the connection, if the caller sees to it that they do
        so one after the other.

        A WAL database cannot be read, even read-only, where its directory is not writable and no writer has it open:
        readers share the -shm file. (`immutable=1` would read, but wrongly while others write.)

        Raises DatabaseError: the path cannot be used, is no SQLite database, is damaged, full or locked, was made by
        a newer version, or holds another program's table of one of our names.
        """
        path = path.absolute()
        with translated_errors(path, busy_timeout_seconds=busy_timeout_seconds):
            if read_only or not create:
                _require_file(path, os.R_OK if read_only else os.R_OK | os.W_OK)
            else:
                _create_file(path)
            connection = sqlite3.connect(
                f"{path.as_uri()}?mode={'ro' if read_only else 'rw'}",
                uri=True,
                timeout=busy_timeout_seconds,
                isolation_level=None,
                check_same_thread=not any_thread,
            )
            database = cls(path, connection, busy_timeout_seconds=busy_timeout_seconds)
            try:
                database._prepare(
                    migrate=migrate, as_it_is=read_only or not create, adopt=create if adopt is None else adopt
                )
            except BaseException:
                connection.close()
                raise
        return database

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

        Raises DatabaseError for every failure of SQLite. What the block writes is taken back.
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
        """Let tables be built again: with foreign keys, DROP TABLE deletes the rows that refer to them."""
        self.connection.execute("PRAGMA foreign_keys = OFF")
        try:
            yield
        finally:
            self.connection.execute("PRAGMA foreign_keys = ON")

    def use_write_ahead_log(self) -> None:
        """Let readers and a writer work at the same time, from now on and in every program.

        Where the file system cannot do it the mode stays as it was. A copy (`db backup`) that was put in the place of
        the database gets the mode here, too.
        """
        with translated_errors(self.path, (sqlite3.Error,), busy_timeout_seconds=self.busy_timeout_seconds):
            if self.connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                self._patiently("PRAGMA journal_mode = WAL")

    def close(self) -> None:
        """Close the connection; a second time does nothing."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _prepare(self, *, migrate: bool, as_it_is: bool, adopt: bool) -> None:
        """Set the connection up, and bring the database up to date or refuse it."""
        self.connection.row_factory = sqlite3.Row
        # Other programs may leave a text that is not UTF-8: it must not fail the query for all other rows.
        self.connection.text_factory = _text
        search_index.register(self.connection)
        digests.register(self.connection)
        self.connection.execute("PRAGMA foreign_keys = ON")
        self.connection.execute("PRAGMA synchronous = NORMAL")
        self.connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        self.connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
        if as_it_is:
            # Fails here, and not in the middle of a report, if the file is no database or cannot be read.
            self.connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if migrate and adopt and migrations.awaits_adoption(self):
                migrations.upgrade(self)
            if migrate:
                migrations.require_current(self)
            return
        if migrate:
            migrations.upgrade(self, adopt=adopt)
            # After the upgrade, so that a database which is refused keeps its journal mode.
            self.use_write_ahead_log()

    def _patiently(self, statement: str) -> None:
        """Execute a statement, also when SQLite says "locked" without waiting for the busy timeout."""
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
        # After a full disk or an I/O error SQLite has rolled back by itself.
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def _require_in_place(self) -> None:
        if _identity(self.path) != self._file:
            raise DatabaseError(
                f"the database {self.path} was moved, removed or replaced while it was in use",
                hint="start this again; stop `watch` before another file is put in the place of its database",
            )

    def _refuse_nesting(self) -> None:
        if self.connection.in_transaction:
            raise RuntimeError("a transaction is open already on this connection: transactions do not nest")


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what the operating system knows a file by, None if there is none of that name."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def exists(path: Path) -> bool:
    """Tell whether there is a database file. Raises DatabaseError where that cannot be told."""
    with translated_errors(path):
        return is_there(path)


def create_directories(directory: Path) -> None:
    """Create a directory and its missing parents, each with mode 0700 under any umask.

    Those that root makes in another user's directory belong to that user.

    Raises OSError.
    """
    missing = []
    while not is_there(directory):
        missing.append(directory)
        directory = directory.parent
    for each in reversed(missing):
        try:
            each.mkdir(mode=0o700)
        except FileExistsError:
            continue  # another process was faster; if it is no directory, the next step says so
        each.chmod(0o700)
        if os.geteuid() == 0:
            above = each.parent.stat()
            try:
                os.chown(each, above.st_uid, above.st_gid, follow_symlinks=False)
            except OSError:
                each.rmdir()
                raise


def create_private(path: Path) -> int:
    """Create a file, mode 0600, that belongs to the owner of its directory; return its descriptor.

    A file that root leaves in a service's directory locks the service out. A directory of root's may be shared: there
    the file stays ours.

    Raises FileExistsError, or another OSError, also if the file cannot be given to that owner: then there is none.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    os.fchmod(descriptor, 0o600)
    hand_over(descriptor, path)
    return descriptor


def _create_file(path: Path) -> None:
    """Create an empty file with mode 0600 if there is none. SQLite gives -wal and -shm its mode and owner."""
    create_directories(path.parent)
    try:
        descriptor = create_private(path)
    except FileExistsError:
        _refuse_unusable(path, os.R_OK | os.W_OK)
    else:
        os.close(descriptor)


def _require_file(path: Path, access: int) -> None:
    if not is_there(path):
        raise DatabaseError(
            f"there is no database at {path}",
            hint="`atom-sync sync skills` makes one, and so does `atom-sync db upgrade`; or set ATOM_SAAS_DATABASE_URL",
        )
    _refuse_unusable(path, access)


def _refuse_unusable(path: Path, access: int) -> None:
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    # SQLite would fall back to reading, and fail at the first write.
    if not os.access(path, access, effective_ids=os.access in os.supports_effective_ids):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
