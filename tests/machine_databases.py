"""The database of a machine, on the engine under test, and another program that uses it."""

from __future__ import annotations

import atexit
import functools
import itertools
import re
import sqlite3
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from postgres_support import binaries, server

from atom_saas_sync.core.location import Location
from atom_saas_sync.core.server_address import read_server_address
from atom_saas_sync.store import engine_at

if TYPE_CHECKING:
    import psycopg

Execute = Callable[..., list[Any]]
ENGINES = ("sqlite", "postgresql")


class MachineDatabase(Protocol):
    """One database. `sql` plays another program, which knows nothing of atom-sync."""

    @property
    def url(self) -> str:
        """Return the value of ATOM_SAAS_DATABASE_URL."""

    @property
    def location(self) -> Location:
        """Return the same for the store's front door."""

    def prepare(self) -> None:
        """Create our tables unless the database exists; takes a tenth of the time of a command."""

    def exists(self, table: str = "websocket_state") -> bool:
        """Tell whether it has this table of ours."""

    def sql(self, statement: str, values: tuple[Any, ...], *, unseen: bool = False) -> list[Any]:
        """Execute a statement that both engines understand, with `?` for values; it is committed at once.

        If `unseen`, our triggers stand aside for it, as for what we write ourselves.
        """

    def rows(self) -> dict[str, list[Any]]:
        """Return all rows of all tables, to see whether anything has changed."""

    def writing(self, statement: str = "SELECT 1") -> AbstractContextManager[None]:
        """Keep ours from writing during the block: in another program's transaction, which is then rolled back."""

    def transaction(self) -> AbstractContextManager[Execute]:
        """Open another program's transaction, which is committed in the end; what is returned executes statements."""

    def refuse(self, table: str, why: str) -> None:
        """Let every insert into a table fail, as on a disk that is full; the trigger is called `refused`."""

    def slow_down(self, table: str) -> None:
        """Let every update of a row take a few milliseconds."""

    def programs(self) -> str | None:
        """Return a directory with the programs that backups need."""

    def spoil(self) -> None:
        """Make something of it that is no database of ours."""

    def remove(self) -> None:
        """Take it away."""

    def save(self) -> object:
        """Return a copy for `restore`."""

    def restore(self, saved: Any) -> None:
        """Restore that copy."""


@functools.cache
def _file_with_tables() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "atom.db"
        engine_at(path).open().close()
        return path.read_bytes()


class FileDatabase:
    """A SQLite file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def url(self) -> str:
        return str(self.path)

    @property
    def location(self) -> Path:
        return self.path

    def prepare(self) -> None:
        if self.path.parent.is_dir() and not self.path.exists():
            self.restore(_file_with_tables())

    def exists(self, table: str = "websocket_state") -> bool:
        if not self.path.exists():
            return False
        return bool(self.sql("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)))

    def sql(self, statement: str, values: tuple[Any, ...], *, unseen: bool = False) -> list[Any]:
        connection = sqlite3.connect(self.path, timeout=60)
        try:
            with connection:
                if not unseen:
                    return connection.execute(statement, values).fetchall()
                connection.execute("INSERT INTO bulk_write VALUES (1)")
                found = connection.execute(statement, values).fetchall()
                connection.execute("DELETE FROM bulk_write")
                return found
        finally:
            connection.close()

    def rows(self) -> dict[str, list[Any]]:
        names = self.sql("SELECT name FROM sqlite_master WHERE type = 'table'", ())
        return {name: self.sql(f'SELECT * FROM "{name}"', ()) for (name,) in names}

    @contextmanager
    def writing(self, statement: str = "SELECT 1") -> Iterator[None]:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(statement)
            yield
            connection.execute("ROLLBACK")

    @contextmanager
    def transaction(self) -> Iterator[Execute]:
        with closing(sqlite3.connect(self.path, timeout=60, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield lambda statement, *values: connection.execute(statement, values).fetchall()
            connection.execute("COMMIT")

    def refuse(self, table: str, why: str) -> None:
        self.sql(f"CREATE TRIGGER refused BEFORE INSERT ON {table} BEGIN SELECT raise(ABORT, '{why}'); END", ())

    def slow_down(self, table: str) -> None:
        numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000)"
        self.sql(
            f"CREATE TRIGGER slow AFTER UPDATE ON {table} BEGIN SELECT count(*) FROM ({numbers} SELECT i FROM n); END",
            (),
        )

    def programs(self) -> None:
        return None

    def spoil(self) -> None:
        self.path.write_bytes(b"no database" * 1000)

    def remove(self) -> None:
        self.path.unlink()

    def save(self) -> bytes:
        self.sql("PRAGMA wal_checkpoint(TRUNCATE)", ())
        return self.path.read_bytes()

    def restore(self, saved: bytes) -> None:
        for ending in ("-wal", "-shm"):
            self.path.with_name(f"{self.path.name}{ending}").unlink(missing_ok=True)
        self.path.touch(mode=0o600)
        self.path.write_bytes(saved)


_numbers = itertools.count(1)


@functools.cache
def running_server() -> str:
    """Return the URL of the server of this process; it ends with it."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(server(binaries()))


