"""The words of PostgreSQL's search, compared with those of SQLite's index."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import chain

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from atom_saas_sync.store.postgresql.words import Terms, head, terms, texts_of, tokens, words
from atom_saas_sync.store.sqlite.search_index import create_table, spaced

# Letters that every version of Unicode's tables knows, blanks and punctuation. Marks stand on ASCII letters alone: on
# others SQLite drops them and asks for both spellings, while a server stores the composed one.
_ALPHABETS = (range(0x20, 0x7F), range(0xC0, 0x180), range(0x391, 0x3A2), range(0x3A3, 0x3CA), range(0x410, 0x450))
_CHARACTERS = [*map(chr, chain(*_ALPHABETS)), *"éö-_.\u2014\u201e日本語データ보고ปู", "a\u0301", "E\u0301"]
_TEXT = st.lists(st.sampled_from(_CHARACTERS), max_size=30).map("".join)


def in_sqlite(text: str) -> list[str]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(create_table("entry"))
        connection.execute("CREATE VIRTUAL TABLE token USING fts5vocab(entry, instance)")
        connection.execute("INSERT INTO entry (rowid, name) VALUES (1, ?)", (spaced(text),))
        return [row[0] for row in connection.execute('SELECT term FROM token ORDER BY "offset"')]


@settings(max_examples=50)
@given(_TEXT)
@example("ΟΔΟΣ Straße İstanbul ồ \u017f ŉ µ ŀ")
@example("用Excel导出 报表")
@example("\u00c0\u0e39 A\u0300")
def test_words_are_those_of_sqlite(text: str) -> None:
    assert tokens(text) == in_sqlite(text)


def test_neighbours_of_scripts_without_spaces_are_words_too() -> None:
    assert words(["用Excel导 出"]) == ["用", "excel", "导", "出", "导出"]
    assert words(["a b", "b a c"]) == ["a", "b", "c"]


def test_words_fit_into_the_index_and_the_name_is_among_them() -> None:
    found = words(["Name", " ".join(f"{number:x}" for number in range(300_000)), "x" * 1000])
    assert found[0] == "name"
    assert 890_000 < sum(map(len, found)) <= 900_000
    assert words(["x" * 1000, "é" * 300]) == ["x" * 255, "e" * 255]
    assert words(["я" * 300]) == ["я" * 127]
    assert len(head(["", "", "", "word " * 100_000])) < 5_000_000


def test_the_head_has_places_and_weights() -> None:
    assert head(["Ab c", "t", "", "d 東京"]) == "'ab':1A 'c':2A 't':3B 'd':4C '東':5C '京':6C '東京':7C"


def test_a_field_of_any_type_has_its_values_as_words() -> None:
    fields = {"name": 5, "tags": ["a", {"k": ["b", None]}, True], "category": None, "code": {"x": 1.5}}
    assert texts_of(fields) == ["5", "a b 1", "", "", "1.5"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("- & _", None),
        ("a\0b", Terms(("a",), (), "b", None)),
        ("pr", Terms((), (), "pr", "head")),
        ("café Cert", Terms(("cafe",), (), "cert", "words")),
        ("a os.path", Terms(("a",), ("os",), "path", "words")),
        ("用Exc", Terms((), ("用",), "exc", "head")),
        ("导出", Terms((), ("导", "导出"), "出", None)),
    ],
)
def test_the_search_terms_of_a_text(text: str, expected: Terms | None) -> None:
    assert terms(text) == expected
