"""Dumps of our schema: `pg_dump` writes them, and `pg_restore` prints their rows as text."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from psycopg.conninfo import make_conninfo

from atom_saas_sync.core.server_address import ServerAddress
from atom_saas_sync.errors import ConfigError, DatabaseBusy, DatabaseError
from atom_saas_sync.store.limits import BUSY_TIMEOUT_SECONDS
from atom_saas_sync.store.postgresql.session import located, parameters

_VERSION = re.compile(r"\) (\d+)")
_COPY = re.compile(rb'COPY "?[a-z0-9_]+"?\.([a-z_]+) \(([a-z_, "]+)\) FROM stdin;\n')
_SETVAL = re.compile(
    rb"SELECT pg_catalog\.setval\('\"?[a-z0-9_]+\"?\.([a-z_]+)_(id|number)_seq', (\d+), (true|false)\);"
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v"}
_LAST = b"\\.\n"
_ANSWER_SECONDS = 60.0
_LOCKING = "LOCK TABLE"  # the statement that failed, whatever the server's language


class Rows(NamedTuple):
    """The rows of one table as lines of COPY's text format."""

    table: str
    columns: tuple[str, ...]
    lines: Iterator[bytes]


class Serial(NamedTuple):
    """The next value of a column's sequence."""

    table: str
    column: str
    value: int
    is_used: bool


def require_program(name: str, *, server: int = 0) -> str:
    """Return the path of a program that is not older than the server. Raises ConfigError with what to install."""
    package = f"install the package postgresql-client{f'-{server}' if server else ''}, or put its directory on PATH"
    path = shutil.which(name)
    if path is None:
        raise ConfigError(f"the program {name} is not installed, which copies a database on a server", hint=package)
    try:
        asked = subprocess.run([path, "--version"], capture_output=True, check=False, timeout=_ANSWER_SECONDS)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        raise ConfigError(f"the program {path} does not work: it does not tell its version", hint=package) from None
    said = asked.stdout.decode(errors="replace")
    found = _VERSION.search(said)
    version = int(found[1]) if found else 0
    if version < server:
        raise ConfigError(
            f"{path} is of version {version or 'unknown'}, older than the server, which is PostgreSQL {server}",
            hint=package,
        )
    return path


def dump(program: str, address: ServerAddress, target: Path) -> None:
    """Run `pg_dump` to write a snapshot of our schema to a file.

    Raises DatabaseBusy while another program has a table locked, and DatabaseError.
    """
    with _password_file(address.password) as passfile:
        conninfo = make_conninfo(**parameters(located(address)) | ({"passfile": passfile} if passfile else {}))
        patience = f"--lock-wait-timeout={round(BUSY_TIMEOUT_SECONDS * 1000)}"  # without it, it waits for ever
        shape = ["--format=custom", f"--schema={address.schema}", "--no-owner"]
        arguments = [*shape, patience, f"--file={target}", conninfo]
        _run([program, *arguments], f"the database {address} could not be copied")


def read(program: str, file: Path) -> Iterator[Rows | Serial]:
    """Yield the contents of a dump, one table at a time; read its lines before the next. Raises DatabaseError."""
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(  # noqa: S603 - a program that PATH names
            [program, "--data-only", "--file=-", file], stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if found := _COPY.fullmatch(line):
                    columns = found[2].decode().replace('"', "").split(", ")
                    rows = Rows(found[1].decode(), tuple(columns), iter(process.stdout.readline, _LAST))
                    yield rows
                    for _ in rows.lines:  # not requested
                        pass
                elif found := _SETVAL.match(line):
                    yield Serial(found[1].decode(), found[2].decode(), int(found[3]), found[4] == b"true")
        except GeneratorExit:
            process.kill()
            raise
        if process.wait():
            errors.seek(0)
            raise _failure(f"{file} cannot be read", errors.read().decode(errors="replace"))


def values(line: bytes) -> list[str | None]:
    """Return the values of a row."""
    cells = line.decode().removesuffix("\n").split("\t")
    return [
        None if each == r"\N" else _ESCAPED.sub(lambda found: _LETTERS.get(found[1], found[1]), each) for each in cells
    ]


def _run(command: list[str], what: str) -> None:
    with _raising_at_sigterm():
        result = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)  # noqa: S603
    if result.returncode and _LOCKING in result.stderr:
        raise DatabaseBusy(
            f"{what}: another program has locked a table for longer than {BUSY_TIMEOUT_SECONDS:g} s",
            hint="pg_stat_activity names it; run again when it is done",
        )
    if result.returncode:
        raise _failure(what, result.stderr)


@contextmanager
def _raising_at_sigterm() -> Iterator[None]:
    """Let SIGTERM raise SystemExit during the block: a child would outlive a process that the signal ends."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _failure(what: str, said: str) -> DatabaseError:
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["no reason given"]
    return DatabaseError(f"{what}: {lines[0][:300]}", hint="nothing was changed; try another file or directory")


@contextmanager
def _password_file(password: str | None) -> Iterator[str | None]:
    """Write a password to a file that only this user can read, so that no process list shows it."""
    if password is None:
        yield None
        return
    with tempfile.NamedTemporaryFile("w", prefix="atom-sync-", encoding="utf-8") as file:  # of mode 0600
        file.write("*:*:*:*:" + re.sub(r"([\\:])", r"\\\1", password) + "\n")
        file.flush()
        yield file.name
