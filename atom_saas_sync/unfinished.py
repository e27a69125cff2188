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
    """Create a file of an unforgeable name beside `path`, mode 0600; return its descriptor and its name.

    The name begins with a dot and ends in .tmp, so that nobody takes it for the file itself. Of earlier ones that
    were not written to for a day, whoever made them was killed: they go, or they would fill the disk one by one.

    Raises OSError.
    """
    for each in path.parent.glob(f".{glob.escape(path.name)}.*.tmp*"):
        with suppress(OSError):  # already gone, or another user's: that is no reason to write nothing
            if time.time() - each.lstat().st_mtime > _ABANDONED_SECONDS:
                each.unlink()
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    return descriptor, Path(name)


def flush(descriptor: int) -> None:
    """Flush a file to the disk, if its file system can do that. Raises OSError."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
