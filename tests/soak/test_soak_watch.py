"""Ten minutes of random floods and faults: the final state is consistent, memory constant, nothing leaked.

`ATOM_SOAK_SECONDS` makes it shorter or longer; the seed is printed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import time
from pathlib import Path

import pytest
from conftest import Machine, wait_until
from watch_support import messages, stop, wait_for_state, watching

from atom_saas_sync.sandbox import Sandbox
from atom_saas_sync.sandbox.websocket import bad_frames

SECONDS = float(os.environ.get("ATOM_SOAK_SECONDS", "600"))

# Facts that only the process knows; Python imports a module of this name when it starts.
TELL = """
import asyncio, gc, json, os, pathlib, signal
def tell(*_):
    gc.collect()
    objects = gc.get_objects()
    told = pathlib.Path(os.environ["TELL"])
    new = told.with_suffix(".new")
    tasks = sum(type(each) is asyncio.Task and not each.done() for each in objects)
    new.write_text(json.dumps({"tasks": tasks, "objects": len(objects)}))
    new.rename(told)
signal.signal(signal.SIGUSR1, tell)
"""


def inside(pid: int, told: Path) -> dict[str, int]:
    """Return how many tasks wait in the process, and how many objects it holds that could hold others."""
    told.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR1)
    wait_until(told.exists, 10)
    numbers: dict[str, int] = json.loads(told.read_text(encoding="utf-8"))
    return numbers


def resident_kilobytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def disturb(sandbox: Sandbox, chance: random.Random, number: int) -> None:  # noqa: C901 - a kind each
    """Perform one random action of a marketplace, a network or an attacker."""
    ids = sandbox.skill_ids()
    what = chance.randrange(14)
    if what == 0:
        sandbox.flood(chance.randint(1, 2000), whole=chance.random() < 0.5)
    elif what == 1 and chance.random() < 0.5:
        sandbox.push_bad(chance.choice(list(bad_frames())))
    elif what == 2 and chance.random() < 0.3:
        sandbox.close_ws(chance.choice([1000, 1001, 1011, 4000]))
    elif what == 3 and chance.random() < 0.3:
        sandbox.drop_ws(reset=chance.random() < 0.5)
    elif what == 4 and chance.random() < 0.3:
        sandbox.stop()
        time.sleep(chance.random() * 3)  # an outage takes its time
        sandbox.start()
    elif what == 5 and chance.random() < 0.3 and all(strikes for _, strikes in sandbox.faults().values()):
        # Only if no other waits: faults must not come faster than attempts, or the next is an hour away.
        fault = chance.choice(["error", "drop", "accept_close"])
        sandbox.fault(fault, endpoint="ws", times=1, **({"status": 503} if fault == "error" else {}))
    elif what == 6:
        sandbox.fault("error", endpoint="list", status=503, times=1)
    elif what == 7 and len(ids) > 100:
        sandbox.delete_skill(chance.choice(ids), push=chance.random() < 0.9)
    elif what == 8:
        sandbox.put_skill({"skill_id": f"soak-{number}", "name": f"Soak {number}"}, push=chance.random() < 0.9)
    elif what == 9:
        sandbox.add_rating(chance.choice(ids), f"user {number}", chance.randint(1, 5))
    else:
        sandbox.patch_skill(chance.choice(ids), {"description": f"soak {number}"}, push=chance.random() < 0.9)


@pytest.mark.soak
def test_faults_at_random_for_minutes(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1_000_000)
    print(f"seed {seed}, {SECONDS:.0f} s")  # noqa: T201 - to repeat it
    chance = random.Random(seed)
    (tmp_path / "sitecustomize.py").write_text(TELL, encoding="utf-8")
    told = tmp_path / "told.json"
    variables = {
        "ATOM_SAAS_RATE_LIMIT_PER_MINUTE": "100000",
        "ATOM_SAAS_RATE_LIMIT_PER_HOUR": "100000",
        "PYTHONPATH": str(tmp_path),
        "TELL": str(told),
    }
    with Sandbox(skills=300, seed=3) as sandbox:
        machine = Machine(sandbox, tmp_path)
        with watching(machine, **variables) as it:
            end, number, memory = time.monotonic() + SECONDS, 0, []
            handles, at_first = descriptors(it.pid), inside(it.pid, told)
            while time.monotonic() < end:
                disturb(sandbox, chance, number)
                number += 1
                time.sleep(chance.random() * 0.3)  # users and networks pause too
                assert it.poll() is None
                memory.append(resident_kilobytes(it.pid))
            sandbox.clear_faults()
            it.send_signal(signal.SIGHUP)  # whatever the distance to the next attempt is by now
            wait_for_state(machine, connected=1, fallback_to_polling=0)
            # What was pushed to nobody comes with the next poll.
            wait_until(
                lambda: (
                    machine.command("sync", "skills", "--max-delete", "100%", "--wait", "30").returncode in (0, 65)
                    and {name: skill for name, skill in machine.cached().items() if name != "padded"}
                    == machine.listed()
                ),
                120,
            )
            quarter = max(1, len(memory) // 4)
            parts = [memory[start : start + quarter] for start in range(0, 4 * quarter, quarter)]
            medians, most = [statistics.median(part) for part in parts], [max(part) for part in parts]
            print(f"{number} disturbances, {messages(machine, 'skill_update'):.0f} updates")  # noqa: T201
            print(f"memory in kB, by quarters: medians {medians}, at most {most}")  # noqa: T201
            print(f"descriptors: {handles}, then {descriptors(it.pid)}; threads: {threads(it.pid)}")  # noqa: T201
            at_last = inside(it.pid, told)
            print(f"inside: {at_first}, then {at_last}")  # noqa: T201
            assert at_last["tasks"] <= at_first["tasks"]
            assert at_last["objects"] < at_first["objects"] * 1.2 + 2_000
            assert medians[3] < medians[1] * 1.1 + 10_000
            assert descriptors(it.pid) <= handles + 3
            assert threads(it.pid) <= 8
            stop(it)
        assert machine.command("db", "check").returncode == 0
