"""The objects in `public` with the names shared with the Atom backend, and whether its tables can be shared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import psycopg
from msgspec import Struct

from atom_saas_sync.core.server_address import SCHEMA, ServerAddress
from atom_saas_sync.errors import DatabaseError
from atom_saas_sync.store.backend_tables import BY_NAME, Column, Table
from atom_saas_sync.store.postgresql.backend.triggers import ON_OURS, ON_THEIRS, number
from atom_saas_sync.store.postgresql.failures import no_tenant
from atom_saas_sync.store.postgresql.rows import Row

RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRIGGER")

# A site may keep these private: then ratings stay in our schema.
_OPTIONAL = {"skill_ratings", "failed_rating_uploads"}
_STANDING = """
    SELECT c.relname AS name, c.relkind IN ('r', 'p') AS is_table,
        EXISTS (
            SELECT FROM pg_rewrite AS r
            JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
            JOIN pg_class AS o ON d.refclassid = 'pg_class'::regclass AND o.oid = d.refobjid
            WHERE r.ev_class = c.oid AND c.relkind = 'v' AND o.relnamespace = to_regnamespace('atom_sync')
        ) AS is_our_view,
        (SELECT count(*) FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid
            WHERE p.pronamespace = to_regnamespace('atom_sync') AND (t.tgrelid = c.oid AND t.tgname = ANY(%(theirs)s)
                OR t.tgrelid = to_regclass('atom_sync.' || c.relname) AND t.tgname = ANY(%(ours)s))) AS triggers,
        CASE WHEN c.relkind IN ('r', 'p')
            THEN ARRAY(SELECT r FROM unnest(%(rights)s::text[]) AS r
                WHERE NOT has_table_privilege(coalesce(%(role)s::name, current_user), c.oid, r))
        END AS lacking
    FROM pg_class AS c WHERE c.relnamespace = to_regnamespace('public') AND c.relname = ANY(%(names)s)
"""
_COLUMNS = """
    SELECT a.attname AS name, format_type(a.atttypid, NULL) AS type, format_type(a.atttypid, a.atttypmod) AS declared,
        a.attnotnull AS required, a.atthasdef OR a.attidentity <> '' AS has_default
    FROM pg_attribute AS a WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped
"""
_KEYS = """
    SELECT i.indisprimary, ARRAY(
        SELECT a.attname::text FROM pg_attribute AS a WHERE a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey))
    FROM pg_index AS i WHERE i.indrelid = %s::regclass AND i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL
"""
_TYPES = {
    "integer": {"smallint", "integer", "bigint"},
    "boolean": {"boolean"},
    "text": {"text", "character varying"},
    "time": {"timestamp with time zone", "timestamp without time zone"},
    "json": {"jsonb", "json"},
}


class Standing(Struct, frozen=True):
    """An object in `public` with one of the shared names."""

    name: str
    is_table: bool
    is_our_view: bool
    is_shared: bool
    """Whether it is a table of the backend that we write in place."""
    lacking: tuple[str, ...]
    """The privileges on a table that the role lacks."""

    @property
    def can_be_shared(self) -> bool:
        """Tell whether it is a table that must be shared but is not yet."""
        return self.name in BY_NAME and self.is_table and not self.is_shared and not self._is_kept_away

    @property
    def is_foreign(self) -> bool:
        """Tell whether it conflicts with our objects."""
        return not self.is_our_view and not (self.is_table and self.name in BY_NAME)

    @property
    def _is_kept_away(self) -> bool:
        return self.name in _OPTIONAL and bool(self.lacking)


def standing(
    connection: psycopg.Connection[Row], names: Sequence[str] = tuple(BY_NAME), *, role: str | None = None
) -> dict[str, Standing]:
    """Return the objects that have these names; what is lacking is that of `role`, by default of this one."""
    values = {
        "names": list(names),
        "rights": list(RIGHTS),
        "ours": list(ON_OURS),
        "theirs": list(ON_THEIRS),
        "role": role,
    }
    return {
        row["name"]: Standing(
            row["name"],
            is_table=row["is_table"],
            is_our_view=row["is_our_view"],
            is_shared=row["is_table"] and row["name"] in BY_NAME and row["triggers"] == number(row["name"]),
            lacking=tuple(row["lacking"] or ()),
        )
        for row in connection.execute(_STANDING, values)
    }


def shared(connection: psycopg.Connection[Row], schema: str = SCHEMA) -> list[str]:
    """Return the tables of the backend that are shared with this schema of ours."""
    if schema != SCHEMA:
        return []
    there = standing(connection)
    return [name for name in BY_NAME if name in there and there[name].is_shared]


HAS_TABLES = f"""
    EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace('public') AND relkind IN ('r', 'p')
        AND relname IN ({", ".join(f"'{name}'" for name in BY_NAME)}))
