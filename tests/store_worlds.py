"""Databases of each engine for the tests of the contract, and another program that uses them."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from store_rooms import Rooms, Rows

from atom_saas_sync.core.server_address import ServerAddress, read_server_address
from atom_saas_sync.store import engine_at

if TYPE_CHECKING:
    import psycopg

_HOLDER = """
import sqlite3, sys
for path in sys.stdin:
    connection = sqlite3.connect(path.rstrip("\\n"), isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    print("held", flush=True)
    sys.stdin.readline()
    connection.execute("ROLLBACK")
    connection.close()
    print("free", flush=True)
"""


class Databases(Protocol):
    """Databases of one engine; copying a filled one is fifty times faster than filling it."""

    def new(self, directory: Path, fill: Callable[[Rooms], None] | None = None) -> Rooms:
        """Return the verbs of a database that is empty or filled by `fill`."""

    def end(self) -> None:
        """End the processes started for them."""


class Files:
    """SQLite databases: one file each."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._filled: dict[object, Path] = {}
        self._holder = subprocess.Popen(
            [sys.executable, "-c", _HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def new(self, directory: Path, fill: Callable[[Rooms], None] | None = None) -> Rooms:
        if fill not in self._filled:
            template = self._directory / f"{len(self._filled)}.db"
            rooms = Rooms(engine_at(template), _OtherOfFile(template, self._holder))
            if fill is not None:
                fill(rooms)
            rooms.close()
            self._filled[fill] = template
        path = Path(shutil.copy(self._filled[fill], directory / "atom.db"))
        return Rooms(engine_at(path), _OtherOfFile(path, self._holder))

    def end(self) -> None:
        self._holder.communicate(timeout=60)


class _OtherOfFile:
    """Another process, which takes a file's write lock, and plain SQL."""

    def __init__(self, path: Path, process: subprocess.Popen[str]) -> None:
        self._path = path
        self._process = process

    @contextmanager
    def locked(self) -> Iterator[None]:
        self._ask(str(self._path), "held")
        try:
            yield
        finally:
            self._ask("", "free")

    def everything(self) -> Rows:
        with closing(sqlite3.connect(self._path)) as connection:
            connection.text_factory = bytes
            names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
            return {
                name.decode(): connection.execute(f'SELECT * FROM "{name.decode()}"').fetchall() for (name,) in names
            }

    def write_skill(self, skill_id: str, text: str) -> None:
        with closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
            connection.execute(
                "INSERT INTO skill_cache (skill_id, skill_data) VALUES (?, ?) "
                "ON CONFLICT (skill_id) DO UPDATE SET skill_data = excluded.skill_data",
                (skill_id, text),
            )

    def _ask(self, line: str, answer: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == f"{answer}\n"


class Schemas:
    """PostgreSQL databases: one schema, whose rows are replaced for each test."""

    def __init__(self, url: str) -> None:
        import psycopg

        self._address = read_server_address(url)
        engine_at(self._address).open().close()
        self._connection = psycopg.connect(url.partition("&schema=")[0], autocommit=True)
        # Without our triggers and foreign keys.
        self._run(f"SET search_path = {self._address.schema}; SET session_replication_role = replica")
        columns: dict[str, list[str]] = {}
        for table, column in self._connection.execute(_COLUMNS):
            columns.setdefault(table, []).append(f'"{column}"')
        self._columns = columns
        self._sequences = [row[0] for row in self._connection.execute(_SEQUENCES)]
        self._saved: dict[object, _Saved] = {None: self._save()}

    def new(self, directory: Path, fill: Callable[[Rooms], None] | None = None) -> Rooms:  # noqa: ARG002
        others = _OtherOnServer(self._address, self._connection, list(self._columns))
        if fill not in self._saved:
            assert fill is not None
            self._restore(self._saved[None])
            rooms = Rooms(engine_at(self._address), others)
            fill(rooms)
            rooms.close()
            self._saved[fill] = self._save()
        self._restore(self._saved[fill])
        return Rooms(engine_at(self._address), others)

    def end(self) -> None:
        self._connection.close()

    def _save(self) -> _Saved:
        rows = {}
        for table, columns in self._columns.items():
            with self._connection.cursor().copy(f"COPY {table} ({', '.join(columns)}) TO STDOUT".encode()) as copy:
                rows[table] = b"".join(map(bytes, copy))
        values = " UNION ALL ".join(f"SELECT last_value, is_called FROM {each}" for each in self._sequences)
        return _Saved(rows, self._connection.execute(values.encode()).fetchall())

    def _restore(self, saved: _Saved) -> None:
        statements = [f"DELETE FROM {table}" for table in self._columns]
        numbers = zip(self._sequences, saved.numbers, strict=True)
        statements += [f"SELECT setval('{name}', {value}, {called})" for name, (value, called) in numbers]
        self._run("; ".join(statements))
        for table, text in saved.rows.items():
            if text:
                columns = ", ".join(self._columns[table])
                with self._connection.cursor().copy(f"COPY {table} ({columns}) FROM STDIN".encode()) as copy:
                    copy.write(text)

    def _run(self, statements: str) -> None:
        self._connection.execute(statements.encode())


class _Saved(NamedTuple):
    rows: dict[str, bytes]
    numbers: list[tuple[int, bool]]


_COLUMNS = """
    SELECT c.relname, a.attname FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'
        AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
    ORDER BY c.relname, a.attnum
"""
_SEQUENCES = "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'S'"


class _OtherOnServer:
    """Another session, which takes the lock of our writers, and plain SQL."""

    def __init__(self, address: ServerAddress, connection: psycopg.Connection[Any], tables: list[str]) -> None:
        self._address = address
        self._connection = connection
        self._tables = tables

    @contextmanager
    def locked(self) -> Iterator[None]:
        from atom_saas_sync.store.postgresql.session import advisory_class, advisory_key

        with self._connection.transaction():
            numbers = advisory_class(self._address.schema), advisory_key("write")
            self._connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", numbers)
            yield

    def everything(self) -> Rows:
        return {
            table: sorted(self._connection.execute(f"SELECT * FROM {table}".encode()).fetchall(), key=repr)
            for table in self._tables
        }

    def write_skill(self, skill_id: str, text: str) -> None:
        with self._connection.transaction():
            self._connection.execute("SET LOCAL session_replication_role = origin")
            self._connection.execute(
                "INSERT INTO skill_cache (skill_id, skill_data) VALUES (%s, %s) "
                "ON CONFLICT (skill_id) DO UPDATE SET skill_data = excluded.skill_data",
                (skill_id, text),
            )
