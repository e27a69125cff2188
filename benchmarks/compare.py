"""Compare this checkout with another commit: `python benchmarks/compare.py REV [PART…]`.

    first      a first sync
    unchanged  a sync that finds nothing new
    changed    a sync that finds 1% of the skills changed
    flood      whole skills over the WebSocket, whose indexed text stays
    starts     `--help` and `status --json`

REV is unpacked beside this checkout, both are installed into environments of their own, and both do the same work in
turn (REV, this, REV, this, …), as whole processes against the same sandbox. Printed are the median of the ratios
this / REV of each pair, and the 95% confidence interval of that median. A goal such as "within 3%" is met if the lower
end of the interval is at most 1.03.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import comb
from pathlib import Path
from typing import NamedTuple

import websocket
from bench import catalogue, change_one_percent, environment_of, timed

from atom_saas_sync.sandbox import Sandbox

ROOT = Path(__file__).resolve().parent.parent
FEWEST_PAIRS = 15
SKILLS = 5000
# So many floods before those that count: the first ones fill the history of each skill.
WARM = 2
CONFIDENCE = 0.95


class Side(NamedTuple):
    """One of the two versions: its installed programs."""

    name: str
    python: Path
    program: Path


class Pair(NamedTuple):
    """The seconds that REV and this checkout took for the same work, in turn."""

    before: float
    now: float


# Statistics


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """Return the confidence interval of the median, by order statistics: no distribution is assumed."""
    ordered, count = sorted(ratios), len(ratios)
    tail, rank = 0.0, 0
    while rank < count // 2 and tail + comb(count, rank) / 2**count <= (1 - CONFIDENCE) / 2:
        tail += comb(count, rank) / 2**count
        rank += 1
    lower = max(0, rank - 1)
    return ordered[lower], ordered[count - 1 - lower]


def report(what: str, pairs: Sequence[Pair]) -> None:
    ratios = [pair.now / pair.before for pair in pairs]
    low, high = interval(ratios)
    print(
        f"| {what} | {statistics.median(pair.before for pair in pairs):.3f} s "
        f"| {statistics.median(pair.now for pair in pairs):.3f} s "
        f"| {statistics.median(ratios):.3f} | {low:.3f} to {high:.3f} | {len(pairs)} |",
        flush=True,
    )


# The two versions


@contextmanager
def both_sides(revision: str) -> Iterator[tuple[Side, Side]]:
    with tempfile.TemporaryDirectory(prefix="atom-sync-compare-") as directory:
        source = Path(directory, "source")
        unpack(revision, source)
        yield install("REV", source, Path(directory, "before")), install("this", ROOT, Path(directory, "now"))


def unpack(revision: str, target: Path) -> None:
    archive = target.with_suffix(".tar")
    subprocess.run(["git", "-C", ROOT, "archive", "--output", archive, revision], check=True)
    with tarfile.open(archive) as packed:
        packed.extractall(target, filter="data")


def install(name: str, source: Path, environment: Path) -> Side:
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", source], check=True)
    return Side(name, python, environment / "bin" / "atom-sync")


# The work


def measure_syncs(sides: Sequence[Side], parts: Sequence[str], skills: int, pairs: int) -> None:
    """Run a first sync, one without changes and one of 1% with both versions, each on its own database."""
    found: dict[str, list[Pair]] = {part: [] for part in parts}
    with catalogue(skills) as sandbox:
        for number in range(pairs + 1):
            with ExitStack() as stack:
                places = [stack.enter_context(tempfile.TemporaryDirectory()) for _ in sides]
                rounds = {"first": in_turn(sides, sandbox, places, "sync", "skills", "--json")}
                # Once more than is measured: the next run looks again at what was written in the second of the last.
                in_turn(sides, sandbox, places, "sync", "skills", "--json")
                rounds["unchanged"] = in_turn(sides, sandbox, places, "sync", "skills", "--json")
                if "changed" in parts:
                    change_one_percent(sandbox, number)
                    rounds["changed"] = in_turn(sides, sandbox, places, "sync", "skills", "--json")
            if number:  # the first round warms the machine
                for part in parts:
                    found[part].append(rounds[part])
    for part in parts:
        report(f"{part}, {skills:,} skills", found[part])


def in_turn(sides: Sequence[Side], sandbox: Sandbox, places: Sequence[str], *arguments: str) -> Pair:
    """Run the same command with both versions, each on the database in its own place."""
    seconds = []
    for side, place in zip(sides, places, strict=True):
        environment = environment_of(sandbox.url, sandbox.token, place)
        seconds.append(timed([str(side.program), *arguments], environment).seconds)
    return Pair(*seconds)


def measure_flood(sides: Sequence[Side], pairs: int) -> None:
    """Flood the `watch` of each version in turn; both run for the whole measurement, each with its own marketplace."""
    seconds: list[Pair] = []
    processor: list[Pair] = []
    with ExitStack() as stack:
        benches = [stack.enter_context(websocket.running(SKILLS, python=side.python)) for side in sides]
        for number in range(pairs + WARM):
            used = [bench.processor_seconds() for bench in benches]
            took = [websocket.flood(bench, "unchanged", SKILLS, warm=0) for bench in benches]
            if number >= WARM:
                seconds.append(Pair(*took))
                processor.append(
                    Pair(*(bench.processor_seconds() - before for bench, before in zip(benches, used, strict=True)))
                )
    report(f"flood of {SKILLS:,} messages", seconds)
    report("its processor time", processor)


def measure_starts(sides: Sequence[Side], pairs: int) -> None:
    with catalogue(1000) as sandbox, ExitStack() as stack:
        places = [stack.enter_context(tempfile.TemporaryDirectory()) for _ in sides]
        in_turn(sides, sandbox, places, "sync", "skills", "--json")
        for arguments in (["--help"], ["status", "--json"]):
            found = [in_turn(sides, sandbox, places, *arguments) for _ in range(2 * pairs + 1)]
            report(f"`{' '.join(arguments)}`", found[1:])


SYNCS = ("first", "unchanged", "changed")
OTHERS: dict[str, Callable[[Sequence[Side], int], None]] = {"flood": measure_flood, "starts": measure_starts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision", metavar="REV", help="the commit to compare with")
    parser.add_argument("parts", nargs="*", metavar="PART", help="default: all")
    parser.add_argument("--skills", nargs="+", type=int, default=[5000, 50_000], help="sizes of the catalogue")
    parser.add_argument("--pairs", type=int, default=FEWEST_PAIRS, help=f"at least {FEWEST_PAIRS}")
    given = parser.parse_args()
    if unknown := set(given.parts) - {*SYNCS, *OTHERS}:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if given.pairs < FEWEST_PAIRS:
        parser.error(f"--pairs: {FEWEST_PAIRS} or more, for an interval that means something")
    parts = given.parts or [*SYNCS, *OTHERS]
    with both_sides(given.revision) as sides:
        print(
            f"| work | {given.revision} | this | ratio | 95% interval | pairs |\n|---|---|---|---|---|---|", flush=True
        )
        if syncs := [part for part in SYNCS if part in parts]:
            for skills in given.skills:
                measure_syncs(sides, syncs, skills, given.pairs)
        for part, measure in OTHERS.items():
            if part in parts:
                measure(sides, given.pairs)


if __name__ == "__main__":
    main()
