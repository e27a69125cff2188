"""The full-text index: splitting a skill's text into words, as SQL for any program and as Python for ours.

FTS5 cuts text at spaces and punctuation. Scripts without spaces between words, and Hangul, whose words carry endings,
get one token for each character, so that a phrase finds any part of a text. Triggers do that in plain SQL, because
other programs have none of our functions; a sync does it with `SPACED`, which is faster. Both must give the same
tokens: an entry is taken out of the index by the very tokens that went in.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec

from atom_saas_sync.core.scripts import ALONE, MARKS, folded

FIELDS = ("name", "description", "tags", "category", "code")
COLUMNS = ", ".join(FIELDS)

_TOKENIZER = "unicode61 remove_diacritics 2 tokenchars '{}'".format(
    "".join(chr(code) for first, last in MARKS for code in range(first, last + 1))
)

SPACED = "atom_sync_spaced"
FOLDED = "atom_sync_folded"

_TEXT = frozenset({str})
_decode = msgspec.json.Decoder().decode
# All bytes of UTF-8 except those that begin a character of `ALONE` (and some others).
_NEVER_ALONE = bytes({*range(256)} - {0xE0, 0xE1, *range(0xE3, 0xF1)})


def create_table(name: str) -> str:
    """Return the statement that creates a full-text table with the tokens of the index."""
    return f"""CREATE VIRTUAL TABLE {name} USING fts5({COLUMNS}, content='', tokenize="{_TOKENIZER}")"""


def spaced(text: str) -> str:
    """Return `text` with a space on either side of each character that is a token of its own; NUL becomes a space."""
    if "\0" in text:
        text = text.replace("\0", " ")
    if text.isascii() or not text.encode().translate(None, _NEVER_ALONE):
        return text
    return _alone_run().sub(lambda run: f" {' '.join(run.group())} ", text)


@cache
def _alone_run() -> re.Pattern[str]:
    # Compiled when it is first used: a millisecond that most starts save.
    return re.compile(f"{ALONE}+")


def register(connection: sqlite3.Connection) -> None:
    """Give a connection our functions. They take blobs, because a text in a database may be invalid UTF-8."""
    connection.create_function(SPACED, 1, _spaced_blob, deterministic=True)
    connection.create_function(FOLDED, 1, _folded_blob, deterministic=True)


def words(fields: Mapping[str, Any]) -> tuple[str | None, ...] | None:
    """Return the indexed text of each of `FIELDS`; None for an odd skill, whose text only SQLite can compute."""
    texts = [fields.get(name) for name in FIELDS]
    for place, value in enumerate(texts):
        if value is None:
            continue
        try:
            text = " ".join(value) if isinstance(value, list) else value
        except TypeError:
            return None
        if not isinstance(text, str):
            return None
        texts[place] = text if text.isascii() and "\0" not in text else spaced(text)
    return tuple(texts)


def same_words(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    """Tell whether two skills certainly have the same `words`, without splitting them; False may mean unknown."""
    for name in FIELDS:
        value = left.get(name)
        if value != right.get(name):
            return False
        # Equal numbers, such as 1 and 1.0, may have different words.
        if not (value is None or type(value) is str or (type(value) is list and _TEXT.issuperset(map(type, value)))):
            return False
    return True


def words_of(data: str) -> tuple[str | None, ...] | None:
    """Return `words` of a skill's JSON text."""
    try:
        fields = _decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    return words(fields) if isinstance(fields, dict) else None


def entries(skills: str, *, ours: bool = False) -> str:
    """Return the query for `id` and the indexed text of each of `FIELDS`; with `ours` for our connections only.

    `skills` is a table or query with `id` and `skill_data`; text that is not JSON is left out. Of a list,
    the decoded values are indexed; of a duplicate key, the last one counts, as for other readers of JSON.
    """
    space = _spaced_by_us if ours else _spaced_by_anyone
    columns = ", ".join(f"max(CASE field WHEN '{name}' THEN words END) AS {name}" for name in FIELDS)
    keys = ", ".join(f"'{name}'" for name in FIELDS)
    return f"""
        SELECT id, {columns} FROM (
            SELECT id, field, {space("value")} AS words FROM (
                SELECT skill.id, field.key AS field, max(field.id), CASE
                    WHEN field.type NOT IN ('array', 'object') THEN field.atom
                    ELSE (SELECT group_concat(part.atom, ' ') FROM json_tree(field.value) AS part)
                END AS value
                FROM (
                    SELECT id, {_without_nul("skill_data")} AS data FROM {skills} WHERE json_valid(skill_data)
                ) AS skill
                LEFT JOIN json_each(skill.data) AS field ON field.key IN ({keys})
                GROUP BY skill.id, field.key
            )
        ) GROUP BY id
    """  # noqa: S608 - built from constants


