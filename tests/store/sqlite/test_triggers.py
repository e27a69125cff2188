"""The schema's triggers for other programs, which use plain SQL and know nothing about atom-sync."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from store_support import plain

from atom_saas_sync.core.canonical import decode_object
from atom_saas_sync.core.gate.admission import written_here
from atom_saas_sync.model.effects import Life, ReplaceServed
from atom_saas_sync.store.sqlite import migrations, revisions, search_index
from atom_saas_sync.store.sqlite.bulk import bulk_write
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.store.sqlite.index_entries import Replaced, reindex


@pytest.fixture
def other(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Return another program's connection to a database with two synced skills, `a` and `b`."""
    path = tmp_path / "atom.db"
    with Database.open(path) as database, database.transaction() as connection:
        connection.executemany(
            "INSERT INTO skill_cache (skill_id, skill_data) VALUES (?, ?)",
            [("a", skill("apple")), ("b", skill("berry"))],
        )
        connection.executemany(
            "INSERT INTO skill_base (skill_id, wire_digest, content_digest, exec_digest, confirmed_at) "
            "VALUES (?, x'00', x'00', x'00', '2026-02-19T12:00:00Z')",
            ["a", "b"],
        )
    with plain(path) as connection:
        yield connection
        assert_index_is_right(connection)


def skill(name: str, **fields: Any) -> str:
    return json.dumps({"name": name, **fields})


def found(connection: sqlite3.Connection, word: str) -> list[str]:
    rows = connection.execute(
        "SELECT skill_id FROM skill_fts JOIN skill_cache ON skill_cache.id = skill_fts.rowid WHERE skill_fts MATCH ?",
        (f'"{word}"',),
    )
    return [row[0] for row in rows]


def bases(connection: sqlite3.Connection) -> dict[str, str | None]:
    """Return the name in each saved base version, None where the cached text is the base."""
    rows = connection.execute("SELECT skill_id, data FROM skill_base ORDER BY skill_id")
    return {skill_id: data if data is None else json.loads(data)["name"] for skill_id, data in rows}


def sources(connection: sqlite3.Connection) -> dict[str, str]:
    return dict(connection.execute("SELECT skill_id, source FROM usable_skill").fetchall())


def assert_index_is_right(connection: sqlite3.Connection) -> None:
    """Compare the index, word by word and position by position, with one rebuilt from the cached skills."""
    columns = "name, description, tags, category, code"
    cast = ", ".join(["CAST(? AS TEXT)"] * 5)
    # Python cannot decode a lone surrogate, which JSON can spell.
    connection.text_factory = bytes
    with closing(sqlite3.connect(":memory:")) as fresh:
        fresh.text_factory = bytes
        statement = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'skill_fts'").fetchone()[0]
        fresh.execute(statement.decode())
        fresh.executemany(
            f"INSERT INTO skill_fts(rowid, {columns}) VALUES (?, {cast})",
            connection.execute(f"SELECT id, {columns} FROM skill_text").fetchall(),
        )
        assert words(connection) == words(fresh)
        assert totals(connection) == totals(fresh)
    connection.text_factory = str
    connection.execute("INSERT INTO skill_fts(skill_fts) VALUES ('integrity-check')")


def totals(connection: sqlite3.Connection) -> list[bytes]:
    """Return the record that counts the entries and the words of each column, which ranking goes by."""
    return [block.rstrip(b"\0") for (block,) in connection.execute("SELECT block FROM skill_fts_data WHERE id = 1")]


