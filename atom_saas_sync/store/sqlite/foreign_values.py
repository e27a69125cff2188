"""Values of a type that atom-sync never writes: SQLite lets other programs store anything in any column."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

from atom_saas_sync.store.sqlite import migrations, revisions

# What typeof() says of the values of each declared type.
_TYPES = {"TEXT": ("text",), "INTEGER": ("integer",), "REAL": ("real", "integer"), "BLOB": ("blob",)}
_LONGEST_KEY = 80


class Foreign(NamedTuple):
    """A column with such values: how many rows, and one of them with the type it has there."""

    table: str
    column: str
    rows: int
    row: str
    stored_as: str
    declared: str

    def __str__(self) -> str:
        """Say what is wrong, in one line."""
        others = f" and {self.rows - 1:,} more" if self.rows > 1 else ""
        what = "missing" if self.stored_as == "null" else f"stored as {self.stored_as}, not as {self.declared}"
        return f"{self.table}.{self.column} of row {self.row}{others} is {what}"


def foreign_values(connection: sqlite3.Connection) -> Iterator[Foreign]:
    """Yield the columns of our tables with values of another type than declared, or without one that is required.

    Columns and types are those that the database's migrations create. If there are none, each table is read once.
    """
    made = revisions.applied(connection)
    with closing(migrations.build([name for name in revisions.NAMES if name in made])) as model:
        for table, row in _tables(model):
            there = {name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))}
            columns = [each for each in _columns(model, table) if each.name in there]
            if columns:
                yield from _of_table(connection, table, row, columns)


class _Column(NamedTuple):
    name: str
    declared: str
    required: bool

    def wrong(self) -> str:
        """Return the condition that a row has a wrong value in it."""
        allowed = [*_TYPES[self.declared], *([] if self.required else ["null"])]
        listed = ", ".join(f"'{each}'" for each in allowed)
        return f'typeof("{self.name}") NOT IN ({listed})'


def _of_table(connection: sqlite3.Connection, table: str, row: str, columns: list[_Column]) -> Iterator[Foreign]:
    anywhere = " OR ".join(column.wrong() for column in columns)
    if connection.execute(f'SELECT 1 FROM "{table}" WHERE {anywhere} LIMIT 1').fetchone() is None:  # noqa: S608 - names of our own schema
        return
    for column in columns:
        # min() also decides from which of the rows typeof() is taken.
        count, first, stored_as = connection.execute(
            f'SELECT count(*), min({row}), typeof("{column.name}") FROM "{table}" WHERE {column.wrong()}'  # noqa: S608 - names of our own schema
        ).fetchone()
        if count:
            yield Foreign(table, column.name, count, str(first), stored_as, column.declared.lower())


def _tables(model: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """Yield our tables, each with the expression that names a row: its number, or the first part of its key."""
    for table, statement in model.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'skill_fts%' "
        "AND name NOT LIKE 'sqlite~_%' ESCAPE '~'"
    ).fetchall():
        row = "rowid"
        if "WITHOUT ROWID" in statement:
            (key,) = model.execute("SELECT name FROM pragma_table_info(?) WHERE pk = 1", (table,)).fetchone()
            row = f'substr(quote("{key}"), 1, {_LONGEST_KEY})'
        yield table, row


def _columns(model: sqlite3.Connection, table: str) -> list[_Column]:
    rows = model.execute(
        "SELECT name, upper(type), \"notnull\" OR (pk AND upper(type) != 'INTEGER') FROM pragma_table_info(?)", (table,)
    )
    return [_Column(name, declared, bool(required)) for name, declared, required in rows if declared in _TYPES]
