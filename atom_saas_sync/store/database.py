"""The database file: opening it, its transactions, and its failures in words that a person can act on.

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
from atom_saas_sync.store import migrations

# How often a statement is tried again that SQLite refuses as locked without waiting.
_RETRY_SECONDS = 0.02
# The write-ahead log is cut back to this size at a checkpoint, so that one huge sync does not keep the disk for ever.
_WAL_BYTES = 16 * 1024 * 1024
# A checkpoint each 64 MB: pages that a long sync writes again and again go to the database file only then.
_CHECKPOINT_PAGES = 16_384

_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_NO_ACCESS = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM)


class Database:
    """One connection to the database file, for one thread."""

    def __init__(self, path: Path, connection: sqlite3.Connection, *, busy_timeout_seconds: float) -> None:
        self.path = path
        self.connection = connection
        self.busy_timeout_seconds = busy_timeout_seconds

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        busy_timeout_seconds: float = 10.0,
        migrate: bool = True,
        read_only: bool = False,
        any_thread: bool = False,
    ) -> Database:
        """Open the file, creating it (0600) and its missing directories (0700).

        With `migrate`, a new, empty or foreign database gets our tables, and an older one is upgraded, after a copy
        was put beside it. Without, the database is taken as it is. With `read_only` nothing is created, upgraded or
        written; with `migrate` the database must then be up to date. With `any_thread` several threads may use the
        connection, if the caller sees to it that they do so one after the other.

        A WAL database cannot be read, even read-only, where its directory is not writable and no writer has it open:
        readers share the -shm file. (`immutable=1` would read, but wrongly while others write.)

        Raises DatabaseError: the path cannot be used, is no SQLite database, is damaged, full or locked, was made by
        a newer version, or holds another program's table of one of our names.
        """
        path = path.absolute()
        with translated_errors(path, busy_timeout_seconds=busy_timeout_seconds):
            if read_only:
                _require_file(path)
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
                database._prepare(migrate=migrate, read_only=read_only)
            except BaseException:
                connection.close()
                raise
        return database

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write in one transaction: all of the block, or nothing if it ends with any exception.

        The write lock is taken at the start (`BEGIN IMMEDIATE`): a transaction that reads first and writes later
        would fail at once, whatever the timeout is, if another process wrote in between.

        Raises DatabaseError for every failure of SQLite, also when another program holds the lock for too long.
        """
        self._refuse_nesting()
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
        """Read one consistent state of the database, which no writer waits for or is waited for.

        Raises DatabaseError for every failure of SQLite. What the block writes is taken back.
        """
        self._refuse_nesting()
        with translated_errors(self.path, (sqlite3.Error,), busy_timeout_seconds=self.busy_timeout_seconds):
            self.connection.execute("BEGIN")
            try:
                yield self.connection
            finally:
                self._roll_back()

    def use_write_ahead_log(self) -> None:
        """Let readers and a writer work at the same time, from now on and in every program.

        Where the file system cannot do it the mode stays as it was; `db check` says so.
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

    def _prepare(self, *, migrate: bool, read_only: bool) -> None:
        """Set the connection up, and bring the database up to date or refuse it."""
        self.connection.row_factory = sqlite3.Row
        self.connection.execute("PRAGMA foreign_keys = ON")
        self.connection.execute("PRAGMA synchronous = NORMAL")
        self.connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        self.connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
        if read_only:
            # Fails here, and not in the middle of a report, if the file is no database or cannot be read.
            self.connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if migrate:
                migrations.require_current(self)
            return
        if migrate:
            migrations.upgrade(self)
            # After the upgrade, so that a database which is refused keeps its journal mode.
            self.use_write_ahead_log()

    def _patiently(self, statement: str) -> None:
        """Execute a statement, also when SQLite says "locked" without waiting for the busy timeout."""
        end = time.monotonic() + self.busy_timeout_seconds
        while True:
            try:
                self.connection.execute(statement).fetchone()
            except sqlite3.OperationalError as error:
                if _primary_code(error) not in _LOCKED or time.monotonic() >= end:
                    raise
                time.sleep(_RETRY_SECONDS)
            else:
                return

    def _roll_back(self) -> None:
        # After a full disk or an I/O error SQLite has rolled back by itself.
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def _refuse_nesting(self) -> None:
        if self.connection.in_transaction:
            raise RuntimeError("a transaction is open already on this connection: transactions do not nest")


@contextmanager
def translated_errors(
    path: Path,
    kinds: tuple[type[Exception], ...] = (sqlite3.Error, OSError),
    *,
    busy_timeout_seconds: float | None = None,
) -> Iterator[None]:
    """Turn failures of SQLite and the disk in the block into DatabaseError: what failed, why, and what to do.

    `kinds` narrows what is translated. Wrong use of the sqlite3 module
    (ProgrammingError) is a bug of ours and stays as it is.
    """
    try:
        yield
    except sqlite3.ProgrammingError:
        raise
    except kinds as error:
        if isinstance(error, sqlite3.Error):
            message, hint = _explain_sqlite_error(error, path, busy_timeout_seconds)
        else:
            message, hint = _explain_os_error(error, path)
        raise DatabaseError(message, hint=hint) from error


def create_directories(directory: Path) -> None:
    """Create a directory and its missing parents, each with mode 0700 under any umask.

    Raises OSError.
    """
    missing = []
    while not directory.exists():
        missing.append(directory)
        directory = directory.parent
    for each in reversed(missing):
        try:
            each.mkdir(mode=0o700)
        except FileExistsError:
            continue  # another process was faster; if it is no directory, the next step says so
        each.chmod(0o700)


def _create_file(path: Path) -> None:
    """Create an empty file with mode 0600 if there is none. SQLite gives -wal and -shm the mode of the file."""
    create_directories(path.parent)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        _refuse_unusable(path, os.R_OK | os.W_OK)
    else:
        os.fchmod(descriptor, 0o600)
        os.close(descriptor)


def _require_file(path: Path) -> None:
    if not path.exists():
        raise DatabaseError(
            f"there is no database at {path}",
            hint="`atom-sync db upgrade` creates it, and so does the first sync; or check ATOM_SAAS_DATABASE_URL",
        )
    _refuse_unusable(path, os.R_OK)


def _refuse_unusable(path: Path, access: int) -> None:
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    # SQLite would fall back to reading, and fail at the first write.
    if not os.access(path, access, effective_ids=os.access in os.supports_effective_ids):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def _primary_code(error: sqlite3.Error) -> int:
    """Return SQLite's result code without its extension; 0 if the error is not from SQLite itself."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _explain_os_error(error: Exception, path: Path) -> tuple[str, str]:
    """Return what failed and why, and what to do."""
    number = getattr(error, "errno", None)
    reason = getattr(error, "strerror", None) or str(error)
    place = getattr(error, "filename", None) or path
    where = "" if str(place) == str(path) else f" ({place})"
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        hint = f"make room on the file system of {path.parent} (`df -h {path.parent}`), then run again"
    elif number in (errno.EACCES, errno.EPERM, errno.EROFS):
        hint = f"run as the user that owns {path.parent}, or give this user the right to write there"
    else:
        hint = "set ATOM_SAAS_DATABASE_URL (or --database) to a file in a directory that this user may write to"
    return f"cannot use the database {path}: {reason}{where}", hint


