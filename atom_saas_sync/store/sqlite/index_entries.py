"""Update the full-text index after a batch has written or removed rows."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import msgspec

from atom_saas_sync.model.effects import WriteServed
from atom_saas_sync.store.sqlite import search_index
from atom_saas_sync.store.sqlite.search_index import same_words, words, words_of

_ENTRIES_AT_ONCE = 1024
_PARAMETERS_OF_ENTRY = 2 + len(search_index.FIELDS)

_decode_rows = msgspec.json.Decoder(list[tuple[int, str]]).decode


class Replaced(NamedTuple):
    """An overwritten row: its former text, the decoded text if available, and the last write."""

    text: str
    fields: Mapping[str, Any] | None
    written: WriteServed


class Indexed(NamedTuple):
    """What the index takes of a skill: its `words`, or its `text` if it is odd and has none."""

    words: tuple[str | None, ...] | None
    text: str


class _Entry(NamedTuple):
    """An entry of the full-text index to write or to `delete`."""

    command: str | None
    row: int
    words: tuple[str | None, ...] | None
    text: str


def unindex(connection: sqlite3.Connection, skill_ids: Sequence[str]) -> None:
    """Remove skills from the full-text index before their rows are changed or removed."""
    if skill_ids:
        connection.execute(search_index.UNINDEX, (json.dumps(skill_ids),))


def reindex(connection: sqlite3.Connection, changes: Mapping[str, Replaced]) -> None:
    """Update the full-text index for skills whose rows were overwritten.

    Only if the indexed text has changed: the index dominates the cost of a small write.
    """
    other = [skill_id for skill_id, change in changes.items() if not _surely_reads_the_same(change)]
    if not other:
        return
    rows = rows_with_ids(connection, "skill_id IN (SELECT value FROM json_each(?))", json.dumps(other))
    entries: list[_Entry] = []
    for row, skill_id in rows:
        before, fields, written = changes[skill_id]
        old, entry = words_of(before) if fields is None else words(fields), entry_of(row, indexed(written))
        if old is None or old != entry.words:
            entries += [_Entry("delete", row, old, before), entry]
    write_index(connection, entries)


def _surely_reads_the_same(change: Replaced) -> bool:
    fields = change.written.fields
    return change.fields is not None and fields is not None and same_words(change.fields, fields)


def rows_with_ids(connection: sqlite3.Connection, which: str, parameter: int | str) -> list[tuple[int, str]]:
    """Return the row id and skill id of the rows that match `which`, in order.

    As a single result row: sqlite3 releases the GIL at each row, and another thread may be reading pages.
    """
    found = connection.execute(
        "SELECT json_group_array(json_array(id, skill_id)) "  # noqa: S608 - constants
        f"FROM (SELECT id, skill_id FROM skill_cache WHERE {which} ORDER BY id)",
        (parameter,),
    ).fetchone()
    return _decode_rows(found[0])


def write_index(connection: sqlite3.Connection, entries: Sequence[_Entry]) -> None:
    """Write entries of the full-text index, in the order of their row ids."""
    for odd, some in groupby(entries, key=lambda entry: entry.words is None):
        if odd:
            rows = [(entry.command, entry.row, entry.text) for entry in some]
            connection.executemany(search_index.WRITE_ODD, rows)
        else:
            _write_words(connection, [(entry.command, entry.row, *(entry.words or ())) for entry in some])


def _write_words(connection: sqlite3.Connection, rows: Sequence[tuple[object, ...]]) -> None:
    for first in range(0, len(rows), _ENTRIES_AT_ONCE):
        some = rows[first : first + _ENTRIES_AT_ONCE]
        room = 1 << (len(some) - 1).bit_length()  # powers of two, so that few statements need to be compiled and kept
        nothing: list[object] = [None] * (_PARAMETERS_OF_ENTRY * room)
        values = [value for row in some for value in row]
        statement = search_index.write(room)
        connection.execute(statement, values + nothing[len(values) :])
        # A cached statement keeps references to its last parameters, here megabytes of text.
        connection.execute(statement, nothing)


def indexed(written: WriteServed) -> Indexed:
    """Return what the index takes of a written row."""
    found = words_of(written.text) if written.fields is None else words(written.fields)
    return Indexed(found, "" if found else written.text)


def entry_of(row: int, skill: Indexed) -> _Entry:
    """Return the index entry of a row."""
    return _Entry(None, row, skill.words, skill.text)
