"""The cost of a sync that holds changes, compared with one that applies them.

`python benchmarks/held.py [SKILLS [CHANGED]]`.

Two databases follow one sandbox, one under `open` and one under `review`. Then some skills change, once. In each round
copies of both databases are synced, in turns first; the CPU time of the whole command is compared.
"""

from __future__ import annotations

import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench import environment_of
from compare import interval

from atom_saas_sync.sandbox import Sandbox

ROUNDS = 9
POLICIES = ("open", "review")


def synced(sandbox: Sandbox, database: Path, policy: str) -> tuple[float, dict[str, int]]:
    """Sync `database` under `policy`; return the seconds of CPU and what became of the updates."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(
        [sys.executable, "-m", "atom_saas_sync", "sync", "skills", "--json"],
        env={
            **environment_of(sandbox.url, sandbox.token, str(database.parent)),
            "ATOM_SAAS_DATABASE_URL": str(database),
            "ATOM_SYNC_ADMISSION": policy,
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    updates: dict[str, int] = json.loads(result.stdout)["updates"]
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, updates


def prepare(sandbox: Sandbox, directory: Path) -> None:
    """Write a database for each policy that has the whole catalogue, admitted."""
    synced(sandbox, directory / "open.db", "open")
    shutil.copyfile(directory / "open.db", directory / "review.db")
    for policy in POLICIES:
        synced(sandbox, directory / f"{policy}.db", policy)


def one_round(sandbox: Sandbox, directory: Path, policies: Sequence[str], changed: int) -> dict[str, float]:
    """Sync a copy of the database of each policy; return the seconds of CPU that each took."""
    seconds = {}
    with tempfile.TemporaryDirectory(dir=directory) as place:
        for policy in policies:
            copy = Path(place, f"{policy}.db")
            shutil.copyfile(directory / copy.name, copy)
            seconds[policy], updates = synced(sandbox, copy, policy)
            assert updates["held" if policy == "review" else "admitted"] == changed, (policy, updates)
            copy.unlink()
    return seconds


def main() -> None:
    skills, changed = (*map(int, sys.argv[1:]), *(10_000, 100)[len(sys.argv) - 1 :])
    with Sandbox(skills=skills, rate_limit=10**9) as sandbox, tempfile.TemporaryDirectory() as directory:
        sandbox.state.warm(codings=("zstd",))
        prepare(sandbox, Path(directory))
        for skill_id in sandbox.skill_ids()[:: skills // changed][:changed]:
            sandbox.patch_skill(skill_id, {"description": "changed", "version": "9.0"}, push=False)
        sandbox.state.warm(codings=("zstd",))
        rounds = []
        for number in range(ROUNDS):
            rounds.append(one_round(sandbox, Path(directory), POLICIES[:: 1 if number % 2 else -1], changed))
            print(
                f"round {number + 1} of {ROUNDS}: " + ", ".join(f"{p} {rounds[-1][p]:.2f} s" for p in POLICIES),
                flush=True,
            )
    ratios = [seconds["review"] / seconds["open"] for seconds in rounds]
    applied, held = (statistics.median(seconds[policy] for seconds in rounds) for policy in POLICIES)
    low, high = interval(ratios)
    print(
        f"{skills:,} skills, {changed:,} changed: applied {applied:.2f} s, held {held:.2f} s, "
        f"ratio {statistics.median(ratios):.3f} ({low:.3f} to {high:.3f})"
    )


main()
