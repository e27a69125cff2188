"""Conversion of values to and from PostgreSQL: rows with names, times in UTC, and arbitrary text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from struct import Struct, unpack
from typing import Any

import psycopg
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format
from psycopg.types.array import ListBinaryDumper, ListDumper
from psycopg.types.string import StrBinaryDumper, StrDumperUnknown

from atom_saas_sync.errors import DatabaseError

# Of an array in PostgreSQL's binary format: dimensions, whether it has NULLs, the elements' type, length, first index.
_HEAD = Struct("!IIIII")
_SIZE = Struct("!i")

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_HALVES = re.compile("[\ud800-\udfff]")
_REPLACED = "\N{REPLACEMENT CHARACTER}"


class Row(tuple[Any, ...]):
    """A row with access by index or name, like sqlite3.Row."""

    __slots__ = ()
    names: dict[str, int]

    def __getitem__(self, key: Any) -> Any:  # noqa: ANN401 - a tuple's and a mapping's in one
        try:
            return tuple.__getitem__(self, self.names[key] if isinstance(key, str) else key)
        except KeyError:
            raise DatabaseError(
                f"a table of the database has lost its column {key}",
                hint="`atom-sync db check` compares the tables with what this version expects",
            ) from None

    def keys(self) -> list[str]:
        """Return the names of the columns."""
        return list(self.names)

    def items(self) -> Iterator[tuple[str, Any]]:
        """Yield pairs of name and value."""
        return zip(self.names, self, strict=True)


@lru_cache(maxsize=512)
def _row_type(names: tuple[str, ...]) -> type[Row]:
    return type("Row", (Row,), {"names": {name: number for number, name in enumerate(names)}, "__slots__": ()})


def row_factory(cursor: psycopg.Cursor[Any] | psycopg.AsyncCursor[Any]) -> Callable[[Sequence[Any]], Row]:
    """Return a row factory for a cursor."""
    return _row_type(tuple(column.name for column in cursor.description or ()))


class BinaryCursor(psycopg.Cursor[Any]):
    """A cursor with binary results, which are cheaper for times and byte strings."""

    def __init__(self, connection: psycopg.Connection[Any], **options: Any) -> None:  # noqa: ANN401 - the driver's own
        super().__init__(connection, **options)
        self.format = Format.BINARY


class _MomentLoader(Loader):
    """Loads times as aware datetimes in UTC; None for infinity, BC and years after 9999."""

    format = Format.BINARY

    def load(self, data: Buffer) -> datetime | None:
        try:
            return _EPOCH + timedelta(microseconds=unpack("!q", data)[0])
        except OverflowError:
            return None


class _TextDumper(StrDumperUnknown):
    """Dumps text without what PostgreSQL cannot store: NUL and lone surrogates."""

    def dump(self, obj: str) -> Buffer | None:
        return _storable(obj)


class _BinaryTextDumper(StrBinaryDumper):
    """The same within arrays."""

    def dump(self, obj: str) -> Buffer | None:
        return _storable(obj)


class _ListDumper(ListBinaryDumper):
    """Dumps a list of texts in a few steps; the driver takes several for each text."""

    def dump(self, obj: list[Any]) -> Buffer | None:
        if not isinstance(self.sub_dumper, _BinaryTextDumper):
            return super().dump(obj)
        try:
            texts = [*map(str.encode, obj)]
        except (TypeError, UnicodeEncodeError):  # a NULL, a list in the list, or half a surrogate pair
            return super().dump(obj)
        if any([0 in each for each in texts]):  # noqa: C419 - a generator takes twice as long
            return super().dump(obj)
        number = len(texts)
        pieces = [_HEAD.pack(1, 0, self.sub_dumper.oid, number, 1)] * (1 + 2 * number)
        pieces[1::2] = map(_SIZE.pack, map(len, texts))
        pieces[2::2] = texts
        return b"".join(pieces)


def _storable(text: str) -> bytes:
    try:
        data = text.encode()
    except UnicodeEncodeError:
        data = _HALVES.sub(_REPLACED, text).encode()
    return data.replace(b"\0", _REPLACED.encode()) if 0 in data else data


def register(context: AdaptContext) -> None:
    """Register these conversions on a connection."""
    context.adapters.register_loader("timestamptz", _MomentLoader)
    context.adapters.register_dumper(str, _BinaryTextDumper)
    context.adapters.register_dumper(str, _TextDumper)  # the last one registered is used outside arrays
    context.adapters.register_dumper(list, _ListDumper)
    context.adapters.register_dumper(list, ListDumper)  # for lists of values whose types differ
