"""The server that the tests of PostgreSQL run on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from conftest import wait_until
from postgres_support import NoServerError, binaries

_STARTS_A_SERVER = """
import sys
from postgres_support import binaries, server
with server(binaries()) as url:
    print(url, flush=True)
    sys.stdin.read()
"""


def test_it_speaks_utf8_and_listens_on_its_socket_only(postgresql_server: str) -> None:
    with psycopg.connect(postgresql_server) as connection:
        assert connection.info.server_version >= 150_000
        assert connection.execute("SHOW server_encoding").fetchone() == ("UTF8",)
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)


def test_without_a_server_the_error_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATOM_TEST_POSTGRESQL", str(tmp_path))
    with pytest.raises(NoServerError, match="install the package postgresql-15"):
        binaries()


def test_it_ends_with_tests_that_are_killed() -> None:
    command = [sys.executable, "-c", _STARTS_A_SERVER]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        url = process.stdout.readline().decode().strip()
        directory = Path(url.partition("host=")[2])
        try:
            number = int((directory / "data/postmaster.pid").read_text().split()[0])
            process.send_signal(signal.SIGKILL)
            wait_until(lambda: not Path(f"/proc/{number}/cmdline").exists() or not _command(number))
        finally:
            process.kill()
            subprocess.run(["rm", "-r", directory], check=True, timeout=60)


def _command(number: int) -> bytes:
    """Return the command line of a process, which is empty once it has ended."""
    return Path(f"/proc/{number}/cmdline").read_bytes()
