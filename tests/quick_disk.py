"""Where tests keep their files: in memory, because most of a small commit is the work of a real disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_IN_MEMORY = Path("/dev/shm")
_NEEDED = 4 << 30


def quick_directory() -> Path | None:
    """Return a directory in memory; None if there is none with enough room, or if nothing may be executed there."""
    if not _IN_MEMORY.is_dir() or os.statvfs(_IN_MEMORY).f_flag & os.ST_NOEXEC:
        return None
    return _IN_MEMORY if shutil.disk_usage(_IN_MEMORY).free >= _NEEDED else None
