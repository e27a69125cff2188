"""`kill -9` at any time: the database keeps its rules, and one more run completes the work.

`make crash` kills more than 500 times; `make test` kills at these points, three times in a row each.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from crash_support import SCENARIOS, Trials, kill_at_random

from atom_saas_sync.sandbox import Sandbox

pytestmark = pytest.mark.sqlite("kills while its file is written; test_server_crashes.py has those of a server")

# Within a transaction, before a commit and after one. Successive kills use the same database.
POINTS = {
    "first sync": (30, 58, 50),
    "sync of changes": (40, 49, 83),
    "ratings": (23, 80, 60),
    "watch": (30, 60, 120),
    "upgrade": (3, 20, 40),
    "downgrade": (5, 15, 21),
    "backup": (3, 6, 7),
    "restore": (9, 25, 34),
    "textfile": (2, 3, 4),
    "purge": (5, 13, 14),
    "resolve": (9, 16, 17),
}
_STATEMENTS = 30
_AT_RANDOM = 20
_POINTS_OF_WATCH = 150


@pytest.mark.parametrize("name", SCENARIOS)
def test_killed_three_times(name: str, sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.set_clock_offset(0)
    trials = Trials(SCENARIOS[name], sandbox, tmp_path)
    trials.kill_at(*POINTS[name])
    assert (trials.killed, trials.late) == (3, 0), trials.points


@pytest.mark.soak
@pytest.mark.parametrize("name", SCENARIOS)
def test_killed_everywhere(name: str, tmp_path: Path) -> None:
    with Sandbox(skills=60, seed=3) as sandbox:
        trials = Trials(SCENARIOS[name], sandbox, tmp_path)
        for point in interesting([] if name == "watch" else trials.pass_points()):
            trials.kill_at(point)
        # Many kills on one database, without letting a run finish.
        trials.kill_at(*(5 + 7 * each for each in range(5)))
        kill_at_random(trials, _AT_RANDOM, seed=7)
        kills = dict(sorted(trials.points.items()))
        assert trials.killed >= _AT_RANDOM or name == "textfile", trials.points  # which has four points and no time
        print(f"{name}: {trials.killed} kills survived, {trials.late} came too late: {kills}")  # noqa: T201


def interesting(points: list[str]) -> list[int]:
    """Return the points around each commit, flush and rename, and some in the middle of transactions."""
    if not points:
        return list(range(2, _POINTS_OF_WATCH, 2))
    around = [number for number, name in enumerate(points, 1) if name not in {"after a statement", "after begin"}]
    others = [number for number in range(1, len(points) + 1) if number not in around]
    return sorted({*around[:: 1 + len(around) // 60], *others[:: 1 + len(others) // _STATEMENTS]})