def _explain_sqlite_error(error: sqlite3.Error, path: Path, busy_timeout_seconds: float | None) -> tuple[str, str]:
    """Return what failed and why, and what to do."""
    code = _primary_code(error)
    if code in _LOCKED:
        period = "too long" if busy_timeout_seconds is None else f"longer than {busy_timeout_seconds:g} s"
        message = f"the database {path} was locked for {period}: {error}"
        hint = (
            "another program is writing to it: the Atom backend, another atom-sync, or an open sqlite3 shell "
            f"(`fuser -v {path}` names it); run again when it is done"
        )
    elif code == sqlite3.SQLITE_NOTADB:
        message = f"{path} is not an SQLite database"
        hint = "it was left untouched; set ATOM_SAAS_DATABASE_URL (or --database) to another file"
    elif code == sqlite3.SQLITE_CORRUPT:
        message = f"the database {path} is damaged: {error}"
        hint = (
            "see `atom-sync db check`; put a backup in its place, or move it away: a sync fetches the catalogue "
            "again, but local edits, ratings not yet sent and the history are in this file alone"
        )
    elif code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _is_full(path.parent)):
        message = f"the disk of the database {path} is full: {error}"
        hint = f"make room on the file system of {path.parent} (`df -h {path.parent}`), then run again"
    elif code == sqlite3.SQLITE_IOERR:
        message = f"reading or writing the database {path} failed: {error}"
        hint = "a quota, a limit on file sizes (`ulimit -f`) or a failing disk (`dmesg`); what was committed is kept"
    elif code in _NO_ACCESS:
        message = f"cannot read and write the database {path}: {_obstacle(path) or error}"
        hint = (
            f"run as the user that owns it; that user must be able to write in {path.parent} even for reading, "
            "because SQLite keeps its -wal and -shm files there"
        )
    else:
        message = f"the database {path} refused a statement: {error}"
        hint = "`atom-sync db check` compares its tables with what this version expects"
    return message, hint


def _is_full(directory: Path) -> bool:
    """Tell whether the file system has no room for another page of the database."""
    try:
        status = os.statvfs(directory)
    except OSError:
        return False
    return status.f_bavail * status.f_frsize < 64 * 1024


def _obstacle(path: Path) -> str | None:
    """Return what keeps this process from the file, as far as the file system tells."""
    if not os.access(path, os.R_OK | os.W_OK):
        return "no permission to read and write the file"
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return f"no permission to write in the directory {path.parent}"
    return None
