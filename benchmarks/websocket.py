"""How fast messages get into the database, and how late: `python benchmarks/websocket.py [MEASUREMENT…] [--skills N]`.

Three processes: a sandbox that sends, the real `atom-sync watch`, and this one, which looks into the database as any
other program would. All messages are encoded before the clock starts. Measurements: `100`, `5000` (latency at that many
messages a second), `unchanged`, `partial`, `code` (floods: whole skills whose indexed text stays, the changed fields
alone, new text and new code).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from atom_saas_sync.sandbox import Sandbox
from atom_saas_sync.store.packing import unpack

FLOOD = 50_000
PATIENCE = 100.0
_READ = "SELECT json_extract(skill_data, '$.metadata.number') FROM skill_cache WHERE skill_id = ?"


# The process that sends


def serve(skills: int) -> None:
    """Be the marketplace: for each line on standard input, encode and send; say when."""
    with Sandbox(skills=skills, seed=3) as sandbox:
        sandbox.warm()
        ids = sandbox.skill_ids()
        print(json.dumps([sandbox.url, sandbox.ws_url, sandbox.token, ids]), flush=True)
        for line in sys.stdin:
            order = json.loads(line)
            texts = [message(sandbox, ids, order["kind"], number) for number in range(order["first"], order["last"])]
            print(json.dumps(sandbox.stream(texts, order["per_second"])), flush=True)


def message(sandbox: Sandbox, ids: list[str], kind: str, number: int) -> str:
    """Return the text of update `number`; skills take turns."""
    whole = sandbox.skill(ids[number % len(ids)])
    minutes, seconds = divmod(number, 60)
    changed = {
        "skill_id": whole["skill_id"],
        "name": whole["name"],
        "version": f"9.{number}.0",
        "metadata": {"number": number},
        "updated_at": f"{2040 + minutes // 60}-01-01T00:{minutes % 60:02}:{seconds:02}Z",
    }
    if kind == "code":
        words = "".join(chr(97 + int(digit, 16)) for digit in f"{number * 2654435761 % 2**32:08x}")
        changed["description"] = f"{whole.get('description') or ''} update {words}"
        changed["code"] = f"{whole.get('code') or ''}\n\ndef update_{words}():\n    return {words!r}\n"
    data = changed if kind == "partial" else {**whole, **changed}
    return json.dumps({"type": "skill_update", "data": data, "timestamp": "2040-01-01T00:00:00Z"}, ensure_ascii=False)


# This process: what another program sees


class Bench:
    """A marketplace, a `watch` that follows it, and a reader."""

    def __init__(
        self, server: subprocess.Popen[str], watch: subprocess.Popen[bytes], path: Path, ids: list[str]
    ) -> None:
        self.server, self.watch, self.path, self.ids = server, watch, path, ids
        self.number = 0
        self.reader = sqlite3.connect(path, timeout=10, isolation_level=None)

    def order(self, kind: str, count: int, per_second: float | None) -> range:
        """Let the marketplace send that many more messages."""
        numbers = range(self.number, self.number + count)
        self.number += count
        assert self.server.stdin is not None
        order = {"kind": kind, "first": numbers.start, "last": numbers.stop, "per_second": per_second}
        self.server.stdin.write(f"{json.dumps(order)}\n")
        self.server.stdin.flush()
        return numbers

    def sent(self) -> list[float]:
        """Return when the marketplace sent."""
        assert self.server.stdout is not None
        times: list[float] = json.loads(self.server.stdout.readline())
        return times

    def seen(self, numbers: Sequence[int], pause: float) -> list[float]:
        """Return when each message was visible, looking each `pause` seconds."""
        times: list[float] = []
        end = time.monotonic() + PATIENCE
        following = iter(numbers)
        number = next(following, None)
        while number is not None:
            row = self.reader.execute(_READ, (self.ids[number % len(self.ids)],)).fetchone()
            if row is not None and row[0] is not None and row[0] >= number:
                times.append(time.monotonic())
                number = next(following, None)
            elif time.monotonic() > end:
                sys.exit(f"message {number} never became visible")
            else:
                time.sleep(pause)
        return times

    def processor_seconds(self) -> float:
        """Return the processor time that `watch` has used so far."""
        fields = Path(f"/proc/{self.watch.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """Return the megabytes that `watch` holds at most so far."""
        status = Path(f"/proc/{self.watch.pid}/status").read_text(encoding="utf-8")
        return int(status.split("VmHWM:")[1].split()[0]) / 1024


@contextmanager
def running(skills: int, python: Path = Path(sys.executable)) -> Iterator[Bench]:
    """Start a marketplace and the `watch` that is installed for `python`."""
    with (
        tempfile.TemporaryDirectory() as directory,
        subprocess.Popen(
            [sys.executable, __file__, "serve", "--skills", str(skills)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as server,
    ):
        assert server.stdout is not None
        assert server.stdin is not None
        url, ws_url, token, ids = json.loads(server.stdout.readline())
        path = Path(directory) / "atom.db"
        environment = {
            "PATH": os.environ["PATH"],
            "ATOM_SAAS_API_URL": url,
            "ATOM_SAAS_WS_URL": ws_url,
            "ATOM_SAAS_API_TOKEN": token,
            "ATOM_SAAS_DATABASE_URL": str(path),
            "ATOM_SAAS_RATE_LIMIT_PER_MINUTE": "100000",
            "ATOM_SAAS_RATE_LIMIT_PER_HOUR": "100000",
        }
        # In the new directory, where `-m` finds no other checkout.
        with subprocess.Popen([python, "-m", "atom_saas_sync", "watch"], env=environment, cwd=directory) as watch:
            try:
                wait_for_catch_up(path)
                bench = Bench(server, watch, path, ids)
                with closing(bench.reader):
                    yield bench
            finally:
                watch.send_signal(signal.SIGTERM)
                watch.wait(20)
                server.stdin.close()


def wait_for_catch_up(path: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if path.exists():
            with closing(sqlite3.connect(path, timeout=10)) as reader:
                tables = reader.execute("SELECT 1 FROM sqlite_master WHERE name = 'sync_run'").fetchone()
                if tables and reader.execute("SELECT 1 FROM sync_run WHERE status = 'success'").fetchone():
                    return
        time.sleep(0.05)
    sys.exit("`watch` did not catch up")


def latency(bench: Bench, per_second: int, count: int) -> None:
    """Look at a hundred messages a second: looking at all would take the processor from those who are measured."""
    step = per_second // 100
    bench.seen(bench.order("unchanged", 2 * per_second, per_second)[::step], 0.001)  # warm
    bench.sent()
    numbers = bench.order("unchanged", count, per_second)
    seen = bench.seen(numbers[::step], 0.0005)
    late = sorted(1000 * (there - gone) for gone, there in zip(bench.sent()[::step], seen, strict=True))
    cuts = [late[int(len(late) * part)] for part in (0.5, 0.9, 0.99)]
    print(
        f"latency at {per_second}/s, {count} messages: median {cuts[0]:.1f} ms, p90 {cuts[1]:.1f}, "
        f"p99 {cuts[2]:.1f}, max {late[-1]:.1f}",
        flush=True,
    )


def flood(bench: Bench, kind: str, count: int, *, warm: int = 5000) -> float:
    """Return the seconds from the first message sent until the last one is visible, after so many to warm up."""
    if warm:
        bench.order(kind, warm, None)
        bench.seen(range(bench.number - 1, bench.number), 0.01)
        bench.sent()
    counted = number_of_updates(bench)
    numbers = bench.order(kind, count, None)
    last = bench.seen(range(numbers[-1], numbers[-1] + 1), 0.005)[0]
    began = bench.sent()[0]
    check(bench, numbers)
    deadline = time.monotonic() + PATIENCE
    while number_of_updates(bench) < counted + count and time.monotonic() < deadline:
        time.sleep(0.05)
    assert number_of_updates(bench) == counted + count
    return last - began


def report_flood(bench: Bench, kind: str, count: int) -> None:
    seconds = flood(bench, kind, count)
    print(
        f"flood of {count} ({kind}): {seconds:.2f} s, {count / seconds:.0f}/s; peak memory {bench.memory():.0f} MB",
        flush=True,
    )


def number_of_updates(bench: Bench) -> int:
    row = bench.reader.execute(
        "SELECT value FROM counter WHERE name = 'atom_saas_websocket_messages_total' AND labels LIKE '%skill_update%'"
    ).fetchone()
    return 0 if row is None else int(row[0])


def check(bench: Bench, numbers: range) -> None:
    """Nothing is lost, and all is in order: each skill has its last update, and before it those in between."""
    wanted: dict[str, list[int]] = {}
    for number in numbers:
        wanted.setdefault(bench.ids[number % len(bench.ids)], []).append(number)
    for skill_id, expected in wanted.items():
        assert bench.reader.execute(_READ, (skill_id,)).fetchone()[0] == expected[-1]
        kept = bench.reader.execute(
            "SELECT data FROM skill_version WHERE skill_id = ? ORDER BY id DESC LIMIT ?", (skill_id, len(expected) - 1)
        )
        found = [json.loads(unpack(data))["metadata"]["number"] for (data,) in kept]
        assert found == expected[-2::-1][: len(found)]
        assert len(found) == min(10, len(expected) - 1)


MEASUREMENTS: dict[str, Any] = {
    "100": lambda bench, scale: latency(bench, 100, int(3000 * scale)),
    "5000": lambda bench, scale: latency(bench, 5000, int(50_000 * scale)),
    "unchanged": lambda bench, scale: report_flood(bench, "unchanged", int(FLOOD * scale)),
    "partial": lambda bench, scale: report_flood(bench, "partial", int(FLOOD * scale)),
    "code": lambda bench, scale: report_flood(bench, "code", int(FLOOD * scale)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("measurements", nargs="*", default=list(MEASUREMENTS))
    parser.add_argument("--skills", type=int, default=5000)
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of messages")
    arguments = parser.parse_args()
    if arguments.measurements == ["serve"]:
        serve(arguments.skills)
        return
    for name in arguments.measurements:
        with running(arguments.skills) as bench:
            MEASUREMENTS[name](bench, arguments.scale)


if __name__ == "__main__":
    main()
