"""Two hosts on one database: who does the work in an hour of made-up time, and who takes over when a link is cut."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import Machine, wait_until
from postgres_support import binaries, server
from server_support import opened

from atom_saas_sync.sandbox import Sandbox
from atom_saas_sync.store.postgresql.lock import holder

pytestmark = pytest.mark.soak

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET
_SPACE = "atom-sync-test"
_TAKE_OVER_SECONDS = 30
# Moves the clock that runs are given; the server's and the process's own stay as they are.
_LATER = """
from datetime import UTC, datetime, timedelta
from atom_saas_sync.cli.runtime import RunClock
RunClock.now = lambda self: datetime.now(UTC) + timedelta(seconds={seconds})
"""


def scheduled(machine: Machine, url: str, host: str, kind: str, seconds: float) -> dict[str, Any]:
    variables = {"ATOM_SAAS_DATABASE_URL": url, "ATOM_SYNC_HOST": host, "ENABLE_SCHEDULER": "true"}
    with machine.started(
        "sync", kind, "--scheduled", "--wait", "60", "--json", first=_LATER.format(seconds=seconds), **variables
    ) as process:
        text, said = process.communicate()
        assert process.wait() == 0, said
    document: dict[str, Any] = json.loads(text)
    return document


def test_an_hour_with_two_hosts(tmp_path: Path) -> None:
    """Timers of both hosts fire at the same moments; from the half hour on, the first one is gone."""
    done: Counter[tuple[str, int]] = Counter()
    with Sandbox(skills=60, seed=3) as sandbox, server(binaries()) as url:
        machine = Machine(sandbox, tmp_path)
        assert machine.command("db", "upgrade", ATOM_SAAS_DATABASE_URL=url).returncode == 0

        def fire(host: str, minute: int) -> None:
            for kind, minutes in (("skills", 15), ("ratings", 30)):
                if minute % minutes == 0:
                    found = scheduled(machine, url, host, kind, minute * 60)
                    assert found["status"] in {"success", "skipped"}, found
                    done[kind, minute] += found["status"] == "success"

        for minute in range(0, 60, 15):
            hosts = ["one", "two"] if minute < 30 else ["two"]
            threads = [threading.Thread(target=fire, args=(host, minute)) for host in hosts]
            for each in threads:
                each.start()
            for each in threads:
                each.join()
        with opened(url) as database:
            rows = database.connection.execute("SELECT kind, host FROM sync_run WHERE status = 'success'").fetchall()
    assert done == {("skills", minute): 1 for minute in (0, 15, 30, 45)} | {("ratings", 0): 1, ("ratings", 30): 1}
    assert len(rows) == sum(done.values())
    print(Counter(map(tuple, rows)))  # noqa: T201


def ip(*words: str, inside: bool = False) -> None:
    subprocess.run(["ip", *(["-n", _SPACE] if inside else []), *words], check=True, timeout=30)


@contextmanager
def server_behind_two_links() -> Iterator[tuple[str, str]]:
    """Run a server in a network namespace and yield its URLs over two links, `link1` and `link2`."""
    ip("netns", "add", _SPACE)
    try:
        for number in (1, 2):
            ip("link", "add", f"link{number}", "type", "veth", "peer", "name", f"far{number}", "netns", _SPACE)
            ip("addr", "add", f"10.231.{number}.1/30", "dev", f"link{number}")
            ip("addr", "add", f"10.231.{number}.2/30", "dev", f"far{number}", inside=True)
            ip("link", "set", f"link{number}", "up")
            ip("link", "set", f"far{number}", "up", inside=True)
        ready, finished = threading.Event(), threading.Event()
        with tempfile.TemporaryDirectory(prefix="hba", dir="/tmp") as directory:
            rules = Path(directory) / "pg_hba.conf"
            rules.write_text("local all all trust\nhost all all 10.231.0.0/16 trust\n", encoding="utf-8")
            Path(directory).chmod(0o755)

            def serve() -> None:
                with open(f"/run/netns/{_SPACE}", "rb") as space:  # noqa: PTH123 - of this thread only
                    assert ctypes.CDLL(None).setns(space.fileno(), _NEW_NETWORK) == 0
                with server(binaries(), "listen_addresses=*", f"hba_file={rules}"):
                    ready.set()
                    finished.wait()

            thread = threading.Thread(target=serve)
            thread.start()
            try:
                assert ready.wait(60)
                yield tuple(f"postgresql://atom@10.231.{number}.2/postgres?sslmode=disable" for number in (1, 2))  # type: ignore[misc]
            finally:
                finished.set()
                thread.join()
    finally:
        ip("netns", "del", _SPACE)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make network namespaces")
def test_a_host_whose_link_is_cut_is_replaced_and_writes_nothing_more(tmp_path: Path) -> None:
    with Sandbox(skills=60, seed=3) as sandbox, server_behind_two_links() as (first, second):
        machine = Machine(sandbox, tmp_path)
        assert machine.command("sync", "skills", ATOM_SAAS_DATABASE_URL=second).returncode == 0

        def watching() -> str | None:
            with opened(second, read_only=True) as database:
                return (holder(database, "watch") or {}).get("host")

        with (
            machine.started("watch", ATOM_SAAS_DATABASE_URL=first, ATOM_SYNC_HOST="one") as one,
            machine.started("watch", "--wait", ATOM_SAAS_DATABASE_URL=second, ATOM_SYNC_HOST="two"),
        ):
            # The second one may have come first.
            wait_until(lambda: watching() is not None, timeout=60)
            cut_off, other = ("one", "two") if watching() == "one" else ("two", "one")
            assert cut_off == "one", "start the first one earlier"
            began = time.monotonic()
            ip("link", "set", "link1", "down")
            wait_until(lambda: watching() == other, timeout=2 * _TAKE_OVER_SECONDS)
            took = time.monotonic() - began
            ip("link", "set", "link1", "up")
            # Changed while `one` believes that the lock is its own: it must not apply this.
            sandbox.patch_skill(sandbox.skill_ids()[0], {"description": "by message", "version": "99.0.0"})
            code = one.wait(timeout=120)
            assert code in {74, 75}, code
            assert watching() == "two"
    print(f"the other host took over {took:.1f} s after the link was cut")  # noqa: T201
    assert took <= _TAKE_OVER_SECONDS
