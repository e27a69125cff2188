"""Temporary files for atomic replacement."""

from __future__ import annotations

import errno
import glob
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

_ABANDONED_SECONDS = 24 * 3600.0
_NOT_SUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


def create_beside(path: Path) -> tuple[int, Path]:
    """Create a file with an unpredictable name beside `path`, mode 0600; return its descriptor and name.

    The name begins with a dot and ends in .tmp, so that it is not mistaken for the file itself. Earlier ones that were
    not written to for a day belong to killed processes; they are removed, or they would gradually fill the disk.

    Raises OSError.
    """
    for each in path.parent.glob(f".{glob.escape(path.name)}.*.tmp*"):
        with suppress(OSError):  # already gone, or another user's: write the new file anyway
            if time.time() - each.lstat().st_mtime > _ABANDONED_SECONDS:
                each.unlink()
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    return descriptor, Path(name)


def flush(descriptor: int) -> None:
    """Flush a file to the disk, if its file system supports that. Raises OSError."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
