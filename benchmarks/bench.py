"""Syncs against the floor, as ratios in one run: `make bench`, or `python benchmarks/bench.py SKILLS… [--runs N]`.

Each figure is the median of several runs, ours and the floor's in turn, so that a machine whose speed drifts changes
both. The sandbox encodes its pages before the clock starts. Whole processes, start-up included; peak memory is the
child's own.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from atom_saas_sync.sandbox import Sandbox

FLOOR = Path(__file__).with_name("floor.py")


# A child's own peak: what the kernel accounts to it otherwise begins with the peak of the process that started it.
_OURS = (
    "import runpy, sys; sys.argv = ['atom-sync', 'sync', 'skills', '--json']\n"
    "try: runpy.run_module('atom_saas_sync', run_name='__main__')\n"
    "finally: print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0], file=sys.stderr)"
)


def timed(command: list[str], environment: dict[str, str] | None = None) -> tuple[float, str]:
    """Run a command; return its wall time in seconds and what it said on standard error."""
    started = time.perf_counter()
    done = subprocess.run(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True
    )
    return time.perf_counter() - started, done.stderr


def measure(sandbox: Sandbox, skills: int, runs: int) -> None:
    """Print one line of the table."""
    first, floor, again, changed, memory = [], [], [], [], []
    ours = [sys.executable, "-c", _OURS]
    for run in range(runs + 1):
        with tempfile.TemporaryDirectory() as directory:
            environment = {
                "PATH": os.environ["PATH"],
                "ATOM_SAAS_API_URL": sandbox.url,
                "ATOM_SAAS_API_TOKEN": sandbox.token,
                "ATOM_SAAS_DATABASE_URL": f"{directory}/atom.db",
            }
            floor_seconds, _ = timed([sys.executable, str(FLOOR), sandbox.url, sandbox.token, f"{directory}/floor.db"])
            first_seconds, said = timed(ours, environment)
            again_seconds, _ = timed(ours, environment)
            for skill_id in sandbox.skill_ids()[::100]:
                sandbox.patch_skill(skill_id, {"description": f"changed in run {run}"}, push=False)
            sandbox.warm()
            changed_seconds, _ = timed(ours, environment)
        if run:  # the first run warms the machine
            floor.append(floor_seconds)
            first.append(first_seconds)
            again.append(again_seconds)
            changed.append(changed_seconds)
            memory.append(int(said.split()[-1]) / 1024)
    ratio = statistics.median(mine / theirs for mine, theirs in zip(first, floor, strict=True))
    once = statistics.median(first)
    print(
        f"| {skills:,} | {statistics.median(floor):.2f} s | {once:.2f} s | {ratio:.2f} "
        f"| {statistics.median(again) / once:.3f} | {statistics.median(changed) / once:.3f} "
        f"| {statistics.median(memory):.0f} MB |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("skills", nargs="*", type=int, default=[1000, 5000, 50_000])
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    print("| skills | floor | first sync | first / floor | no change / first | 1% changed / first | peak memory |")
    print("|---|---|---|---|---|---|---|")
    for skills in arguments.skills:
        with Sandbox(skills=skills) as sandbox:
            sandbox.warm()
            measure(sandbox, skills, arguments.runs)


if __name__ == "__main__":
    main()
