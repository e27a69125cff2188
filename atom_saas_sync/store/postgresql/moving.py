"""Read all rows of a database, and fill an empty one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from math import isfinite

import psycopg

from atom_saas_sync.core.server_address import ServerAddress
from atom_saas_sync.errors import DatabaseError
from atom_saas_sync.store.moving import EXACT, STATES, TABLES, Checksum, MovedRow, Value
from atom_saas_sync.store.postgresql import skill_text
from atom_saas_sync.store.postgresql.backend.rows import mirrored
from atom_saas_sync.store.postgresql.backend.tables import shared
from atom_saas_sync.store.postgresql.database import Database
from atom_saas_sync.store.postgresql.failures import translated_errors
from atom_saas_sync.store.postgresql.link import take_time
from atom_saas_sync.store.postgresql.rows import Row
from atom_saas_sync.times import format_exact_time, format_time, parse_time

_ROWS_AT_ONCE = 500
_COLUMNS = """
    SELECT attname, format_type(atttypid, NULL) AS type, atttypmod = 0 AS seconds, attidentity <> '' AS identity,
        attnotnull AS required
    FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
    ORDER BY attnum
"""


class RowsOut:
    """One snapshot of a database."""

    def __init__(self, connection: psycopg.Connection[Row], address: ServerAddress) -> None:
        self._connection = connection
        self._address = address

    def tables(self) -> tuple[str, ...]:
        """Return the tables, each after those that it references."""
        return TABLES

    def rows(self, table: str) -> Iterator[MovedRow]:
        """Yield the rows of a table, oldest first."""
        # Here, because otherwise the transaction of the other database would report it as a failure of its own.
        with translated_errors(self._address), self._connection.cursor(f"moving_{table}") as cursor:
            columns = self._connection.execute(_COLUMNS, (table,)).fetchall()
            names = [row["attname"] for row in columns]
            order = "".join(f" ORDER BY {row['attname']}" for row in columns if row["identity"])
            exact = EXACT.get(table, set())
            cursor.itersize = _ROWS_AT_ONCE
            for row in cursor.execute(f"SELECT {', '.join(names)} FROM {table}{order}", binary=True):  # noqa: S608 - our own names
                yield {name: _plain(value, name in exact) for name, value in zip(names, row, strict=True)}


class RowsIn:
    """The one transaction in which an empty database is filled."""

    def __init__(self, connection: psycopg.Connection[Row]) -> None:
        self._connection = connection

    def write(self, table: str, rows: Iterable[MovedRow]) -> int:
        """Write the rows of a table and read them back; return their number. Raises DatabaseError."""
        own = {row["attname"]: row for row in self._connection.execute(_COLUMNS, (table,)).fetchall()}
        if table in STATES:
            self._connection.execute(f"DELETE FROM {table}")  # noqa: S608 - our own names
        iterator = iter(rows)
        first = next(iterator, None)
        if first is None:
            return 0
        columns = [name for name in own if name in first]
        readers = [_reader(own[name]) for name in columns]
        sent, arrived = Checksum(), Checksum()
        with self._connection.cursor().copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types([own[name]["type"] for name in columns])
            while first is not None:
                values = [read(first[name]) for read, name in zip(readers, columns, strict=True)]
                copy.write_row(values)
                sent.add([_comparable(value) for value in values])
                first = next(iterator, None)
        with self._connection.cursor(f"arrived_{table}") as cursor:
            cursor.itersize = _ROWS_AT_ONCE
            for row in cursor.execute(f"SELECT {', '.join(columns)} FROM {table}", binary=True):  # noqa: S608 - our own names
                arrived.add([_comparable(value) for value in row])
        if sent != arrived:
            raise DatabaseError(
                f"the rows of {table} did not arrive as they were sent",
                hint="nothing was copied; run `atom-sync db check` on the source",
            )
        for name, column in own.items():
            if column["identity"]:
                self._connection.execute(
                    f"SELECT setval(pg_get_serial_sequence(%s, %s), max({name})) FROM {table}",  # noqa: S608 - our own names
                    (table, name),
                )
        return sent.rows

    def finish(self) -> None:
        """Extract from the texts what searches and the view need."""
        self._connection.execute("INSERT INTO skill_due SELECT skill_id FROM skill_cache ON CONFLICT DO NOTHING")
        skill_text.read_due(self._connection)
        skill_text.forget_merging(self._connection)


def _take_time(connection: psycopg.Connection[Row]) -> None:
    """Lift the limits of this transaction: a table is one statement, and the other database may pause for its index."""
    take_time(connection)
    connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")


@contextmanager
def moving_out(database: Database) -> Iterator[RowsOut]:
    """Open a snapshot of all rows."""
    with database.reading() as connection:
        _take_time(connection)
        yield RowsOut(connection, database.address)


@contextmanager
def moving_in(database: Database) -> Iterator[RowsIn]:
    """Open the transaction that fills an empty database. Raises DatabaseError if it is not empty."""
    with database.transaction(bulk=True) as connection:
        _take_time(connection)
        for table in TABLES:
            if table not in STATES and connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone():  # noqa: S608 - our own names
                raise DatabaseError(
                    f"the database {database.address} is not empty: there are rows in {table}",
                    hint="nothing was changed; name a database without rows",
                )
        rows = RowsIn(connection)
        with mirrored(connection, shared(connection, database.schema)):
            yield rows
            rows.finish()


def _plain(value: object, is_exact: bool) -> Value:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, datetime):
        return format_exact_time(value) if is_exact else format_time(value)
    assert value is None or isinstance(value, str | int | float | bytes)
    return value


def _reader(column: Row) -> Callable[[Value], object]:
    """Return a converter to a column's values; other programs may have written anything there."""
    read, instead = _READERS[column["type"].partition(" with")[0]]

    def value_of(value: Value) -> object:
        found = None if value is None else read(value)
        if isinstance(found, datetime) and column["seconds"]:
            found = found.replace(microsecond=0)
        return instead if found is None and column["required"] else found

    return value_of


def _text(value: Value) -> str:
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return text.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def _integer(value: Value) -> int | None:
    number = _number(value)
    return None if number is None else int(number)


def _number(value: Value) -> float | None:
    try:
        number = value if isinstance(value, int | float) else float(_text(value))
    except ValueError:
        return None
    return number if isfinite(number) else None


def _bytes(value: Value) -> bytes:
    return value if isinstance(value, bytes) else _text(value).encode()


# How to read a value of each type, and the substitute for an unreadable one in a required column.
_READERS: Mapping[str, tuple[Callable[[Value], object], object]] = {
    "bigint": (_integer, 0),
    "boolean": (bool, False),
    "bytea": (_bytes, b""),
    "double precision": (_number, 0.0),
    "integer": (_integer, 0),
    "text": (_text, ""),
    "timestamp": (parse_time, datetime(1970, 1, 1, tzinfo=UTC)),
}


def _comparable(value: object) -> object:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value
