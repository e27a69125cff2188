"""`kill -9` of clients, sessions and the server's own processes: the database keeps its rules, and work is completed.

`make crash` kills 500 times; `make test` a few times, without restarting the server that other tests use.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import Machine
from postgres_support import binaries, server
from server_crash_support import SCENARIOS, ServerTrials

from atom_saas_sync.sandbox import Sandbox

POINTS = (("sync", "client", 100), ("sync", "session", 151), ("ratings", "client", 40), ("purge", "session", 30))
KILLS = int(os.environ.get("SERVER_KILLS", "500"))


def test_killed_a_few_times(machine: Machine, postgresql_url: str) -> None:
    trials = ServerTrials(machine, postgresql_url, seed=1)
    machine.sandbox.set_clock_offset(0)
    trials.run("sync", "skills")
    for name, how, point in POINTS:
        trials.kill(name, how, point)
    assert trials.late == 0, trials.killed
    trials.complete()


@pytest.mark.soak
def test_killed_hundreds_of_times(tmp_path: Path) -> None:
    # As a server is in production, as far as a process that is killed can tell.
    settings = "synchronous_commit=on", "wal_level=replica"
    with Sandbox(skills=60, seed=3) as sandbox, server(binaries(), *settings) as url:
        trials = ServerTrials(Machine(sandbox, tmp_path), url, seed=7)
        trials.run("sync", "skills")
        ways = ["client"] * 6 + ["session"] * 3 + ["backend"]
        while sum(trials.killed.values()) < KILLS:
            assert trials.late < KILLS
            trials.kill(trials.chance.choice(list(SCENARIOS)), trials.chance.choice(ways))
            if not sum(trials.killed.values()) % 10:
                trials.complete()
        trials.complete()
        for name, number in sorted(trials.killed.items()):
            print(f"{name}: {number}")  # noqa: T201
        print(f"{sum(trials.killed.values())} kills survived, {trials.late} came too late")  # noqa: T201
