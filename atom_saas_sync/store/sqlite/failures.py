"""Failures of SQLite and the disk, as messages with a hint. Standard library only: `status` needs it."""

from __future__ import annotations

import errno
import os
import pwd
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

from atom_saas_sync.errors import DatabaseBusy, DatabaseError

LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_NO_ACCESS = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM)


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
        busy = isinstance(error, sqlite3.Error) and primary_code(error) in LOCKED
        failure = (DatabaseBusy if busy else DatabaseError)(message, hint=hint)
        failure.is_denied = isinstance(error, PermissionError) or (
            isinstance(error, sqlite3.Error) and primary_code(error) in _NO_ACCESS
        )
        raise failure from error


def is_there(path: Path) -> bool:
    """Tell whether a file exists. Raises OSError if that is unknown, unlike Path.exists of some Python versions."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def hand_over(descriptor: int, path: Path) -> None:
    """Give a new file to the owner of its directory, unless that is root; on failure, remove it and raise OSError."""
    above = path.parent.stat()
    if above.st_uid in {0, os.fstat(descriptor).st_uid}:
        return
    try:
        os.fchown(descriptor, above.st_uid, above.st_gid)
    except OSError as error:
        os.close(descriptor)
        path.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error


def primary_code(error: sqlite3.Error) -> int:
    """Return SQLite's result code without its extension; 0 if the error is not from SQLite itself."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _explain_os_error(error: Exception, path: Path) -> tuple[str, str]:
    """Return what failed and why, and what to do."""
    number = getattr(error, "errno", None)
    reason = getattr(error, "strerror", None) or str(error)
    place = getattr(error, "filename", None) or path
    where = "" if str(place) == str(path) else f" ({place})"
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        hint = f"make room on the file system of {path.parent} (`df -h {quote(str(path.parent))}`), then run again"
    elif number in (errno.EACCES, errno.EPERM, errno.EROFS):
        hint = _who_may(Path(place))
    else:
        hint = "set ATOM_SAAS_DATABASE_URL (or --database) to a file in a directory that this user may write to"
    return f"cannot use the database {path}: {reason}{where}", hint


def _explain_sqlite_error(error: sqlite3.Error, path: Path, busy_timeout_seconds: float | None) -> tuple[str, str]:
    """Return what failed and why, and what to do."""
    code = primary_code(error)
    if code in LOCKED:
        period = "too long" if busy_timeout_seconds is None else f"longer than {busy_timeout_seconds:g} s"
        message = f"the database {path} was locked for {period}: {error}"
        hint = (
            "another program is writing to it: the Atom backend, another atom-sync, or an open sqlite3 shell "
            f"(`fuser -v {quote(str(path))}` names it); run again when it is done"
        )
    elif code == sqlite3.SQLITE_NOTADB:
        message = f"{path} is not an SQLite database"
        hint = "it was left untouched; set ATOM_SAAS_DATABASE_URL (or --database) to another file"
    elif code == sqlite3.SQLITE_CORRUPT:
        message = f"the database {path} is damaged: {error}"
        hint = (
            "`atom-sync db restore FILE` restores a backup; or move it away: a sync fetches the catalogue "
            "again, but local edits, ratings not yet sent and the history are in this file alone"
        )
    elif code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _is_full(path.parent)):
        message = f"the disk of the database {path} is full: {error}"
        hint = f"make room on the file system of {path.parent} (`df -h {quote(str(path.parent))}`), then run again"
    elif code == sqlite3.SQLITE_IOERR:
        message = f"reading or writing the database {path} failed: {error}"
        hint = "a quota, a limit on file sizes (`ulimit -f`) or a failing disk (`dmesg`); what was committed is kept"
    elif code in _NO_ACCESS:
        message = f"cannot read and write the database {path}: {_obstacle(path) or error}"
        hint = (
            f"{_who_may(path)}; even for reading, a user must be able to write in {path.parent}, "
            "because SQLite keeps its -wal and -shm files there"
        )
    else:
        message = f"the database {path} refused a statement: {error}"
        hint = "`atom-sync db check` compares its tables with what this version expects"
    return message, hint


def _who_may(path: Path) -> str:
    """Return the hint for a file that this user may not access, based on the owners of the file and its directory."""
    user = os.geteuid()
    owner, owner_above = (_owner(each) for each in (path, path.parent))
    if owner_above == user and owner not in {None, user}:
        return f"it belongs to {_name(owner)}; run: sudo chown {shlex.quote(_name(user))} {shlex.quote(str(path))}"
    if owner_above in {None, 0, user}:
        return f"run as the user that owns {path.parent}, or give this user the right to write there"
    return f"run: sudo -u {shlex.quote(_name(owner_above))} atom-sync …"


def _owner(path: Path) -> int | None:
    try:
        return path.stat().st_uid
    except OSError:
        return None


def _name(user: int | None) -> str:
    """Return a user name or id in the form that sudo and chown accept."""
    try:
        return pwd.getpwuid(user or 0).pw_name
    except KeyError:
        return f"#{user}"


def _is_full(directory: Path) -> bool:
    """Tell whether the file system has no room for another database page."""
    try:
        status = os.statvfs(directory)
    except OSError:
        return False
    return status.f_bavail * status.f_frsize < 64 * 1024


def _obstacle(path: Path) -> str | None:
    """Return why this process cannot use the file, as far as the file system shows."""
    if not os.access(path, os.R_OK | os.W_OK):
        return "no permission to read and write the file"
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return f"no permission to write in the directory {path.parent}"
    return None
