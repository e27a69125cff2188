"""The migrations: their SQL, and how they are reverted.

Everything is in one schema of its own. With the schema `atom_sync`, there are also views in `public` for the Atom
backend and users; if the backend has its own tables there, those are shared (backend/). Times are `timestamptz`; those
written only by us are whole seconds unless their order needs fractions. JSON is stored as `text`, because digests are
of its bytes.

Local edits and triggers work as in SQLite: `skill_base.data` is NULL as long as the cached text is what the marketplace
last sent. Bulk writes disable the triggers by `SET LOCAL atom_sync.bulk = on`.
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
    """One step of the schema: a file beside this one, run with our schema first in the search path.

    A program that does not know an `additive` migration still works, so that the hosts of a fleet can be upgraded one
    by one.
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
    """Return statements that drop what a migration created; they fail if other programs' objects depend on it."""
    made = _MADE.findall(up(migration))
    views = [f"DROP VIEW {name}" for kind, name in reversed(made) if kind == "VIEW"]
    tables = ", ".join(name for kind, name in made if kind == "TABLE")
    functions = [f"DROP FUNCTION {name}" for kind, name in reversed(made) if kind == "FUNCTION"]
    return [*views, f"DROP TABLE {tables}", *functions]


def relations(migration: Migration) -> list[str]:
    """Return the names of the tables and views that a migration creates."""
    return [name for kind, name in _MADE.findall(up(migration)) if kind in {"TABLE", "VIEW"}]


def tables(migration: Migration) -> list[str]:
    """Return the names of the tables that a migration creates."""
    return [name for kind, name in _MADE.findall(_read(migration.file)) if kind == "TABLE"]


@functools.cache
def expected_columns() -> dict[str, tuple[str, ...]]:
    """Return the expected columns of each of our tables."""
    found: dict[str, tuple[str, ...]] = {}
    for migration in MIGRATIONS:
        for name, body in _TABLE.findall(_read(migration.file)):
            # Also of a one-line table; lines of a CHECK or a generated column do not begin with a name and a type.
            columns = [_COLUMN.match(part.strip()) for part in re.split(r",\s|\n", body)]
            found[name] = tuple(column[1] for column in columns if column)
    return found


def expected_triggers() -> list[tuple[str, str]]:
    """Return the expected triggers on our tables, each as table and name."""
    return [
        (table, name)
        for migration in MIGRATIONS
        for name, table in _TRIGGER.findall(_read(migration.file))
        if "." not in table
    ]


@functools.cache
def _read(file: str) -> str:
    return Path(__file__).with_name(file).read_text(encoding="utf-8")
