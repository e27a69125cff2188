"""Adopt a database that the Atom backend created, and give it back.

The backend's tables are rebuilt with our columns, with the same rows and ids. The original statements (of each table,
its indexes and triggers) are kept in `atom_sync_adopted`, to restore them later. Our tables have no foreign keys to the
backend's: a conflict or rating of a skill that is only cached would be rejected.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from msgspec import Struct

from atom_saas_sync.errors import DatabaseError
from atom_saas_sync.store.backend_tables import BY_NAME, NEVER_EXPIRES, NOW, Column, Table
from atom_saas_sync.store.names import SYNC_STATE_ID
from atom_saas_sync.store.sqlite import search_index
from atom_saas_sync.store.sqlite.revisions import ADOPTED

UNKNOWN_TIME = "1970-01-01T00:00:00Z"
"""The confirmation time of rows that were already in the caches."""

_ASIDE = "atom_sync_aside_"
_NEW_VERSION = "lower(hex(randomblob(16)))"
_AS_BLOB = "CAST(skill_data AS BLOB)"


def foreign_tables(connection: sqlite3.Connection, ours: Collection[str]) -> list[str]:
    """Return the tables that have a name of the backend's and are not `ours`."""
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rowid")
    return [name for (name,) in map(tuple, rows) if name in BY_NAME and name not in ours]


def refuse_other_shapes(
    connection: sqlite3.Connection, path: Path, tables: Sequence[str], ours: Mapping[str, Collection[str]]
) -> None:
    """Raise DatabaseError, naming table and column, unless these tables have the backend's form.

    `ours` are the columns of our form of each table.
    """
    for name in tables:
        problem = next(_differences(connection, BY_NAME[name], ours[name]), None)
        if problem is not None:
            raise DatabaseError(
                f"the database {path} holds a table {name} that another program made, and that is not the Atom "
                f"backend's: {problem}",
                hint="nothing was changed; set ATOM_SAAS_DATABASE_URL (or --database) to a file of its own, "
                f"or rename or remove that table {name}",
            )


def set_aside(connection: sqlite3.Connection, tables: Sequence[str]) -> dict[str, list[_Further]]:
    """Record the statements that created these tables, set their rows aside, and drop them.

    Returns the additional columns of each table: those that the backend's models did not have when this was written.
    """
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {ADOPTED} "
        "(table_name TEXT NOT NULL, type TEXT NOT NULL, name TEXT NOT NULL, sql TEXT NOT NULL)"
    )
    further = {}
    for name in tables:
        further[name] = [
            _Further.of(row)
            for row in connection.execute("SELECT * FROM pragma_table_xinfo(?) WHERE NOT hidden", (name,))
            if row["name"] not in BY_NAME[name].names
        ]
        connection.execute(
            f"INSERT INTO {ADOPTED} SELECT tbl_name, type, name, sql FROM sqlite_master "  # noqa: S608 - constants
            "WHERE tbl_name = ? AND sql IS NOT NULL ORDER BY type != 'table', rowid",
            (name,),
        )
        connection.execute(f"CREATE TABLE {_ASIDE}{name} AS SELECT * FROM {name} ORDER BY rowid")  # noqa: S608
        connection.execute(f"DROP TABLE {name}")
    return further


def take_over(connection: sqlite3.Connection, further: dict[str, list[_Further]]) -> None:
    """Fill our tables with the rows that were set aside, including additional columns."""
    connection.execute("INSERT INTO bulk_write (process) VALUES (1)")
    for name, columns in further.items():
        aside = f"{_ASIDE}{name}"
        has_rows = connection.execute(f"SELECT 1 FROM {aside}").fetchone()  # noqa: S608 - constants
        if name in _STATES and has_rows:
            connection.execute(f"DELETE FROM {name}")  # noqa: S608 - constants
        ours = {row["name"] for row in connection.execute("SELECT name FROM pragma_table_xinfo(?)", (name,))}
        for column in columns:
            if column.name not in ours:
                connection.execute(f"ALTER TABLE {name} ADD COLUMN {column.declaration}")
        values = {column: _VALUES.get((name, column), column) for column in BY_NAME[name].names}
        values |= {_quoted(column.name): _quoted(column.name) for column in columns}
        values |= _OUR_VALUES.get(name, {})
        connection.execute(
            f"INSERT INTO {name} ({', '.join(values)}) SELECT {', '.join(values.values())} "  # noqa: S608 - constants
            f"FROM {aside} WHERE true ORDER BY rowid {_ON_CONFLICT.get(name, '')}"
        )
        connection.execute(f"DROP TABLE {aside}")
        for statement in _AFTERWARDS.get(name, ()):
            connection.execute(statement)
    connection.execute("DELETE FROM bulk_write")