"""
"""SQL that tells whether the backend has its own tables."""


def origin(connection: psycopg.Connection[Row], schema: str) -> str:
    """Return `backend` if there are tables of the backend that are or will be shared, otherwise `atom-sync`."""
    if schema != SCHEMA:
        return "atom-sync"
    row = connection.execute(f"SELECT {HAS_TABLES}").fetchone()
    return "backend" if row is not None and row[0] else "atom-sync"


def refuse_other_shapes(connection: psycopg.Connection[Row], address: ServerAddress, names: Sequence[str]) -> None:
    """Raise DatabaseError, naming table and column, unless these tables have the backend's form."""
    for name in names:
        problem = next(_differences(connection, BY_NAME[name]), None)
        if problem is not None:
            raise DatabaseError(
                f"the database {address} has a table public.{name} of another program, and it is not the Atom "
                f"backend's: {problem}",
                hint="nothing was changed; name another database in ATOM_SAAS_DATABASE_URL, or another schema with "
                f"?schema=, or rename that table {name}",
            )


def require_rights(connection: psycopg.Connection[Row], address: ServerAddress, tables: Sequence[Standing]) -> None:
    """Raise DatabaseError with the GRANT unless this role may write to these tables and create triggers on them."""
    names = [f"public.{each.name}" for each in tables if each.lacking]
    sequences = lacking_sequences(connection, [each.name for each in tables])
    if not names and not sequences:
        return
    user = connection.info.user
    grants = []
    if names:
        grants.append(f'GRANT {", ".join(RIGHTS)} ON {", ".join(names)} TO "{user}";')
    if sequences:
        grants.append(f'GRANT USAGE ON SEQUENCE {", ".join(sequences)} TO "{user}";')
    raise DatabaseError(
        f"the role {user} may not write the Atom backend's tables in the database {address}; nothing was changed",
        hint=f"run as their owner: {' '.join(grants)}",
    )


def lacking_sequences(
    connection: psycopg.Connection[Row], names: Sequence[str], *, role: str | None = None
) -> list[str]:
    """Return the sequences of these tables' ids that the role (by default this one) may not use."""
    found = connection.execute(
        "SELECT DISTINCT s.name FROM unnest(%(tables)s::text[]) AS t (name), "
        "pg_get_serial_sequence(t.name, 'id') AS s (name) "
        "WHERE NOT has_sequence_privilege(coalesce(%(role)s::name, current_user), s.name, 'USAGE') ORDER BY 1",
        {"tables": [f"public.{name}" for name in names], "role": role},
    ).fetchall()
    return [row[0] for row in found]


def lacking_rights(connection: psycopg.Connection[Row], role: str) -> Iterator[tuple[str, str]]:
    """Yield each privilege on the backend's tables that `role`, the owner of our functions, lacks to share them."""
    there = standing(connection, role=role)
    needed = [name for name in BY_NAME if name in there and (there[name].can_be_shared or there[name].is_shared)]
    for name in needed:
        for privilege in there[name].lacking:
            if privilege != "TRIGGER" or there[name].can_be_shared:
                yield privilege, f"TABLE public.{name}"
    yield from (("USAGE", f"SEQUENCE {name}") for name in lacking_sequences(connection, needed, role=role))


def require_tenant(connection: psycopg.Connection[Row], address: ServerAddress, names: Sequence[str]) -> None:
    """Raise DatabaseError unless rows of the tenant `default` can be written, which is tried and rolled back."""
    if "skill_cache" not in names:
        return
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(
                "INSERT INTO public.skill_cache (skill_id, skill_data, expires_at, created_at, updated_at, tenant_id, "
                "hit_count) VALUES ('atom-sync: is there a tenant?', '{}', now(), now(), now(), 'default', 0)"
            )
    except psycopg.errors.ForeignKeyViolation as error:
        raise no_tenant(address) from error


def declared_types(connection: psycopg.Connection[Row], name: str) -> dict[str, str]:
    """Return the declared type of each column of a table of the backend."""
    return {row["name"]: row["declared"] for row in connection.execute(_COLUMNS, (f"public.{name}",)).fetchall()}


def _differences(connection: psycopg.Connection[Row], table: Table) -> Iterator[str]:
    found = {row["name"]: row for row in connection.execute(_COLUMNS, (f"public.{table.name}",)).fetchall()}
    keys = connection.execute(_KEYS, (f"public.{table.name}",)).fetchall()
    for column in table.columns:
        yield from _column_differences(column, found.pop(column.name, None))
    if (True, ["id"]) not in [tuple(row) for row in keys]:
        yield "the column id is not the primary key"
    if table.unique and not any(set(columns) == set(table.unique) for _, columns in keys):
        yield f"{', '.join(table.unique)} is not unique"
    for name, row in found.items():
        if row["required"] and not row["has_default"]:
            yield f"the further column {name} is NOT NULL without a default"


def _column_differences(column: Column, row: Row | None) -> Iterator[str]:
    if row is None:
        yield f"the column {column.name} is missing"
        return
    if row["type"] not in _TYPES[column.kind]:
        yield f"the column {column.name} is {row['type']}, not {column.kind}"
    if column.name != "id" and row["required"] != column.required:
        yield f"the column {column.name} is {'not ' if column.required else ''}NOT NULL"
