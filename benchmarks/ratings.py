"""How much faster ten connections send ratings than one: `python benchmarks/ratings.py [RATINGS [RATINGS_ONE_BY_ONE]]`.

The sandbox is a process of its own and answers after 20 ms. Sending one at a time takes two minutes for 5,000.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from atom_saas_sync.cli.runtime import RunClock
from atom_saas_sync.marketplace.client import MarketplaceClient
from atom_saas_sync.marketplace.dialects import DIALECTS
from atom_saas_sync.sandbox import Sandbox
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.store.sqlite.ratings import Ratings
from atom_saas_sync.store.sqlite.requests import RequestBudget
from atom_saas_sync.store.sqlite.runs import Runs
from atom_saas_sync.usecases.sync_ratings import RatingOptions, RatingSync


class NoRequestsLeft:
    """Leaves no requests for looking at what is there."""

    def free(self, _now: datetime) -> int:
        """Return none."""
        return 0


def serve() -> None:
    with Sandbox(skills=60, seed=3, latency=0.02) as sandbox:
        print(sandbox.url, sandbox.token, *sandbox.skill_ids(), flush=True)
        sys.stdin.readline()
        print(len(sandbox.ratings()), sandbox.counters()["connections_max"], flush=True)


def measure(number: int, workers: int) -> float:
    """Send `number` ratings and return the seconds for each."""
    command = [sys.executable, __file__, "serve"]
    with (
        tempfile.TemporaryDirectory() as directory,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server,
        Database.open(Path(directory) / "atom.db") as database,
    ):
        assert server.stdout is not None
        url, token, *skills = server.stdout.readline().split()
        with database.transaction() as connection:
            connection.executemany(
                "INSERT INTO skill_rating (skill_id, user_id, rating, review) VALUES (?, ?, 4, 'good')",
                [(skills[each % len(skills)], f"user{each}") for each in range(number)],
            )
        clock, budget = RunClock(), RequestBudget(database.path, per_minute=100_000, per_hour=100_000)
        client = MarketplaceClient(
            base_url=url,
            token=token,
            instance_id="benchmark",
            dialect=DIALECTS["v1"],
            timeout_seconds=30,
            clock=clock,
            budget=budget,
            random=random.random,
        )
        sync = RatingSync(
            marketplace=client,
            ratings=Ratings(database),
            runs=Runs(database),
            budget=NoRequestsLeft(),
            clock=clock,
            options=RatingOptions(),
            check=clock.check,
            workers=workers,
        )
        start = time.perf_counter()
        sync.run(started_by="benchmark")
        seconds = time.perf_counter() - start
        client.close()
        budget.close()
        there, connections = server.communicate("\n")[0].split()
    assert int(there) == number
    print(
        f"{number} ratings, {workers} at a time: {seconds:.1f} s, {number / seconds:.0f}/s, {connections} connections"
    )
    return seconds / number


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        numbers = [int(argument) for argument in sys.argv[1:]] or [5000, 5000]
        print(f"{measure(numbers[-1], 1) / measure(numbers[0], 10):.1f} times as fast")
