"""Reading all rows of a database, and filling an empty one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from atom_saas_sync.errors import DatabaseError
from atom_saas_sync.store.moving import STATES, TABLES, Checksum, MovedRow
from atom_saas_sync.store.sqlite import search_index
from atom_saas_sync.store.sqlite.bulk import bulk_write
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.store.sqlite.failures import translated_errors


class RowsOut:
    """One snapshot of a database."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    def tables(self) -> tuple[str, ...]:
        """Return the tables, each after those that it refers to."""
        return TABLES

    def rows(self, table: str) -> Iterator[MovedRow]:
        """Yield the rows of a table, the oldest first."""
        # Here, because otherwise the transaction of the other database would report it as a failure of its own.
        with translated_errors(self._path, (sqlite3.Error,)):
            columns, order = _columns(self._connection, table), _order(self._connection, table)
            for row in self._connection.execute(f"SELECT {', '.join(columns)} FROM {table}{order}"):  # noqa: S608 - our own names
                yield dict(zip(columns, row, strict=True))


class RowsIn:
    """The one transaction in which an empty database is filled."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def write(self, table: str, rows: Iterable[MovedRow]) -> int:
        """Write the rows of a table and read them again; return how many there are. Raises DatabaseError."""
        own = _columns(self._connection, table)
        if table in STATES:
            self._connection.execute(f"DELETE FROM {table}")  # noqa: S608 - our own names
        sent, arrived = Checksum(), Checksum()
        columns: tuple[str, ...] = ()
        for row in rows:
            columns = columns or tuple(each for each in own if each in row)
            values = tuple(row[each] for each in columns)
            self._connection.execute(
                f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",  # noqa: S608 - our own names
                values,
            )
            sent.add(values)
        if columns:
            for stored in self._connection.execute(f"SELECT {', '.join(columns)} FROM {table}"):  # noqa: S608 - our own names
                arrived.add(tuple(stored))
        if sent != arrived:
            raise DatabaseError(
                f"the rows of {table} did not arrive as they were sent",
                hint="nothing was copied; run `atom-sync db check` on the source",
            )
        return sent.rows

    def finish(self) -> None:
        """Build the full-text index."""
        self._connection.execute("INSERT INTO skill_fts(skill_fts) VALUES ('delete-all')")
        self._connection.execute(search_index.REBUILD)


@contextmanager
def moving_out(database: Database) -> Iterator[RowsOut]:
    """Open a snapshot of all rows."""
    with database.reading() as connection:
        yield RowsOut(connection, database.path)


@contextmanager
def moving_in(database: Database) -> Iterator[RowsIn]:
    """Open the transaction that fills an empty database. Raises DatabaseError if it is not empty."""
    with database.transaction() as connection, bulk_write(connection):
        for table in TABLES:
            if table not in STATES and connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone():  # noqa: S608 - our own names
                raise DatabaseError(
                    f"the database {database.path} is not empty: there are rows in {table}",
                    hint="nothing was changed; name a database without rows",
                )
        rows = RowsIn(connection)
        yield rows
        rows.finish()


def _columns(connection: sqlite3.Connection, table: str) -> tuple[str, ...]:
    """Return the columns that can be written; generated ones are not among them."""
    return tuple(row[0] for row in connection.execute("SELECT name FROM pragma_table_info(?)", (table,)))


def _order(connection: sqlite3.Connection, table: str) -> str:
    row = connection.execute("SELECT wr FROM pragma_table_list WHERE name = ?", (table,)).fetchone()
    return "" if row is None or row[0] else " ORDER BY rowid"
