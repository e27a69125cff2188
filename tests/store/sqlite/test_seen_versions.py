"""Which versions were ever seen: a sync and the trigger for other programs remember the same."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atom_saas_sync.core.canonical import version_from_fields, version_key
from atom_saas_sync.core.gate.admission import admitted_before
from atom_saas_sync.model.effects import SetBase
from atom_saas_sync.store.sqlite.bases import set_bases
from atom_saas_sync.store.sqlite.bulk import bulk_transaction
from atom_saas_sync.store.sqlite.database import Database

NOW = datetime(2026, 2, 19, 12, 0, tzinfo=UTC)
IDS = ("a", "@scope/näme", 'with "quotes" and \\', "\N{GRINNING FACE}")
NEW = {name: version_from_fields(name, {"skill_id": name, "name": "new", "code": name}) for name in IDS}
SAME = "the new version"
"""Stands for the content digest of the version that comes."""

digests = st.sampled_from([b"1" * 32, b"2" * 32])
contents = st.sampled_from([b"1" * 32, b"2" * 32, SAME])
versions = st.sampled_from(["1", "2"])
perhaps = st.none() | st.sampled_from(["2026-02-01T00:00:00.000000Z", "2026-02-02T00:00:00.000000Z"])
signatures = st.none() | st.sampled_from([b"signed 1", b"signed 2"])
stored = st.tuples(st.sampled_from(IDS), contents, digests, versions, perhaps, signatures)
INSERT_SEEN = (
    "INSERT INTO skill_seen (skill_id, content_digest, exec_digest, version, admitted_at, signature, seen_at) "
    "VALUES (?, ?, ?, ?, ?, ?, 'then')"
)
INSERT_BASE = (
    "INSERT INTO skill_base (skill_id, content_digest, exec_digest, version, admitted_at, signature, wire_digest, "
    "confirmed_at) VALUES (?, ?, ?, ?, ?, ?, x'00', 'then')"
)
Row = tuple[str, bytes | str, bytes, str, str | None, bytes | None]


def filled(connection: sqlite3.Connection, statement: str, rows: list[Row]) -> None:
    connection.executemany(statement, [(row[0], digest_of(row), *row[2:]) for row in rows])


def digest_of(row: Row) -> bytes:
    return row[1] if isinstance(row[1], bytes) else NEW[row[0]].content_digest


def remembered(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
    found = connection.execute(
        "SELECT skill_id, content_digest, exec_digest, version, first_seen_at, admitted_at, signature FROM skill_seen"
    )
    return sorted(map(tuple, found), key=repr)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with Database.open(Path(tmp_path_factory.mktemp("seen"), "atom.db")) as opened:
        yield opened


@given(
    seen=st.lists(stored, max_size=8, unique_by=lambda row: (row[0], digest_of(row))),
    bases=st.lists(stored, max_size=4, unique_by=lambda row: row[0]),
)
def test_a_sync_remembers_what_the_trigger_does(database: Database, seen: list[Row], bases: list[Row]) -> None:
    def after(write: str) -> list[tuple[object, ...]]:
        with bulk_transaction(database) as connection:
            connection.execute("DELETE FROM skill_base")
            connection.execute("DELETE FROM skill_seen")
            filled(connection, INSERT_SEEN, seen)
            filled(connection, INSERT_BASE, bases)
            if write == "a sync":
                effects = [
                    SetBase(row[0], admitted_before(NEW[row[0]]), version_key(NEW[row[0]].fields), None, True, "none")
                    for row in bases
                ]
                set_bases(connection, effects, NOW, page=1, signer=None)
            else:
                connection.execute("DELETE FROM bulk_write")
                connection.executemany(
                    "UPDATE skill_base SET content_digest = ? WHERE skill_id = ?",
                    [(NEW[row[0]].content_digest, row[0]) for row in bases],
                )
            return remembered(connection)

    assert after("a sync") == after("another program")
