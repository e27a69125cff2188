"""What `doctor` queries: facts about the server, and the privileges of our role."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg

from atom_saas_sync.core.server_address import SCHEMA, ServerAddress, quoted
from atom_saas_sync.errors import ConfigError
from atom_saas_sync.model.server import ServerFacts
from atom_saas_sync.store.postgresql import schema
from atom_saas_sync.store.postgresql.backend import tables
from atom_saas_sync.store.postgresql.connection import Connection
from atom_saas_sync.store.postgresql.rows import Row

_SERVER = """
    SELECT current_user::text, d.datcollversion, pg_database_collation_actual_version(d.oid)
    FROM pg_database AS d WHERE d.datname = current_database()
"""
_MIGRATIONS = "schema_migration"
# System catalogues are readable without privileges, so this works before the first GRANT.
_IN_SCHEMA = """
    SELECT c.relname::text, p.privilege
    FROM pg_class AS c, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) WITH ORDINALITY AS p (privilege, place)
    WHERE c.relnamespace = to_regnamespace(%s) AND c.relkind = 'r' AND c.relname = ANY(%s)
        AND (p.privilege = 'SELECT' OR c.relname <> %s) AND NOT has_table_privilege(c.oid, p.privilege)
    ORDER BY c.relname, p.place
"""
# Everybody may call functions, unless an administrator has changed the default privileges.
_FUNCTIONS = """
    SELECT FROM pg_proc WHERE pronamespace = to_regnamespace(%s) AND prorettype <> 'trigger'::regtype
        AND NOT has_function_privilege(oid, 'EXECUTE') LIMIT 1
"""
_AROUND = """
    SELECT to_regnamespace(%(schema)s) IS NOT NULL,
        coalesce(has_schema_privilege(to_regnamespace(%(schema)s), 'USAGE'), false),
        coalesce(has_schema_privilege(to_regnamespace(%(schema)s), 'CREATE'), false),
        EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace(%(schema)s) AND relname = %(migrations)s),
        has_database_privilege(current_database(), 'CREATE'),
        has_schema_privilege('public', 'CREATE'), current_database()::text
"""

_OWNER = """
    SELECT coalesce(pg_get_userbyid(n.nspowner), current_user)::text,
        n.oid IS NULL OR has_schema_privilege(n.oid, 'USAGE')
    FROM (VALUES (to_regnamespace(%s))) AS named (oid) LEFT JOIN pg_namespace AS n ON n.oid = named.oid
"""


def examine(address: ServerAddress, *, busy_timeout_seconds: float) -> ServerFacts:
    """Connect and return what the server says about itself.

    Raises ConfigError for a server that cannot be used, such as one that is too old, and DatabaseError.
    """
    with Connection(address, busy_timeout_seconds=busy_timeout_seconds, writes=False) as ours:
        session = ours.session
        with ours.reading() as connection:
            row = connection.execute(_SERVER).fetchone()
            assert row is not None
            role, *collation = row
            lacking = tuple(_lacking(connection, address))
            owner, in_public = _in_public(connection, address)
        return ServerFacts(
            version=session.version,
            role=role,
            schema=address.schema,
            is_local=ours.address.is_local,
            sslmode=ours.address.sslmode,
            is_encrypted=bool(ours.connection.pgconn.ssl_in_use),
            clock_ahead_seconds=session.clock_ahead,
            is_standby=session.is_standby,
            pooling="none" if not session.is_pooled else "session" if _keeps_sessions(ours) else "transaction",
            collation=(collation[0], collation[1]),
            lacking=lacking,
            owner=owner,
            lacking_in_public=in_public,
            only_reads=session.only_reads and not session.is_standby,
        )


def _keeps_sessions(connection: Connection) -> bool:
    try:
        connection.require_session()
    except ConfigError:
        return False
    return True


def _in_public(connection: psycopg.Connection[Row], address: ServerAddress) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return the role that owns, or would own, our objects, and what it lacks on the Atom backend's tables."""
    row = connection.execute(_OWNER, (address.schema,)).fetchone()
    assert row is not None
    owner, may_look = row
    if address.schema != SCHEMA or not may_look:
        return owner, ()
    return owner, tuple(tables.lacking_rights(connection, owner))


def _lacking(connection: psycopg.Connection[Row], address: ServerAddress) -> Iterator[tuple[str, str]]:
    """Yield each privilege that our role lacks, for creating the tables or for using them."""
    names = {"schema": address.schema, "migrations": _MIGRATIONS}
    row = connection.execute(_AROUND, names).fetchone()
    assert row is not None
    is_there, may_use, may_create, is_filled, may_create_schema, may_create_views, database = row
    if not is_there:
        if not may_create_schema:
            yield "CREATE", f"DATABASE {quoted(database)}"
    elif not may_use:
        yield "USAGE", f"SCHEMA {address.schema}"
    if not is_filled:
        if is_there and not may_create:
            yield "CREATE", f"SCHEMA {address.schema}"
        if address.schema == SCHEMA and not may_create_views:
            yield "CREATE", "SCHEMA public"
        return
    for table, privilege in connection.execute(
        _IN_SCHEMA, (address.schema, list(schema.expected_columns()), _MIGRATIONS)
    ):
        yield privilege, f"TABLE {address.schema}.{table}"
    if connection.execute(_FUNCTIONS, (address.schema,)).fetchone() is not None:
        yield "EXECUTE", f"ALL FUNCTIONS IN SCHEMA {address.schema}"
