"""The file beside another one in which its next text is gathered until it is whole."""

from __future__ import annotations

import glob
import tempfile
import time
from contextlib import suppress
from pathlib import Path

_ABANDONED_SECONDS = 24 * 3600.0


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
