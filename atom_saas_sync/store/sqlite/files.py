"""The database file and its directories, as files. Nothing here opens one that is there: see database.py."""

from __future__ import annotations

import errno
import os
import stat
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


def exists(path: Path) -> bool:
    """Tell whether there is a database file. Raises DatabaseError where that cannot be told."""
    with translated_errors(path):
        return is_there(path)


def free_disk_gb(path: Path) -> float:
    """Return the room, in GB (10^9 bytes), on the file system where the database is or will be.

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

    A file that root leaves in a service's directory locks the service out. A directory of root's may be shared: there
    the file stays ours.

    Raises FileExistsError, or another OSError, also if the file cannot be given to that owner: then there is none.
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
    """Refuse a path where there is no file, or one without this `access` (os.R_OK, os.W_OK). Raises DatabaseError."""
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
    # SQLite would open it read-only and fail at the first write.
    if not os.access(path, access, effective_ids=os.access in os.supports_effective_ids):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
