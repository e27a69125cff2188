"""The tables, as SQL: what each migration adds and how it is taken back.

All stands in one schema of its own. For the schema `atom_sync` there are views in `public` besides, which the Atom
backend and people use; where the backend has tables of its own there, those are shared (backend/). Times are
`timestamptz`; those that only we write have no fractions, if their order does not need them. JSON is `text`: digests
are of its bytes.

How a local edit is found, and what triggers keep right, is as in SQLite: `skill_base.data` is NULL as long as the
cached text is what the marketplace last sent. In bulk, `SET LOCAL atom_sync.bulk = on` lets the triggers stand aside.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

from msgspec import Struct

_MADE = re.compile(r"^CREATE (?:OR REPLACE )?(TABLE|VIEW|FUNCTION) ([a-z_.]+)", re.MULTILINE)
_PART = re.compile(r"^-- public\.(\w+)\n", re.MULTILINE)
_TABLE = re.compile(r"^CREATE TABLE (\w+) \((.*?)\n?\)(?: WITH \(.*?\))?;", re.MULTILINE | re.DOTALL)
_COLUMN = re.compile(r"(\w+) (?:bigint|integer|text|timestamptz|boolean|bytea|double|tsvector)")
_TRIGGER = re.compile(r"^CREATE TRIGGER (\w+) .*?\bON ([a-z_.]+)", re.MULTILINE | re.DOTALL)


class Migration(Struct, frozen=True):
    """One step of the schema: a file beside this one, whose names stand in the schema that comes first.

    A program that does not know an `additive` one goes on working: hosts of a fleet are upgraded one after the other.
    """

    name: str
    file: str
    additive: bool = False


MIGRATIONS = (Migration("0001_tables", "schema.sql"),)


def up(migration: Migration) -> str:
    """Return the script of a migration."""
    return _read(migration.file)


@functools.cache
def public_views() -> dict[str, str]:
    """Return the script of each view in `public`."""
    _, *parts = _PART.split(_read("public.sql"))
    return dict(zip(parts[::2], parts[1::2], strict=True))


def public_functions() -> list[str]:
    """Return the functions that the views in `public` use."""
    return [name for script in public_views().values() for kind, name in _MADE.findall(script) if kind == "FUNCTION"]


def down(migration: Migration) -> list[str]:
    """Return statements that drop what a migration made. What others have made on top of it makes them fail."""
    made = _MADE.findall(up(migration))
    views = [f"DROP VIEW {name}" for kind, name in reversed(made) if kind == "VIEW"]
    tables = ", ".join(name for kind, name in made if kind == "TABLE")
    functions = [f"DROP FUNCTION {name}" for kind, name in reversed(made) if kind == "FUNCTION"]
    return [*views, f"DROP TABLE {tables}", *functions]


def relations(migration: Migration) -> list[str]:
    """Return the names of the tables and views that a migration makes."""
    return [name for kind, name in _MADE.findall(up(migration)) if kind in {"TABLE", "VIEW"}]


def tables(migration: Migration) -> list[str]:
    """Return the names of the tables that a migration makes."""
    return [name for kind, name in _MADE.findall(_read(migration.file)) if kind == "TABLE"]


@functools.cache
def expected_columns() -> dict[str, tuple[str, ...]]:
    """Return the columns that each of our tables has, for a check."""
    found: dict[str, tuple[str, ...]] = {}
    for migration in MIGRATIONS:
        for name, body in _TABLE.findall(_read(migration.file)):
            # Of a table in one line, too; lines of a CHECK or of a generated column begin with no type.
            columns = [_COLUMN.match(part.strip()) for part in re.split(r",\s|\n", body)]
            found[name] = tuple(column[1] for column in columns if column)
    return found


def expected_triggers() -> list[tuple[str, str]]:
    """Return each trigger on our tables as the table and its name, for a check."""
    return [
        (table, name)
        for migration in MIGRATIONS
        for name, table in _TRIGGER.findall(_read(migration.file))
        if "." not in table
    ]


@functools.cache
def _read(file: str) -> str:
    return Path(__file__).with_name(file).read_text(encoding="utf-8")
