"""Names of database backups, and which of them are deleted."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import PurePath

BACKUPS_KEPT = 7
"""Number of daily backups that the scheduled jobs keep."""

MIGRATION_COPY_LIFE = timedelta(days=30)
"""How long the copy that a migration makes beside the database is kept."""

_TIME = "%Y%m%dT%H%M%SZ"
_MIGRATION_COPY = r"\.before-(?:downgrade-of-)?\d{4}_\w+(?:\.\d+)?\.bak"


def backup_name(database: str, now: datetime, taken: Iterable[str], *, suffix: str = ".db") -> str:
    """Return a name for a backup of this database file: with the time, and with a number if that is `taken`."""
    stem = f"{PurePath(database).stem}-{now.astimezone(UTC).strftime(_TIME)}"
    names, number = set(taken), 1
    while (name := f"{stem}{f'-{number}' if number > 1 else ''}{suffix}") in names:
        number += 1
    return name


def surplus(database: str, names: Iterable[str], *, newest: str, keep: int, suffix: str = ".db") -> list[str]:
    """Return the backups of this database to delete so that `keep` are kept, oldest first.

    `newest` was just made and stays, even if others have a later time in their names. Names not made by `backup_name`
    are neither counted nor returned.
    """
    pattern = re.compile(re.escape(PurePath(database).stem) + r"-(\d{8}T\d{6}Z)(?:-(\d+))?" + re.escape(suffix))
    found = [(match[1], int(match[2] or 1), name) for name in names if (match := pattern.fullmatch(name))]
    older = [name for *_, name in sorted(found) if name != newest]
    return older[: max(0, len(older) - (keep - 1))]


def is_migration_copy(database: str, name: str) -> bool:
    """Tell whether a file is named like the copy of this database that an upgrade or a downgrade makes."""
    return name.startswith(database) and re.fullmatch(_MIGRATION_COPY, name[len(database) :]) is not None