@functools.cache
def _server_connection() -> psycopg.Connection[Any]:
    import psycopg

    connection = psycopg.connect(running_server(), autocommit=True)
    atexit.register(connection.close)
    return connection


# A finalizer may run in the middle of anything, so it only notes what the next new database drops.
_unused: list[str] = []


def _create(template: str = "template1") -> str:
    while _unused:
        _drop(_unused.pop())
    name = f"machine_{next(_numbers)}"
    _server_connection().execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy".encode())
    return name


def _drop(name: str) -> None:
    _server_connection().execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


def _url(name: str) -> str:
    # A busy machine may take longer than the usual 5 seconds.
    return running_server().replace("/postgres?", f"/{name}?") + "&connect_timeout=60"


@functools.cache
def _database_with_tables() -> str:
    name = _create()
    engine_at(read_server_address(_url(name))).open().close()
    return name


class ServerDatabase:
    """A database on the server of this process, dropped when it is no longer used."""

    def __init__(self, url: str | None = None) -> None:
        self._name: str | None = None
        self._others_url = url

    @property
    def url(self) -> str:
        return self._others_url or _url(self._made())

    @property
    def location(self) -> Location:
        return read_server_address(self.url)

    def prepare(self) -> None:
        if self._name is None:
            self.restore(_database_with_tables())

    def exists(self, table: str = "websocket_state") -> bool:
        found = "SELECT 1 FROM pg_tables WHERE schemaname = 'atom_sync' AND tablename = ?"
        return bool(self.sql(found, (table,)))

    def sql(self, statement: str, values: tuple[Any, ...], *, unseen: bool = False) -> list[Any]:
        with self._connected() as connection:
            if unseen:
                connection.execute("SET atom_sync.bulk = on")
            if "json_" in statement:
                connection.execute(_FUNCTIONS)
            return _execute(connection, statement, *values)

    def rows(self) -> dict[str, list[Any]]:
        names = self.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'atom_sync' ORDER BY 1", ())
        return {name: sorted(self.sql(f"SELECT * FROM {name}", ()), key=repr) for (name,) in names}

    @contextmanager
    def writing(self, statement: str = "SELECT 1") -> Iterator[None]:
        from atom_saas_sync.store.postgresql.session import advisory_class, advisory_key

        with self._connected() as connection, connection.transaction(force_rollback=True):
            numbers = advisory_class("atom_sync"), advisory_key("write")
            connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", numbers)
            connection.execute(statement.encode())
            yield

    @contextmanager
    def transaction(self) -> Iterator[Execute]:
        with self._connected() as connection, connection.transaction():
            yield functools.partial(_execute, connection)

    def refuse(self, table: str, why: str) -> None:
        fails = f"RAISE EXCEPTION ''{why}'' USING ERRCODE = ''disk_full''"
        self.sql(f"CREATE FUNCTION refused() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {fails}; END'", ())
        self.sql(f"CREATE TRIGGER refused BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION refused()", ())

    def slow_down(self, table: str) -> None:
        body = "BEGIN PERFORM pg_sleep(0.005); RETURN NEW; END"
        self.sql(f"CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS '{body}'", ())
        self.sql(f"CREATE TRIGGER slow AFTER UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION slow()", ())

    def programs(self) -> str:
        return str(binaries())

    def spoil(self) -> None:
        self.sql("DROP SCHEMA atom_sync CASCADE", ())
        self.sql("CREATE SCHEMA atom_sync CREATE TABLE skill_cache (something text)", ())

    def remove(self) -> None:
        _drop(self._made())

    def save(self) -> str:
        return _create(self._made())

    def restore(self, saved: str) -> None:
        if self._name is not None:
            _drop(self._name)
        self._take(_create(saved))

    def _made(self) -> str:
        if self._name is None:
            self._take(_create())
        assert self._name is not None
        return self._name

    def _take(self, name: str) -> None:
        self._name = name
        weakref.finalize(self, _unused.append, name).atexit = False  # the server ends with this process anyway

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[Any]]:
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.adapters.register_loader("timestamptz", _moment_loader())
            connection.adapters.register_loader("numeric", _number_loader())
            connection.execute("SET search_path = atom_sync, public, pg_temp; SET TimeZone = 'UTC'")
            yield connection


