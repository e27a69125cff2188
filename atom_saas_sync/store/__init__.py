"""The store's front door. Behind it is a room for each engine, which holds all SQL that is written for it.

Little is imported at the top: `status` comes in here at every start, and one engine is imported where it is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atom_saas_sync.core.location import Location
    from atom_saas_sync.usecases.ports.engine import Engine, Store


def engine_at(location: Location) -> Engine:
    """Return the engine of the database there, which need not exist; nothing is opened.

    Raises ConfigError if the engine's driver is not installed.
    """
    if isinstance(location, Path):
        from atom_saas_sync.store.sqlite.engine import SQLiteEngine

        return SQLiteEngine(location)
    from atom_saas_sync.store.postgresql import require_driver

    require_driver()
    from atom_saas_sync.store.postgresql.engine import PostgreSQLEngine

    return PostgreSQLEngine(location)


def open_store(
    location: Location,
    *,
    migrate: bool = True,
    read_only: bool = False,
    create: bool = True,
    adopt: bool | None = None,
    any_thread: bool = False,
) -> Store:
    """Open the database there; usecases/ports/engine.py describes the options.

    Raises DatabaseError, and ConfigError if the engine's driver is not installed.
    """
    return engine_at(location).open(
        migrate=migrate,
        read_only=read_only,
        create=create,
        adopt=adopt,
        any_thread=any_thread,
    )
