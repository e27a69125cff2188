"""Consistent copies of the database while others write."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from shlex import quote

from atom_saas_sync.errors import DatabaseError, UsageError
from atom_saas_sync.store.sqlite.failures import hand_over, is_there, translated_errors
from atom_saas_sync.store.sqlite.files import beside

SIDE_FILES = ("-wal", "-shm", "-journal")

# Python can handle signals between two steps of a copy.
_PAGES_IN_A_STEP = 1024


def backup(source: Path, target: Path, *, force: bool = False) -> None:
    """Write a consistent copy of the database, mode 0600, while others read and write.

    The copy is a single file without a -wal. It appears under its name only when it is complete and verified.

    Raises UsageError if the target exists (and not `force`), is the database itself, one of its side files, a symbolic
    link, a directory, or a database in use; DatabaseError if the copy fails.
    """
    target = target.absolute()
    with translated_errors(target):
        _refuse_target(source, target, force=force)
    copy(source, target)


def _refuse_target(source: Path, target: Path, *, force: bool) -> None:
    from atom_saas_sync.store.targets import require_directory  # as in `copy`

    if target.is_symlink():
        raise UsageError(f"{target} is a symbolic link", hint="name the file itself")
    own = [source, *(beside(source, suffix) for suffix in SIDE_FILES)]
    if any(os.path.realpath(each) == os.path.realpath(target) for each in own) or _is_same_file(source, target):
        raise UsageError(f"{target} is the database itself", hint="name another file")
    with translated_errors(target):
        require_directory(target)
    if target.is_dir():
        raise UsageError(f"{target} is a directory", hint=f"name a file in it, such as {target / source.name}.bak")
    if is_there(target) and not force:
        raise UsageError(f"{target} exists", hint="name another file, or pass --force to replace it")
    if is_there(target) and not target.is_file():
        raise UsageError(f"{target} is not a regular file", hint="name another file")
    # SQLite would use the side files of the replaced database with the copy.
    if any(beside(target, suffix).exists() for suffix in SIDE_FILES):
        raise UsageError(f"{target} is a database in use: it has a -wal or -journal file", hint="name another file")


def copy(source: Path, target: Path) -> None:
    """Copy the last committed state of a database to a file, replacing it at once when the copy is complete.

    Raises DatabaseError.
    """
    from atom_saas_sync.unfinished import create_beside, flush  # `status` imports this module, but copies nothing

    with translated_errors(target):
        descriptor, unfinished = create_beside(target)
        if os.geteuid() == 0:
            hand_over(descriptor, unfinished)
        try:
            _copy_pages(source, unfinished, descriptor)
            flush(descriptor)
            _refuse_replaced(unfinished, descriptor)
            unfinished.replace(target)
            with suppress(PermissionError):  # a directory that we can write to but not read
                _flush(target.parent)
        except BaseException:
            for suffix in ("", *SIDE_FILES):
                unfinished.with_name(unfinished.name + suffix).unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)


def _copy_pages(source: Path, target: Path, descriptor: int) -> None:
    """Copy page by page to the file that is open already, and verify the copy."""
    before = _times_open(descriptor)
    with (
        closing(sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True, isolation_level=None)) as reader,
        closing(sqlite3.connect(f"{target.as_uri()}?mode=rw", uri=True, isolation_level=None)) as writer,
    ):
        # SQLite opens it by name: a symbolic link put in its place must not be followed.
        if _times_open(descriptor) == before:
            raise _replaced(target)
        # One snapshot for the whole copy: without it, SQLite starts again whenever another process has written.
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
        reader.backup(writer, pages=_PAGES_IN_A_STEP)
        reader.execute("ROLLBACK")
        # On a read-only medium, SQLite can read only a database without a write-ahead log.
        writer.execute("PRAGMA journal_mode = DELETE").fetchone()
        verdict = writer.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise DatabaseError(
            f"the copy of {source} is damaged: {verdict}",
            hint="it was not kept; the database itself may be damaged: see `atom-sync db check`",
        )


def _times_open(descriptor: int) -> int:
    """Return how many descriptors of this process refer to the same file."""
    wanted, number = os.fstat(descriptor), 0
    for each in os.listdir("/dev/fd"):  # noqa: PTH208 - numbers, no paths
        with suppress(OSError):  # closed in the meantime: the listing's own, or another thread's
            number += os.path.samestat(os.fstat(int(each)), wanted)
    return number


def _refuse_replaced(path: Path, descriptor: int) -> None:
    if not os.path.samestat(path.lstat(), os.fstat(descriptor)):
        raise _replaced(path)


def _replaced(path: Path) -> DatabaseError:
    return DatabaseError(
        f"another file has taken the place of {path}, the unfinished copy",
        hint=f"nothing was written to it; see who may write there: `ls -ld {quote(str(path.parent))}`",
    )


def _flush(path: Path) -> None:
    """Make sure that a file, or the names in a directory, survive a power cut."""
    from atom_saas_sync.unfinished import flush

    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        flush(descriptor)
    finally:
        os.close(descriptor)


def _is_same_file(one: Path, other: Path) -> bool:
    return is_there(one) and is_there(other) and one.samefile(other)