# SQLite's functions for the statements of tests, only within the session, so that our code cannot use them.
_FUNCTIONS = """
    CREATE FUNCTION pg_temp.json_set(document text, path text, value text) RETURNS text LANGUAGE sql
        RETURN jsonb_set(document::jsonb, string_to_array(substr(path, 3), '.'), to_jsonb(value))::text;
    CREATE FUNCTION pg_temp.json_extract(document text, path text) RETURNS text LANGUAGE sql
        RETURN document::json #>> string_to_array(substr(path, 3), '.');
"""
_FUNCTION = re.compile(r"\b(json_set|json_extract)\(")
_HEX = re.compile(r"\bhex\(([^()]+)\)")
_BYTES = re.compile(r"\bx'([0-9a-fA-F]*)'")
_PLACE = re.compile(r"\?(\d*)")


def in_its_words(statement: str, has_values: bool) -> str:
    """Return a statement of a test in PostgreSQL's syntax."""
    statement = _FUNCTION.sub(r"pg_temp.\1(", statement)
    statement = _HEX.sub(r"upper(encode(\1, 'hex'))", statement)
    statement = _BYTES.sub(r"'\\x\1'::bytea", statement)
    return _PLACE.sub("%s", statement.replace("%", "%%")) if has_values else statement


def _execute(connection: psycopg.Connection[Any], statement: str, *values: Any) -> list[Any]:
    cursor = connection.execute(in_its_words(statement, bool(values)).encode(), _by_number(statement, values))
    return cursor.fetchall() if cursor.description else []


def _by_number(statement: str, values: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Return a value for each `?`, in order; `?1` always means the first one."""
    if not values:
        return None
    in_turn = iter(values)
    return tuple(values[int(found[1]) - 1] if found[1] else next(in_turn) for found in _PLACE.finditer(statement))


@functools.cache
def _moment_loader() -> type:
    from psycopg.adapt import Loader

    class MomentLoader(Loader):
        """A time as text, as in SQLite."""

        def load(self, data: Any) -> str:
            text = bytes(data).decode()
            return datetime.fromisoformat(text).astimezone(UTC).isoformat().replace("+00:00", "Z")

    return MomentLoader


@functools.cache
def _number_loader() -> type:
    from psycopg.adapt import Loader

    class NumberLoader(Loader):
        """A sum as a plain number."""

        def load(self, data: Any) -> float:
            number = Decimal(bytes(data).decode())
            return int(number) if number == int(number) else float(number)

    return NumberLoader


def at(url: str) -> MachineDatabase:
    """Return the database of another process."""
    return ServerDatabase(url) if url.startswith("postgresql:") else FileDatabase(Path(url))


def new_database(engine: str, directory: Path) -> MachineDatabase:
    """Return a database that has not been created yet."""
    return FileDatabase(directory / "atom.db") if engine == "sqlite" else ServerDatabase()