def words(connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
    connection.execute("CREATE VIRTUAL TABLE temp.words USING fts5vocab(main, skill_fts, instance)")
    rows = connection.execute("SELECT * FROM temp.words").fetchall()
    connection.execute("DROP TABLE temp.words")
    return rows


def test_an_update_is_found_and_saves_the_base_once(other: sqlite3.Connection) -> None:
    other.execute("UPDATE skill_cache SET skill_data = ? WHERE skill_id = 'a'", (skill("cherry"),))
    other.execute("UPDATE skill_cache SET skill_data = ? WHERE skill_id = 'a'", (skill("damson"),))
    assert (found(other, "apple"), found(other, "cherry"), found(other, "damson")) == ([], [], ["a"])
    assert bases(other) == {"a": "apple", "b": None}
    assert sources(other) == {"a": "edited", "b": "marketplace"}


def test_an_update_reverted_by_hand_is_not_an_edit(other: sqlite3.Connection) -> None:
    other.execute("UPDATE skill_cache SET skill_data = ? WHERE skill_id = 'a'", (skill("cherry"),))
    other.execute("UPDATE skill_cache SET skill_data = ? WHERE skill_id = 'a'", (skill("apple"),))
    assert sources(other) == {"a": "marketplace", "b": "marketplace"}


def test_an_update_of_other_columns_saves_nothing(other: sqlite3.Connection) -> None:
    # Like an object mapper: every column, most with its old value.
    other.execute("UPDATE skill_cache SET id = id, skill_id = skill_id, skill_data = skill_data, hit_count = 7")
    assert bases(other) == {"a": None, "b": None}


def test_a_new_skill_is_found_and_is_local(other: sqlite3.Connection) -> None:
    cursor = other.execute("INSERT INTO skill_cache (skill_id, skill_data) VALUES ('c', ?)", (skill("cherry"),))
    assert found(other, "cherry") == ["c"]
    assert sources(other)["c"] == "local"
    # The triggers' own inserts do not show.
    assert other.execute("SELECT id FROM skill_cache WHERE skill_id = 'c'").fetchone()[0] == cursor.lastrowid
    assert cursor.rowcount == 1


def test_a_replaced_skill_is_found_once_and_saves_the_base(other: sqlite3.Connection) -> None:
    for name in ("cherry", "damson"):
        other.execute("INSERT OR REPLACE INTO skill_cache (skill_id, skill_data) VALUES ('a', ?)", (skill(name),))
    assert (found(other, "apple"), found(other, "cherry"), found(other, "damson")) == ([], [], ["a"])
    assert bases(other) == {"a": "apple", "b": None}


def test_a_replacement_under_the_same_id_takes_its_place(other: sqlite3.Connection) -> None:
    other.execute("REPLACE INTO skill_cache (id, skill_id, skill_data) VALUES (1, 'a', ?)", (skill("cherry"),))
    assert found(other, "cherry") == ["a"]
    assert bases(other) == {"a": "apple", "b": None}


def test_a_replacement_of_two_skills_at_once_saves_both_bases(other: sqlite3.Connection) -> None:
    other.execute("REPLACE INTO skill_cache (id, skill_id, skill_data) VALUES (2, 'a', ?)", (skill("cherry"),))
    assert other.execute("SELECT id, skill_id FROM skill_cache").fetchall() == [(2, "a")]
    assert bases(other) == {"a": "apple", "b": "berry"}


def test_an_upsert_is_an_update(other: sqlite3.Connection) -> None:
    for name in ("cherry", "damson"):
        other.execute(
            "INSERT INTO skill_cache (skill_id, skill_data) VALUES ('a', ?) "
            "ON CONFLICT (skill_id) DO UPDATE SET skill_data = excluded.skill_data",
            (skill(name),),
        )
    assert (found(other, "apple"), found(other, "damson")) == ([], ["a"])
    assert bases(other)["a"] == "apple"


@pytest.mark.parametrize("words", ["INSERT OR IGNORE", "INSERT OR ABORT", "INSERT OR FAIL", "INSERT OR ROLLBACK"])
def test_an_insert_that_does_not_happen_changes_nothing(other: sqlite3.Connection, words: str) -> None:
    for skill_id in ("a", "b"):
        try:
            other.execute(f"{words} INTO skill_cache (skill_id, skill_data) VALUES (?, ?)", (skill_id, skill("cherry")))
        except sqlite3.IntegrityError:
            assert words != "INSERT OR IGNORE"
    assert (found(other, "apple"), found(other, "berry"), found(other, "cherry")) == (["a"], ["b"], [])
    assert sources(other) == {"a": "marketplace", "b": "marketplace"}
    # Leftovers of one statement do not affect the next one.
    other.execute("DELETE FROM skill_cache WHERE skill_id = 'b'")
    other.execute("INSERT INTO skill_cache (skill_id, skill_data) VALUES ('c', ?)", (skill("cherry"),))


def test_a_deleted_skill_is_not_found_and_its_base_is_saved(other: sqlite3.Connection) -> None:
    other.execute("DELETE FROM skill_cache WHERE skill_id = 'a'")
    assert found(other, "apple") == []
    assert bases(other) == {"a": "apple", "b": None}


def test_a_renamed_skill_is_local_and_its_old_name_has_a_base(other: sqlite3.Connection) -> None:
    other.execute("UPDATE skill_cache SET skill_id = 'c' WHERE skill_id = 'a'")
    assert sources(other) == {"b": "marketplace", "c": "local"}
    assert bases(other) == {"a": "apple", "b": None}


def test_a_changed_id_moves_the_entry(other: sqlite3.Connection) -> None:
    other.execute("UPDATE skill_cache SET id = 77 WHERE skill_id = 'a'")
    assert found(other, "apple") == ["a"]


@pytest.mark.parametrize("text", ["", "{", '{"name": }', "plain text", b"\xff\x00", b"{}", "[1]", "7", "null", '"x"'])
def test_invalid_text_does_not_fail_another_program_s_write(other: sqlite3.Connection, text: str | bytes) -> None:
    other.execute("UPDATE skill_cache SET skill_data = ? WHERE skill_id = 'a'", (text,))
    assert bases(other)["a"] == "apple"
    assert sources(other)["a"] == "edited"
    other.execute("INSERT OR REPLACE INTO skill_cache (skill_id, skill_data) VALUES ('b', ?)", (text,))
    other.execute("INSERT INTO skill_cache (skill_id, skill_data) VALUES ('c', ?)", (text,))
    assert len(sources(other)) == 3
    other.execute("UPDATE skill_cache SET skill_data = ? WHERE skill_id = 'c'", (skill("cherry"),))
    other.execute("DELETE FROM skill_cache WHERE skill_id = 'b'")
    assert found(other, "cherry") == ["c"]


def test_a_rollback_takes_everything_back(other: sqlite3.Connection) -> None:
    other.execute("BEGIN")
    other.execute("UPDATE skill_cache SET skill_data = ?", (skill("cherry"),))
    other.execute("DELETE FROM skill_cache WHERE skill_id = 'b'")
    other.execute("ROLLBACK")
    assert (found(other, "apple"), found(other, "berry"), found(other, "cherry")) == (["a"], ["b"], [])
    assert bases(other) == {"a": None, "b": None}


def test_recursive_triggers_of_another_program_do_no_harm(other: sqlite3.Connection) -> None:
    # With them the delete half of a replacement does fire its trigger.
    other.execute("PRAGMA recursive_triggers = ON")
    other.execute("INSERT OR REPLACE INTO skill_cache (skill_id, skill_data) VALUES ('a', ?)", (skill("cherry"),))
    other.execute("REPLACE INTO skill_cache (id, skill_id, skill_data) VALUES (2, 'a', ?)", (skill("damson"),))
    assert bases(other) == {"a": "apple", "b": "berry"}


def test_triggers_are_disabled_during_a_bulk_write(other: sqlite3.Connection) -> None:
    before = words(other)
    other.execute("BEGIN")
    other.execute("INSERT INTO bulk_write VALUES (1)")
    other.execute("UPDATE skill_cache SET skill_data = ? WHERE skill_id = 'a'", (skill("cherry"),))
    other.execute("INSERT INTO skill_cache (skill_id, skill_data) VALUES ('c', ?)", (skill("cherry"),))
    other.execute("DELETE FROM skill_cache WHERE skill_id = 'b'")
    assert words(other) == before
    assert bases(other) == {"a": None, "b": None}
    other.execute("ROLLBACK")


# Any text, in any order

TEXTS = st.text(max_size=12) | st.sampled_from(
    ["naïve Ångström", "用Excel导出", "ที่นี่", "か\u3099", "a\0b", "\\\\u0000", "'; DROP", '"x" AND y*', "x" * 3000]
)
VALUES = TEXTS | st.none() | st.integers() | st.booleans() | st.lists(TEXTS, max_size=3)
FIELDS = st.dictionaries(st.sampled_from(["name", "description", "tags", "category", "code"]), VALUES)
DOCUMENTS = st.one_of(
    st.builds(json.dumps, FIELDS),
    st.builds(lambda fields: json.dumps(fields, ensure_ascii=False), FIELDS),
    st.sampled_from(
        ["{", "[]", '{"name": "\\ud800"}', '{"name": {"a": [1.5e300, -0.0]}}', '{"name": "a", "name": "b"}']
    ),
)
STATEMENTS = st.sampled_from(
    [
        "INSERT OR IGNORE INTO skill_cache (skill_id, skill_data) VALUES (:skill_id, :data)",
        "INSERT OR REPLACE INTO skill_cache (skill_id, skill_data) VALUES (:skill_id, :data)",
        "INSERT OR REPLACE INTO skill_cache (id, skill_id, skill_data) VALUES (:id, :skill_id, :data)",
        """
        INSERT INTO skill_cache (skill_id, skill_data) VALUES (:skill_id, :data)
        ON CONFLICT DO UPDATE SET skill_data = excluded.skill_data
        """,
        "UPDATE skill_cache SET skill_data = :data WHERE skill_id = :skill_id",
        "UPDATE skill_cache SET skill_data = :data",
        "UPDATE OR IGNORE skill_cache SET id = :id WHERE skill_id = :skill_id",
        "UPDATE OR IGNORE skill_cache SET skill_id = :skill_id, skill_data = :data WHERE id = :id",
        "DELETE FROM skill_cache WHERE skill_id = :skill_id",
    ]
)
WRITES = st.lists(st.tuples(STATEMENTS, st.sampled_from("abc"), st.integers(1, 5), DOCUMENTS), max_size=8)


@cache
def migrated() -> sqlite3.Connection:
    return migrations.build(revisions.NAMES)


def empty_database() -> sqlite3.Connection:
    """Return a migrated database in memory: to copy one is far quicker than to migrate one for each example."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    search_index.register(connection)
    migrated().backup(connection)
    return connection


@given(writes=WRITES, recursive=st.booleans())
def test_the_index_matches_any_sequence_of_writes(writes: list[tuple[str, str, int, str]], *, recursive: bool) -> None:
    with closing(empty_database()) as connection:
        connection.execute(f"PRAGMA recursive_triggers = {int(recursive)}")
        for statement, skill_id, number, data in writes:
            connection.execute(statement, {"skill_id": skill_id, "id": number, "data": data})
        assert_index_is_right(connection)
        connection.execute("DELETE FROM skill_cache")
        assert words(connection) == []
        assert connection.execute("SELECT count(*) FROM skill_fts_docsize").fetchone() == (0,)


@given(pairs=st.lists(st.tuples(DOCUMENTS, DOCUMENTS), max_size=6), decoded=st.booleans())
@example(pairs=[('{"name": "n", "tags": [1]}', '{"name": "n", "tags": [1.0]}')], decoded=True)
@example(pairs=[(skill("same"), skill("same"))], decoded=True)
def test_the_index_follows_what_is_replaced_in_bulk(pairs: list[tuple[str, str]], decoded: bool) -> None:
    replace_in_bulk(pairs, decoded=decoded)


def test_the_index_follows_more_than_one_statement_takes() -> None:
    replace_in_bulk([(skill(f"before{number}"), skill(f"now{number}")) for number in range(1100)])


def replace_in_bulk(pairs: list[tuple[str, str]], *, decoded: bool = False) -> None:
    """Write the first of each pair, replace it by the second as a sync does, and look at the index.

    With `decoded` the index gets both sides decoded as well, where they are objects.
    """
    changes = {f"skill-{number}": pair for number, pair in enumerate(pairs)}
    with closing(empty_database()) as connection:
        connection.executemany(
            "INSERT INTO skill_cache (skill_id, skill_data) VALUES (?, ?)",
            [(skill_id, before) for skill_id, (before, _) in changes.items()],
        )
        with bulk_write(connection):
            connection.executemany(
                "UPDATE skill_cache SET skill_data = ? WHERE skill_id = ?",
                [(now, skill_id) for skill_id, (_, now) in changes.items()],
            )
            written = {
                skill_id: Replaced(
                    before,
                    decode_object(before) if decoded else None,
                    ReplaceServed(
                        skill_id,
                        written_here(now),
                        decode_object(now) if decoded else None,
                        Life.AS_BEFORE,
                        None,
                        before,
                        None,
                    ),
                )
                for skill_id, (before, now) in changes.items()
            }
            reindex(connection, written)
        assert_index_is_right(connection)