def write(number: int) -> str:
    """Return the statement that writes up to that many entries of the index, in the order of their row ids.

    Its parameters are of each entry NULL, or `delete` to take it out; the row's id, NULL for no entry; its `words`.
    FTS5 writes out all that it has gathered between two statements, and where the ids go back.
    """
    return f"""
        INSERT INTO skill_fts (skill_fts, rowid, {COLUMNS})
        WITH entry (command, id, {COLUMNS}) AS (VALUES {", ".join(["(?, ?, ?, ?, ?, ?, ?)"] * number)})
        SELECT command, id, {COLUMNS} FROM entry WHERE id IS NOT NULL
    """  # noqa: S608 - built from constants


def have_tokens(texts: list[str]) -> list[bool]:
    """Tell for each text whether the index would contain a token of it."""
    if all(text.isascii() for text in texts):
        return [any(map(str.isalnum, text)) for text in texts]
    # SQLite's Unicode tables may be older or newer than Python's.
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        connection.execute(create_table("word"))
        connection.execute("CREATE VIRTUAL TABLE token USING fts5vocab(word, instance)")
        connection.executemany("INSERT INTO word (rowid, name) VALUES (?, ?)", enumerate(map(spaced, texts)))
        found = {row[0] for row in connection.execute("SELECT DISTINCT doc FROM token")}
    finally:
        connection.close()
    return [number in found for number in range(len(texts))]


def _spaced_blob(blob: bytes | None) -> bytes | None:
    """Return NULL for invalid UTF-8, which plain SQL then handles."""
    try:
        return None if blob is None else spaced(blob.decode()).encode()
    except UnicodeDecodeError:
        return None


def _folded_blob(blob: bytes | None) -> str | None:
    return None if blob is None else folded(blob.decode(errors="replace"))


def _without_nul(data: str) -> str:
    r"""Return the JSON text without `\u0000`, after which SQLite stops reading. `\\u0000` is a different text."""
    return (
        f"CASE WHEN instr({data}, '\\u0000') "
        f"THEN replace(replace({data}, '\\\\', '\\u005c'), '\\u0000', ' ') ELSE {data} END"
    )


def _spaced_by_us(text: str) -> str:
    return f"coalesce(CAST({SPACED}(CAST({text} AS BLOB)) AS TEXT), {_spaced_by_anyone(text)})"


def _spaced_by_anyone(text: str) -> str:
    return f"CASE WHEN length({text}) = length(CAST({text} AS BLOB)) THEN {text} ELSE {_spaced_chunks(text)} END"


def _spaced_chunks(text: str) -> str:
    """Return the SQL for `spaced`, by chunks of 64 characters: substr() counts from the start of its text."""
    return f"""(
        WITH RECURSIVE chunk(i, part) AS (
            SELECT 1, substr({text}, 1, 64)
            UNION ALL SELECT i + 64, substr({text}, i + 64, 64) FROM chunk WHERE part != ''
        )
        SELECT group_concat(CASE WHEN length(part) = length(CAST(part AS BLOB)) THEN part ELSE (
            WITH RECURSIVE letter(j, c) AS (
                SELECT 1, substr(part, 1, 1) UNION ALL SELECT j + 1, substr(part, j + 1, 1) FROM letter WHERE c != ''
            )
            SELECT group_concat(CASE WHEN c GLOB '{ALONE}' THEN ' ' || c || ' ' ELSE c END, '') FROM letter
        ) END, '') FROM chunk
    )"""  # noqa: S608 - built from constants


# Statements for our own connections.
WRITE_ODD = f"""
    INSERT INTO skill_fts (skill_fts, rowid, {COLUMNS})
    SELECT ?1, * FROM ({entries("(SELECT ?2 AS id, ?3 AS skill_data)", ours=True)})
"""  # noqa: S608 - built from constants
UNINDEX = f"""
    INSERT INTO skill_fts (skill_fts, rowid, {COLUMNS})
    SELECT 'delete', * FROM ({
    entries("(SELECT * FROM skill_cache WHERE skill_id IN (SELECT value FROM json_each(?)))", ours=True)
})
"""  # noqa: S608 - built from constants
REBUILD = f"INSERT INTO skill_fts (rowid, {COLUMNS}) {entries('skill_cache', ours=True)}"
