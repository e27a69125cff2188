"""`kill -9` of clients, sessions and the server's own processes: the database keeps its rules, and work is completed.

`make crash` kills 500 times; `make test` a few times, without restarting the server that other tests use.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from conftest import Machine, wait_until
from postgres_support import binaries, server
from server_crash_support import SCENARIOS, TRAP, ServerTrials
from server_support import opened

from atom_saas_sync.sandbox import Sandbox
from atom_saas_sync.store.postgresql import schema
from atom_saas_sync.store.postgresql.lock import holder

POINTS = (("sync", "client", 100), ("purge", "session", 30))
KILLS = int(os.environ.get("SERVER_KILLS", "500"))


def test_killed_twice(machine: Machine, postgresql_url: str) -> None:
    trials = ServerTrials(machine, postgresql_url, seed=1)
    machine.sandbox.set_clock_offset(0)
    trials.run("sync", "skills")
    for name, how, point in POINTS:
        trials.kill(name, how, point)
    assert trials.late == 0, trials.killed
    trials.complete()


def test_a_run_that_was_stopped_and_overtaken_writes_nothing_more(machine: Machine, postgresql_url: str) -> None:
    """A host that sleeps, as a laptop does: the server ends its session, another host takes over, and it wakes up."""
    address = {"ATOM_SAAS_DATABASE_URL": postgresql_url}
    assert machine.command("db", "upgrade", **address).returncode == 0
    trap = {
        "CRASH_TRACE": str(machine.directory / "trace"),
        "CRASH_POINT": "before BEGIN",
        "CRASH_AT": "6",
        "CRASH_HOW": "stop",
    }
    with machine.started("sync", "skills", first=TRAP, **address, **trap, ATOM_SYNC_HOST="asleep") as sleeper:
        wait_until(lambda: state_of(sleeper.pid) == "T")
        with opened(postgresql_url) as database:
            assert (holder(database, "skills") or {})["host"] == "asleep"
            database.connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE application_name = 'atom-sync/sync-skills'"
            )
        taken_over = machine.command("sync", "skills", **address, ATOM_SYNC_HOST="awake")
        assert taken_over.returncode == 0, taken_over.stderr
        before = contents(postgresql_url)
        sleeper.send_signal(signal.SIGCONT)
        _, said = sleeper.communicate()
        assert sleeper.wait() == 75, said
        assert "another skills run has taken the lock" in said
        assert contents(postgresql_url) == before


def state_of(pid: int) -> str:
    """Return the letter that stands for what a process does."""
    return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]


def contents(url: str) -> dict[str, list[Any]]:
    """Return all rows of all tables, but for the requests that every process counts."""
    with opened(url) as database, database.reading() as connection:
        return {
            table: connection.execute(f"SELECT t::text FROM {table} AS t ORDER BY 1".encode()).fetchall()
            for table in schema.expected_columns().keys() - {"request_budget", "fact"}
        }


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1, 5))
def test_killed_hundreds_of_times(tmp_path: Path, seed: int) -> None:
    # As a server is in production, as far as a process that is killed can tell.
    settings = "synchronous_commit=on", "wal_level=replica"
    with Sandbox(skills=60, seed=3) as sandbox, server(binaries(), *settings) as url:
        trials = ServerTrials(Machine(sandbox, tmp_path), url, seed=seed)
        trials.run("sync", "skills")
        ways = ["client"] * 6 + ["session"] * 3 + ["backend"]
        while sum(trials.killed.values()) < KILLS // 4:
            assert trials.late < KILLS
            trials.kill(trials.chance.choice(list(SCENARIOS)), trials.chance.choice(ways))
            if not sum(trials.killed.values()) % 10:
                trials.complete()
        trials.complete()
        for name, number in sorted(trials.killed.items()):
            print(f"{name}: {number}")  # noqa: T201
        print(f"{sum(trials.killed.values())} kills survived, {trials.late} came too late")  # noqa: T201
