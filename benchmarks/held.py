"""What a sync costs that holds changes, against one that applies them: `python benchmarks/held.py [SKILLS [CHANGED]]`.

Two databases follow one sandbox, one under `open` and one under `review`. In each round the same skills change, both
are synced, in turns first, and the CPU time of the whole command is compared.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile

from atom_saas_sync.sandbox import Sandbox

ROUNDS = 6


def synced(sandbox: Sandbox, directory: str, name: str, policy: str) -> tuple[float, dict[str, int]]:
    """Sync the database `name` under `policy`; return the seconds of CPU and what became of the updates."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(
        [sys.executable, "-m", "atom_saas_sync", "sync", "skills", "--json"],
        env={
            "PATH": os.environ["PATH"],
            "ATOM_SAAS_API_URL": sandbox.url,
            "ATOM_SAAS_API_TOKEN": sandbox.token,
            "ATOM_SAAS_WS_ENABLED": "false",
            "ATOM_SAAS_DATABASE_URL": f"{directory}/{name}.db",
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


def main() -> None:
    skills, changed = (*map(int, sys.argv[1:]), *(10_000, 100)[len(sys.argv) - 1 :])
    with Sandbox(skills=skills, rate_limit=10**9) as sandbox, tempfile.TemporaryDirectory() as directory:
        sandbox.warm()
        for name in ("open", "review"):
            synced(sandbox, directory, name, "open")
        synced(sandbox, directory, "review", "review")
        seconds: dict[str, list[float]] = {"open": [], "review": []}
        touched = sandbox.skill_ids()[:: skills // changed][:changed]
        for number in range(ROUNDS):
            for skill_id in touched:
                sandbox.patch_skill(skill_id, {"description": f"round {number}", "version": f"9.{number}"}, push=False)
            sandbox.warm()
            for policy in sorted(seconds, reverse=number % 2 == 1):
                spent, updates = synced(sandbox, directory, policy, policy)
                seconds[policy].append(spent)
                assert updates["held" if policy == "review" else "admitted"] == changed, (policy, updates)
        applied, held = (statistics.median(seconds[policy]) for policy in ("open", "review"))
        ratio = statistics.median(b / a for a, b in zip(seconds["open"], seconds["review"], strict=True))
        print(f"{skills:,} skills, {changed:,} changed: applied {applied:.2f} s, held {held:.2f} s, ratio {ratio:.2f}")


main()
