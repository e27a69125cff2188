"""Small facts that outlive a process."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import psycopg

from atom_saas_sync.store.postgresql.connection import Connection
from atom_saas_sync.store.postgresql.rows import Row

READ = "SELECT name, value FROM fact WHERE name = ANY(%(facts)s)"


def ask_fact(database: Connection, name: str) -> str | None:
    """Return a stored fact, outside of a transaction."""
    rows = database.ask(READ, {"facts": [name]})
    return rows[0]["value"] if rows else None


def set_fact(connection: psycopg.Connection[Row], name: str, value: str, now: datetime) -> None:
    """Store a fact, replacing any earlier value."""
    connection.execute(
        "INSERT INTO fact AS f (name, value, updated_at) VALUES (%s, %s, %s) ON CONFLICT (name) DO UPDATE "
        "SET value = excluded.value, updated_at = excluded.updated_at WHERE f.value <> excluded.value",
        (name, value, now.replace(microsecond=0)),
    )


def get_fact(connection: psycopg.Connection[Row], name: str) -> str | None:
    """Return a stored fact."""
    return get_facts(connection, [name]).get(name)


def get_facts(connection: psycopg.Connection[Row], names: Sequence[str]) -> dict[str, str]:
    """Return the stored ones of these facts."""
    return dict(connection.execute(READ, {"facts": list(names)}).fetchall())


def drop_fact(connection: psycopg.Connection[Row], name: str) -> psycopg.Cursor[Row]:
    """Forget a fact; a row comes back if there was one."""
    return connection.execute("DELETE FROM fact WHERE name = %s RETURNING 1", (name,))