def give_back(connection: sqlite3.Connection, take_ours_back: Sequence[str]) -> list[str]:
    """Recreate the backend's tables as they were found, with the current rows, after ours were dropped.

    Returns their names.
    """
    made = connection.execute(f"SELECT table_name, type, sql FROM {ADOPTED} ORDER BY rowid").fetchall()  # noqa: S608
    statements = {row["table_name"]: row["sql"] for row in made if row["type"] == "table"}
    columns = {name: [_quoted(column) for column in _columns_in(sql)] for name, sql in statements.items()}
    for name, names in columns.items():
        values = ", ".join(_RETURNED.get(column, column) for column in names)
        connection.execute(f"CREATE TABLE {_ASIDE}{name} AS SELECT {values} FROM {name} ORDER BY rowid")  # noqa: S608
    for statement in take_ours_back:
        connection.execute(statement)
    for name, sql in statements.items():
        connection.execute(sql)
        connection.execute(f"INSERT INTO {name} ({', '.join(columns[name])}) SELECT * FROM {_ASIDE}{name}")  # noqa: S608
        connection.execute(f"DROP TABLE {_ASIDE}{name}")
    for row in made:
        if row["type"] != "table":
            connection.execute(row["sql"])
    connection.execute(f"DROP TABLE {ADOPTED}")
    return list(statements)


class _Further(Struct, frozen=True):
    """A column that only the backend's form of a table has."""

    name: str
    declaration: str

    @classmethod
    def of(cls, row: sqlite3.Row) -> _Further:
        """Return the column that a row of pragma_table_xinfo describes."""
        declaration = f"{_quoted(row['name'])} {row['type']}{' NOT NULL' if row['notnull'] else ''}"
        if row["dflt_value"] is not None:
            declaration += f" DEFAULT ({row['dflt_value']})"
        return cls(row["name"], declaration)


_STATES = {"sync_state", "websocket_state"}
"""Our tables have an initial row, which the backend's row replaces."""

_VALUES = {
    **{(table, column): f"coalesce({column}, {NOW})" for table in BY_NAME for column in ("created_at", "updated_at")},
    ("conflict_log", "local_data"): "coalesce(nullif(local_data, 'null'), '{}')",
    ("conflict_log", "remote_data"): "coalesce(nullif(remote_data, 'null'), '{}')",
    ("skill_cache", "skill_data"): f"coalesce(atom_sync_respelled({_AS_BLOB}), skill_data)",
}
_OUR_VALUES = {
    # Earlier resolutions are not applied again.
    "conflict_log": {"resolved": "resolved_at IS NOT NULL", "applied": "resolved_at IS NOT NULL"},
    "skill_ratings": {"version": _NEW_VERSION},
    "failed_rating_uploads": {"next_retry_at": f"CASE WHEN retry_count < max_retries THEN {NOW} END"},
}
_ON_CONFLICT = {
    # In a database of ours to which the backend added its rating tables, the newer rating wins.
    "skill_ratings": """
        ON CONFLICT (skill_id, user_id) DO UPDATE SET rating = excluded.rating, review = excluded.review,
            version = excluded.version, synced_to_saas = excluded.synced_to_saas, updated_at = excluded.updated_at
        WHERE julianday(excluded.updated_at) > julianday(updated_at)
    """,
}
_AFTERWARDS = {
    "skill_cache": (
        # Cached skills count as the marketplace's, confirmed at an unknown time: the first sync reads all of them
        # again.
        f"""
        INSERT OR IGNORE INTO skill_base (skill_id, wire_digest, content_digest, exec_digest, confirmed_at, version)
        SELECT skill_id, x'', coalesce(atom_sync_digest('content', {_AS_BLOB}), x''),
            coalesce(atom_sync_digest('exec', {_AS_BLOB}), x''), '{UNKNOWN_TIME}', atom_sync_version({_AS_BLOB})
        FROM skill_cache
        """,  # noqa: S608 - constants
        "INSERT INTO skill_fts(skill_fts) VALUES ('delete-all')",
        search_index.REBUILD,
    ),
    "sync_state": (
        f"""
        INSERT INTO sync_state (id)
        SELECT '{SYNC_STATE_ID}' WHERE NOT EXISTS (SELECT 1 FROM sync_state WHERE id = '{SYNC_STATE_ID}')
        """,  # noqa: S608 - constants
    ),
}
_RETURNED = {'"expires_at"': f"coalesce(expires_at, '{NEVER_EXPIRES}') AS expires_at"}


