"""Create the objects in `public`: a view for each name, or triggers on the Atom backend's own table."""

from __future__ import annotations

from datetime import datetime

import psycopg

from atom_saas_sync.core.server_address import ServerAddress
from atom_saas_sync.errors import DatabaseError
from atom_saas_sync.store.backend_tables import BY_NAME
from atom_saas_sync.store.postgresql import schema
from atom_saas_sync.store.postgresql.backend import rows, tables, triggers
from atom_saas_sync.store.postgresql.rows import Row


def refuse_unfit(connection: psycopg.Connection[Row], address: ServerAddress) -> list[str]:
    """Return the backend's tables to share. Raises DatabaseError if something prevents that."""
    there = tables.standing(connection, tuple(schema.public_views()))
    if foreign := sorted(f"public.{name}" for name, each in there.items() if each.is_foreign):
        raise DatabaseError(
            f"the database {address} has {', '.join(foreign)} of another program; nothing was changed",
            hint="name another database, or another schema with ?schema= in ATOM_SAAS_DATABASE_URL, which has no "
            "views in public",
        )
    waiting = [there[name] for name in BY_NAME if name in there and there[name].can_be_shared]
    names = [each.name for each in waiting]
    tables.refuse_other_shapes(connection, address, names)
    tables.require_rights(connection, address, waiting)
    tables.require_tenant(connection, address, names)
    return names


def make(connection: psycopg.Connection[Row], names: list[str], now: datetime) -> None:
    """Create the missing views, and share these tables of the backend."""
    there = tables.standing(connection, tuple(schema.public_views()))
    for name, script in schema.public_views().items():
        if name not in there:
            _execute(connection, script)
    for name in names:
        for statement in (*triggers.unmake(name), *triggers.make(name, tables.declared_types(connection, name))):
            _execute(connection, statement)
    if names:
        for statement in triggers.make_last(tables.shared(connection)):
            _execute(connection, statement)
        rows.join(connection, names, now)


def unmake(connection: psycopg.Connection[Row]) -> list[str]:
    """Drop our views and stop sharing the backend's tables, which stay as they are; return those."""
    there = tables.standing(connection, tuple(schema.public_views()))
    for statement in (*(each for name in BY_NAME for each in triggers.unmake(name)), *triggers.UNMAKE_LAST):
        _execute(connection, statement)
    for name in reversed(schema.public_views()):
        if name in there and there[name].is_our_view:
            _execute(connection, f"DROP VIEW public.{name}")
    for name in schema.public_functions():
        _execute(connection, f"DROP FUNCTION IF EXISTS {name}")
    return [name for name in BY_NAME if name in there and there[name].is_shared]


def _execute(connection: psycopg.Connection[Row], statements: str) -> None:
    connection.cursor().execute(statements.encode(), binary=False)
