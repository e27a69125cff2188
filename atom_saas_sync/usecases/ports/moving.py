"""Copy everything from one database to another, of the same or another engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

MovedRow = Mapping[str, str | int | float | bytes | None]


class RowsOut(Protocol):
    """One snapshot of a database."""

    def tables(self) -> tuple[str, ...]:
        """Return the tables, each after those that it refers to."""

    def rows(self, table: str) -> Iterator[MovedRow]:
        """Yield the rows of a table, the oldest first: times as text, flags as 0 or 1."""


class RowsIn(Protocol):
    """The transaction that fills an empty database; at its end, searches find the copied skills."""

    def write(self, table: str, rows: Iterable[MovedRow]) -> int:
        """Write the rows of a table and read them back; return their number.

        Columns that only the other engine has are left out. Raises DatabaseError if the rows differ.
        """
