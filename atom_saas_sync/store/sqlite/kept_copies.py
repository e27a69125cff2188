"""The copies kept beside a database: backups named by time, and those made by migrations."""

from __future__ import annotations

import logging
import os
from datetime import datetime
from pathlib import Path

from atom_saas_sync.core.backups import MIGRATION_COPY_LIFE, backup_name, is_migration_copy, surplus
from atom_saas_sync.store.sqlite.backup import copy
from atom_saas_sync.store.sqlite.failures import translated_errors
from atom_saas_sync.store.sqlite.files import create_directories

_log = logging.getLogger(__name__)


def backups_of(database: Path) -> Path:
    """Return the directory of a database's backups: beside the file itself, if the path is a link."""
    return Path(os.path.realpath(database)).parent / "backups"


def back_up(database: Path, *, now: datetime) -> Path:
    """Write a verified copy, named by time, into the directory of the backups; return its path.

    Raises DatabaseError.
    """
    directory = backups_of(database)
    name = Path(os.path.realpath(database)).name
    with translated_errors(directory):
        create_directories(directory)
        target = directory / backup_name(name, now, (each.name for each in directory.iterdir()))
    copy(database, target)
    return target


def back_up_and_tidy(database: Path, *, keep: int | None, now: datetime) -> tuple[Path, list[Path]]:
    """Write a backup; then remove all but `keep` backups (None: keep all) and old copies made by migrations.

    Return the new backup and the backups that were removed. Raises DatabaseError.
    """
    written = back_up(database, now=now)
    removed = [] if keep is None else keep_newest(database, keep, newest=written)
    remove_old_migration_copies(database, now)
    return written, removed


def keep_newest(database: Path, keep: int, *, newest: Path) -> list[Path]:
    """Remove the oldest backups so that `keep` are left, including `newest`; return the removed ones.

    Only files named by `back_up` are counted and removed. Raises DatabaseError.
    """
    directory = newest.parent
    name = Path(os.path.realpath(database)).name
    with translated_errors(directory):
        there = [each.name for each in directory.iterdir() if each.is_file() and not each.is_symlink()]
        removed = [directory / each for each in surplus(name, there, newest=newest.name, keep=keep)]
        for path in removed:
            path.unlink(missing_ok=True)  # another run may have removed it
    return removed


def remove_old_migration_copies(database: Path, now: datetime) -> None:
    """Remove the copies that migrations made beside the database more than 30 days ago.

    A copy that can't be removed is logged: it only takes space, so the command does not fail.
    """
    path = Path(os.path.realpath(database))
    limit = (now - MIGRATION_COPY_LIFE).timestamp()
    try:
        for each in path.parent.iterdir():
            if is_migration_copy(path.name, each.name) and each.lstat().st_mtime < limit:
                each.unlink(missing_ok=True)
                _log.info("removed %s, which a migration made more than 30 days ago", each)
    except OSError as error:
        _log.warning("could not remove old copies of migrations beside %s: %s", path, error)
