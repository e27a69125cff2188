"""The database file and its directories, as files. Nothing here opens an existing one: see database.py."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from atom_saas_sync.errors import DatabaseError
from atom_saas_sync.store.sqlite.failures import hand_over, is_there, translated_errors


def identity(path: Path) -> tuple[int, int] | None:
    """Return the device and inode of a file, None if it does not exist."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def beside(path: Path, suffix: str) -> Path:
    """Return where SQLite keeps the side file of a database: beside the file itself, if the path is a link."""
    return Path(os.path.realpath(path) + suffix)


def exists(path: Path) -> bool:
    """Tell whether the database file exists. Raises DatabaseError if that is unknown."""
    with translated_errors(path):
        return is_there(path)


def free_disk_gb(path: Path) -> float:
    """Return the free space, in GB (10^9 bytes), on the file system where the database is or will be.

    Raises DatabaseError.
    """
    directory = Path(os.path.realpath(path)).parent
    with translated_errors(path):
        while not is_there(directory):
            directory = directory.parent
        import shutil  # `status` imports this module

        return shutil.disk_usage(directory).free / 1e9


def create_directories(directory: Path) -> None:
    """Create a directory and its missing parents, each with mode 0700 under any umask.

    Directories that root creates in another user's directory belong to that user.

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
            continue  # another process created it first; if it is not a directory, the next step fails
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

    A root-owned file in a service's directory would lock the service out. In a directory of root's, which may be
    shared, the file stays ours. Raises FileExistsError, or another OSError; if the file cannot be given to that owner,
    it is removed.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    os.fchmod(descriptor, 0o600)
    hand_over(descriptor, path)
    return descriptor


def create_file(path: Path) -> None:
    """Create an empty file with mode 0600 if there is none. SQLite gives -wal and -shm its mode and owner."""
    create_directories(path.parent)
    try:
        descriptor = create_private(path)
    except FileExistsError:
        _refuse_unusable(path, os.R_OK | os.W_OK)
    else:
        os.close(descriptor)


def require_file(path: Path, access: int) -> None:
    """Raise DatabaseError unless the file exists and allows this `access` (os.R_OK, os.W_OK)."""
    if not is_there(path):
        raise DatabaseError(
            f"there is no database at {path}",
            hint="`atom-sync sync skills` makes one, and so does `atom-sync db upgrade`; or set ATOM_SAAS_DATABASE_URL",
        )
    _refuse_unusable(path, access)


def refuse_special_files_beside(path: Path) -> None:
    """Refuse a pipe or device in place of SQLite's logs: SQLite would wait for it forever."""
    for log in (beside(path, suffix) for suffix in ("-journal", "-wal", "-shm")):
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(log.lstat().st_mode):
                raise DatabaseError(f"{log} is not a regular file", hint="remove it; SQLite keeps a log there")


def _refuse_unusable(path: Path, access: int) -> None:
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    refuse_special_files_beside(path)
    if access & os.W_OK and status.st_nlink > 1:
        # SQLite keeps a log beside each name, and we a lock: writers with different names would damage the file.
        from shlex import quote

        raise DatabaseError(
            f"the database {path} cannot be written to: it has {status.st_nlink} names (hard links)",
            hint=f"find them with `find / -xdev -samefile {quote(str(path))}`, and remove or copy the others; "
            "symbolic links are safe",
        )
    # SQLite would open it read-only and fail at the first write.
    if not os.access(path, access, effective_ids=os.access in os.supports_effective_ids):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
