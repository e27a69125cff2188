"""Where a copy of the database may be written, on both engines."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from atom_saas_sync.errors import DatabaseError


def require_directory(target: Path) -> None:
    """Raise DatabaseError if there is no directory for a copy of the database; OSError if that is unknown."""
    if not target.parent.exists():
        raise DatabaseError(
            f"cannot write {target}: No such file or directory: {target.parent}",
            hint=f"create the directory (`mkdir -p {quote(str(target.parent))}`), or name a file elsewhere",
        )