def _columns_in(statement: str) -> list[str]:
    """Return the columns of the table that a statement makes, which a row can be inserted with."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(statement)
        name = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchone()[0]
        rows = connection.execute("SELECT name FROM pragma_table_xinfo(?) WHERE NOT hidden", (name,))
        return [row[0] for row in rows]


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def _differences(connection: sqlite3.Connection, table: Table, ours: Collection[str]) -> Iterator[str]:
    """Yield how a table differs from the backend's."""
    found = {row["name"]: row for row in connection.execute("SELECT * FROM pragma_table_xinfo(?)", (table.name,))}
    for column in table.columns:
        yield from _column_differences(column, found.pop(column.name, None))
    if table.unique and not _is_unique(connection, table):
        yield f"{', '.join(table.unique)} is not unique"
    for name, row in found.items():
        if row["notnull"] and row["dflt_value"] is None:
            yield f"the further column {name} is NOT NULL without a default"
        if name in ours and name != "tenant_id":  # equivalent
            yield f"the further column {name} has the name of one of ours"


def _column_differences(column: Column, row: sqlite3.Row | None) -> Iterator[str]:
    if row is None:
        yield f"the column {column.name} is missing"
        return
    if _class_of(row["type"]) != _CLASSES[column.kind]:
        yield f"the column {column.name} is {row['type'] or 'untyped'}, not {_CLASSES[column.kind]}"
    if bool(row["pk"]) != (column.name == "id"):
        yield f"the column {column.name} is {'not ' if column.name == 'id' else ''}the primary key"
    if column.name != "id" and bool(row["notnull"]) != column.required:
        yield f"the column {column.name} is {'not ' if column.required else ''}NOT NULL"


_CLASSES = {"integer": "integer or boolean", "boolean": "integer or boolean", "text": "text", "time": "time"}
_CLASSES["json"] = "JSON"


def _class_of(declared: str) -> str:
    """Return the class of a declared type, by the names that the backend's models use on SQLite."""
    upper = declared.upper()
    for words, meant in (
        (("INT", "BOOL"), "integer"),
        (("JSON",), "json"),
        (("DATE", "TIME"), "time"),
        (("CHAR", "TEXT", "CLOB", "STRING"), "text"),
    ):
        if any(word in upper for word in words):
            return _CLASSES[meant]
    return upper


def _is_unique(connection: sqlite3.Connection, table: Table) -> bool:
    indexes = connection.execute(
        'SELECT name FROM pragma_index_list(?) WHERE "unique" AND NOT partial', (table.name,)
    ).fetchall()
    wanted = set(table.unique)
    return any(
        {row["name"] for row in connection.execute("SELECT name FROM pragma_index_info(?)", (index["name"],))} == wanted
        for index in indexes
    )
