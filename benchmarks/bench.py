"""All statements about speed, measured in one run and as ratios: `make bench`, or `python benchmarks/bench.py PART…`.

    syncs      first sync, no change, 1% changed, and peak memory, against the floor (benchmarks/floor.py)
    links      the same over slow links: latency of 20 and 100 ms, 100 and 10 Mbit/s; six connections against one
    scripts    a first sync against an administrator's script (benchmarks/others.py)
    dlt        a first and a second sync against dlt; needs .venv-bench, which `make bench` makes
    starts     --help, `status --json` and each command's help, against the least that a Typer application can be
    search     searches in 50,000 skills, inside the process
    websocket  latency and floods (benchmarks/websocket.py)
    ratings    an upload, ten at a time against one at a time (benchmarks/ratings.py)
    liveness   probes of `serve-health` during a sync (benchmarks/liveness.py)

Whole processes, start-up included; ours and the other's run in turn, so that a machine whose speed drifts changes both;
each figure is the median of several runs, after one that does not count. The sandbox encodes its pages before the clock
starts. `--plot FILE` draws the syncs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from atom_saas_sync.cli.main import PARTS as COMMANDS
from atom_saas_sync.model import SkillFilter
from atom_saas_sync.sandbox import Sandbox
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.store.sqlite.reading import Reading

HERE = Path(__file__).parent
PYTHON = sys.executable
DLT_PYTHON = HERE.parent / ".venv-bench" / "bin" / "python"

# A child's own peak: what the kernel accounts to it otherwise begins with the peak of the process that started it.
_OURS = (
    "import runpy, sys; sys.argv = ['atom-sync', 'sync', 'skills', '--json']\n"
    "try: runpy.run_module('atom_saas_sync', run_name='__main__')\n"
    "finally: print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0], file=sys.stderr)"
)


class Arguments(NamedTuple):
    """The requested measurements."""

    skills: list[int]
    runs: int
    plot: Path | None


class Timed(NamedTuple):
    """An ended process."""

    seconds: float
    said: str


def timed(command: list[str], environment: dict[str, str] | None = None) -> Timed:
    """Run a command to its end."""
    started = time.perf_counter()
    done = subprocess.run(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"{command[:3]} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return Timed(time.perf_counter() - started, done.stderr)


def sync(sandbox: Sandbox, directory: str, **variables: str) -> Timed:
    """Run `sync skills` on the database in that directory."""
    return timed([PYTHON, "-c", _OURS], environment_of(sandbox.url, sandbox.token, directory) | variables)


def environment_of(url: str, token: str, directory: str) -> dict[str, str]:
    """Return the environment of a command, with limits that it cannot reach."""
    return {
        "PATH": os.environ["PATH"],
        "ATOM_SAAS_API_URL": url,
        "ATOM_SAAS_WS_ENABLED": "false",
        "ATOM_SAAS_API_TOKEN": token,
        "ATOM_SAAS_DATABASE_URL": f"{directory}/atom.db",
        "ATOM_SAAS_RATE_LIMIT_PER_MINUTE": "100000",
        "ATOM_SAAS_RATE_LIMIT_PER_HOUR": "100000",
    }


def ratio(mine: list[float], theirs: list[float]) -> float:
    """Return the median ratio of consecutive runs."""
    return statistics.median(one / other for one, other in zip(mine, theirs, strict=True))


@contextmanager
def catalogue(skills: int) -> Iterator[Sandbox]:
    with Sandbox(skills=skills) as sandbox:
        sandbox.warm()
        yield sandbox


def change_one_percent(sandbox: Sandbox, run: int) -> None:
    """Change every hundredth skill, which is some on every page."""
    for skill_id in sandbox.skill_ids()[::100]:
        sandbox.patch_skill(skill_id, {"description": f"changed in run {run}"}, push=False)
    sandbox.warm()


def measure_syncs(arguments: Arguments) -> None:
    print("| skills | floor | first sync | first / floor | no change / first | 1% changed / first | peak memory |")
    print("|---|---|---|---|---|---|---|")
    ratios = []
    for skills in arguments.skills:
        with catalogue(skills) as sandbox:
            ratios.append((skills, *measure_size(sandbox, skills, arguments.runs)))
    if arguments.plot is not None:
        arguments.plot.write_text(plot(ratios), encoding="utf-8")


def measure_size(sandbox: Sandbox, skills: int, runs: int) -> tuple[float, float, float]:
    """Print one line of the table, and return its ratios."""
    first, floor, again, changed, memory = [], [], [], [], []
    for run in range(runs + 1):
        with tempfile.TemporaryDirectory() as directory:
            floors = timed([PYTHON, str(HERE / "floor.py"), sandbox.url, sandbox.token, f"{directory}/floor.db"])
            Path(f"{directory}/floor.db").unlink()
            firsts = sync(sandbox, directory)
            agains = sync(sandbox, directory)
            change_one_percent(sandbox, run)
            changeds = sync(sandbox, directory)
        if run or runs == 1:  # the first run warms the machine
            floor.append(floors.seconds)
            first.append(firsts.seconds)
            again.append(agains.seconds)
            changed.append(changeds.seconds)
            memory.append(int(firsts.said.split()[-1]) / 1024)
        if runs == 1:
            break
    once = statistics.median(first)
    ratios = ratio(first, floor), statistics.median(again) / once, statistics.median(changed) / once
    print(
        f"| {skills:,} | {statistics.median(floor):.2f} s | {once:.2f} s | {ratios[0]:.2f} "
        f"| {ratios[1]:.3f} | {ratios[2]:.3f} | {statistics.median(memory):.0f} MB |",
        flush=True,
    )
    return ratios


LINKS = ((0, 0), (20, 100), (100, 100), (100, 10))
"""Milliseconds of latency, and Mbit a second; 0 means no limit."""

_MOST_OVER_A_NARROW_LINK = 5000
"""The number of skills at 10 Mbit/s: the floor, without compression, takes more than three minutes for 50,000."""


def measure_links(arguments: Arguments) -> None:
    print("| skills | link | alone | floor | first sync | first / near | no change | one by one | six / one | peak |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for skills in arguments.skills:
        with catalogue(skills) as sandbox:
            near: float | None = None
            for latency, megabits in LINKS:
                if skills <= _MOST_OVER_A_NARROW_LINK or megabits != min(filter(None, (each for _, each in LINKS))):
                    near = measure_link(sandbox, skills, latency, megabits, near, arguments.runs)


def measure_link(sandbox: Sandbox, skills: int, latency: int, megabits: int, near: float | None, runs: int) -> float:
    """Print one line of the table; return how long a first sync takes over the nearest link."""
    times: dict[str, list[float]] = {"floor": [], "first": [], "six": [], "one": []}
    memory, received = 0, 0
    for _ in range(max(1, runs // 2)):
        with tempfile.TemporaryDirectory() as directory:
            sandbox.set_latency(latency / 1000)
            sandbox.set_bandwidth(megabits * 125_000)
            floor = timed([PYTHON, str(HERE / "floor.py"), sandbox.url, sandbox.token, f"{directory}/floor.db"])
            Path(f"{directory}/floor.db").unlink()
            sandbox.journal.reset()
            first = sync(sandbox, directory)
            received = sum(entry.bytes for entry in sandbox.requests("list"))
            times["floor"].append(floor.seconds)
            times["first"].append(first.seconds)
            times["six"].append(sync(sandbox, directory).seconds)
            times["one"].append(sync(sandbox, directory, ATOM_SAAS_SYNC_CONNECTIONS="1").seconds)
            memory = max(memory, int(first.said.split()[-1]) // 1024)
    floor_seconds, once, six, one = (statistics.median(each) for each in times.values())
    near = near or once
    alone = received / (megabits * 125_000) if megabits else 0.0
    link = f"{latency} ms, {megabits} Mbit/s" if megabits else "loopback"
    print(
        f"| {skills:,} | {link} | {alone:.1f} s | {floor_seconds:.2f} s | {once:.2f} s | {once / near:.2f} "
        f"| {six:.2f} s | {one:.2f} s | {ratio(times['six'], times['one']):.2f} | {memory} MB |",
        flush=True,
    )
    return near


def plot(rows: list[tuple[int, float, float, float]]) -> str:
    """Return an SVG: a group of three bars for each size, on a transparent background for dark and light pages."""
    names, tints = ("first sync / floor", "no change / first", "1% changed / first"), ("#4c78a8", "#72b7b2", "#e0863c")
    scale, base, width = 110.0, 300, 640
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} 350" role="img" font-family="sans-serif" '
        'font-size="13" fill="#888"><title>Time of syncs as ratios, by the number of skills</title>'
    )
    parts = [head]
    for line in (0.0, 0.5, 1.0, 1.5, 2.0, 2.5):
        y = base - line * scale
        parts.append(f'<path d="M40 {y:.0f}H{width}" stroke="#888" stroke-width="{1 if line == 1 else 0.3}"/>')
        parts.append(f'<text x="4" y="{y + 4:.0f}">{line:.1f}</text>')
    for group, (skills, *ratios) in enumerate(rows):
        left = 60 + group * (width - 60) // len(rows)
        for bar, (value, tint) in enumerate(zip(ratios, tints, strict=True)):
            x, height = left + bar * 36, value * scale
            parts.append(f'<rect x="{x}" y="{base - height:.1f}" width="32" height="{height:.1f}" fill="{tint}"/>')
            label = f"{value:.2f}"
            parts.append(f'<text x="{x + 16}" y="{base - height - 5:.1f}" text-anchor="middle">{label}</text>')
        parts.append(f'<text x="{left + 52}" y="{base + 18}" text-anchor="middle">{skills:,} skills</text>')
    for number, (name, tint) in enumerate(zip(names, tints, strict=True)):
        parts.append(f'<rect x="{60 + number * 180}" y="{base + 32}" width="12" height="12" fill="{tint}"/>')
        parts.append(f'<text x="{78 + number * 180}" y="{base + 43}">{name}</text>')
    return "\n".join([*parts, "</svg>\n"])


def measure_scripts(arguments: Arguments) -> None:
    skills = max(each for each in arguments.skills if each <= 50_000)
    print(f"| a first sync of {skills:,} | theirs | ours | theirs / ours |")
    print("|---|---|---|---|")
    with catalogue(skills) as sandbox:
        for what, told in (("loop", "`curl`, `jq`, `sqlite-utils upsert`, a page at a time"), ("pipe", "in one pipe")):
            theirs, ours = [], []
            for _ in range(max(1, arguments.runs // 2)):
                with tempfile.TemporaryDirectory() as directory:
                    others = str(HERE / "others.py")
                    script = [PYTHON, others, what, sandbox.url, sandbox.token, f"{directory}/other.db"]
                    theirs.append(timed(script).seconds)
                    Path(f"{directory}/other.db").unlink()
                    ours.append(sync(sandbox, directory).seconds)
            compare(told, theirs, ours)


def measure_dlt(arguments: Arguments) -> None:
    if not DLT_PYTHON.exists():
        sys.exit("no .venv-bench with dlt in it: `make bench` makes it")
    skills = min(5000, max(arguments.skills))
    print(f"| {skills:,} skills, against dlt | theirs | ours | theirs / ours |")
    print("|---|---|---|---|")
    firsts: tuple[list[float], list[float]] = [], []
    seconds: tuple[list[float], list[float]] = [], []
    with catalogue(skills) as sandbox:
        for _ in range(max(1, arguments.runs // 2)):
            with tempfile.TemporaryDirectory() as directory:
                others = str(HERE / "others.py")
                script = [str(DLT_PYTHON), others, "dlt", sandbox.url, sandbox.token, f"{directory}/other.db"]
                environment = {"PATH": os.environ["PATH"], "HOME": directory}
                for theirs, ours in (firsts, seconds):
                    theirs.append(timed(script, environment).seconds)
                    ours.append(sync(sandbox, directory).seconds)
    compare("first sync", *firsts)
    compare("second, nothing new", *seconds)


def compare(told: str, theirs: list[float], ours: list[float]) -> None:
    print(
        f"| {told} | {statistics.median(theirs):.2f} s | {statistics.median(ours):.2f} s | {ratio(theirs, ours):.1f} |",
        flush=True,
    )


def measure_starts(arguments: Arguments) -> None:
    bare = [PYTHON, str(HERE / "bare.py")]
    runs = 3 * arguments.runs
    with catalogue(1000) as sandbox, tempfile.TemporaryDirectory() as directory:
        sync(sandbox, directory)
        environment = environment_of(sandbox.url, sandbox.token, directory)
        bare_status = [*bare, "status", "--json", "--database", f"{directory}/atom.db"]
        print("| start | bare Typer | ours | ours / bare |")
        print("|---|---|---|---|")
        pairs = [(["--help"], [*bare, "--help"]), (["status", "--json"], bare_status)]
        pairs += [([name, "--help"], [*bare, "other", "--help"]) for name in sorted(COMMANDS)]
        for ours, theirs in pairs:
            mine, others = [], []
            for _ in range(runs):
                others.append(timed(theirs, environment).seconds)
                mine.append(timed([PYTHON, "-m", "atom_saas_sync", *ours], environment).seconds)
            print(
                f"| `{' '.join(ours)}` | {1000 * statistics.median(others):.0f} ms "
                f"| {1000 * statistics.median(mine):.0f} ms | {ratio(mine, others):.2f} |",
                flush=True,
            )
        others, mine = [], []
        for _ in range(runs):
            others.append(timed([PYTHON, "-c", "import httpx"], environment).seconds)
            mine.append(sync(sandbox, directory).seconds)
        print("\n| 1,000 skills, nothing new | `import httpx` | `sync skills` | ratio |")
        print("|---|---|---|---|")
        print(
            f"| | {1000 * statistics.median(others):.0f} ms | {1000 * statistics.median(mine):.0f} ms "
            f"| {ratio(mine, others):.2f} |",
            flush=True,
        )


def measure_search(arguments: Arguments) -> None:
    skills = max(each for each in arguments.skills if each <= 50_000)
    print(f"| search in {skills:,} skills, inside the process | found | median | slowest of 50 |")
    print("|---|---|---|---|")
    with catalogue(skills) as sandbox, tempfile.TemporaryDirectory() as directory:
        sync(sandbox, directory)
        with Database.open(Path(directory) / "atom.db") as database:
            reading = Reading(database, now=datetime.now(UTC))
            for text in ("backup", "certificate renew", "the", "invoice pri", "no such word at all"):
                times, found = [], 0
                for _ in range(50):
                    started = time.perf_counter()
                    _, found = reading.search(text, SkillFilter(), limit=20)
                    times.append(1000 * (time.perf_counter() - started))
                print(f"| {text} | {found:,} | {statistics.median(times):.1f} ms | {max(times):.1f} ms |", flush=True)


def run_script(name: str) -> Callable[[Arguments], None]:
    """Return a function that runs a benchmark in a separate program."""
    return lambda _: print(subprocess.check_output([PYTHON, str(HERE / name)], text=True), flush=True)


PARTS: dict[str, Callable[[Arguments], None]] = {
    "syncs": measure_syncs,
    "links": measure_links,
    "scripts": measure_scripts,
    "dlt": measure_dlt,
    "starts": measure_starts,
    "search": measure_search,
    "websocket": run_script("websocket.py"),
    "ratings": run_script("ratings.py"),
    "liveness": run_script("liveness.py"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="all by default")
    parser.add_argument("--skills", nargs="+", type=int, default=[1000, 5000, 50_000], help="sizes of the catalogue")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--plot", type=Path, help="draw the syncs into this SVG file")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(unknown)}")
    for part in given.parts or PARTS:
        print(f"\n## {part}\n", flush=True)
        PARTS[part](Arguments(given.skills, given.runs, given.plot))


if __name__ == "__main__":
    main()
