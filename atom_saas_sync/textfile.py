"""Writing a file that another program may read at any moment: it sees the old text or the new one, never half."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from atom_saas_sync.errors import DatabaseError
from atom_saas_sync.unfinished import create_beside, flush

# node_exporter runs as another user.
_READABLE_BY_ALL = 0o644


def refuse_irregular(path: Path) -> None:
    """Raise DatabaseError for a path that is a link, a pipe, a directory, or anything else that is no file."""
    if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
        raise DatabaseError(f"{path.absolute()} is no regular file", hint="name another file")


def write_textfile(path: Path, text: str, *, mode: int = _READABLE_BY_ALL) -> None:
    """Replace the file at once, with this mode under any umask.

    The text goes to a new file in the same directory first, whose name does not end in .prom: node_exporter would read
    it. Rename replaces a symbolic link and does not follow it, but a link, or anything else that is no file, is
    refused: somebody meant something else.

    Raises DatabaseError (disk error, exit code 74).
    """
    path = path.absolute()
    unfinished = None
    try:
        refuse_irregular(path)
        descriptor, unfinished = create_beside(path)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            flush(stream.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise DatabaseError(
            f"cannot write {path}: {error.strerror}",
            hint=f"the directory {path.parent} must exist, have room, and be writable for this user",
        ) from error
    finally:
        if unfinished is not None:
            unfinished.unlink(missing_ok=True)
