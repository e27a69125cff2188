"""Atomic file writes: a reader sees the old content or the new, never a partial file."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from atom_saas_sync.errors import DatabaseError, UsageError
from atom_saas_sync.unfinished import create_beside, flush

# node_exporter runs as another user.
_READABLE_BY_ALL = 0o644


def refuse_irregular(path: Path) -> None:
    """Raise DatabaseError for a path that is not a regular file: a link, a pipe, a directory or anything else."""
    if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
        raise DatabaseError(f"{path.absolute()} is not a regular file", hint="name another file")


RECOGNIZED_BY = 64 * 1024
"""As many bytes of a file must show what it is."""


def refuse_foreign(path: Path, is_ours: Callable[[bytes], bool], kind: str) -> None:
    """Raise UsageError for a file that `is_ours` does not recognize by its first 64 KiB, unless these are blank.

    A mistyped name must not cost another file, such as the database. Raises DatabaseError like `refuse_irregular`, and
    if the file cannot be read.
    """
    refuse_irregular(path)
    try:
        with path.open("rb") as stream:
            start = stream.read(RECOGNIZED_BY)
    except FileNotFoundError:
        return
    except OSError as error:
        raise DatabaseError(f"cannot read {path.absolute()}: {error.strerror}", hint="name another file") from error
    if start.strip(b"\0 \t\r\n") and not is_ours(start):
        raise UsageError(
            f"{path.absolute()} exists and is not a {kind}",
            hint="it was left as it is; name another file, or remove it",
        )


def write_textfile(path: Path, text: str, *, mode: int = _READABLE_BY_ALL) -> None:
    """Replace the file atomically, with this mode under any umask.

    The text is written to a new file in the same directory, whose name does not end in .prom, so that node_exporter
    does not read it. Rename would replace a symbolic link without following it; a link, or anything else that is not a
    regular file, is refused, because replacing it was probably not intended.

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
