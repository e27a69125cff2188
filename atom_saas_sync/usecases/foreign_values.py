"""Explain an unforeseen error by values that another program stored: SQLite accepts any type in any column."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from atom_saas_sync.errors import AtomSyncError, DatabaseError

if TYPE_CHECKING:
    from atom_saas_sync.usecases.ports.engine import Engine


def explained(engine: Engine) -> DatabaseError | None:
    """Return the error to report in place of a bug if the database has such values, otherwise None."""
    try:
        found = engine.foreign_values()
    except AtomSyncError:
        return None
    if not found:
        return None
    others = f" (and {len(found) - 1} other columns)" if len(found) > 1 else ""
    file = engine.location if isinstance(engine.location, Path) else str(engine.location)
    return DatabaseError(
        f"the database {file} has values that only another program can have written: {found[0]}{others}",
        hint="`atom-sync db check` lists them; correct them or delete those rows with SQL, or restore a backup",
    )
