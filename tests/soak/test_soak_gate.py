"""The gate under load: long random histories with kills while a process reads, and thousands of updates at once."""

from __future__ import annotations

import json
import multiprocessing
import os
import sqlite3
import sys
import time
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest
from conftest import NO_LIMITS, Machine

from atom_saas_sync.sandbox import Sandbox

sys.path.insert(0, str(Path(__file__).parents[1] / "gate"))
from histories import World

pytestmark = pytest.mark.soak

STEPS = int(os.environ.get("GATE_STEPS", "4000"))  # of each policy
PAUSE = 0.002  # the rate at which the second process reads


def read(path: Path, stop: Event, found: Any) -> None:
    """Collect all codes of all skills that readers of the view get."""
    seen: set[tuple[str, str]] = set()
    connection = sqlite3.connect(path, timeout=60, isolation_level=None)
    reads = 0
    while not stop.is_set():
        rows = connection.execute("SELECT skill_id, json_extract(skill_data, '$.code') FROM usable_skill").fetchall()
        seen.update(rows)
        reads += 1
        time.sleep(PAUSE)
    found.put((reads, seen))


@pytest.mark.parametrize(
    ("seed", "admission", "scope"),
    [(1, "open", "all"), (2, "age", "all"), (3, "age", "executable"), (4, "review", "all"), (5, "lock", "all")],
)
def test_long_histories_never_serve_what_was_not_admitted(
    tmp_path: Path, seed: int, admission: Any, scope: Any
) -> None:
    context = multiprocessing.get_context("spawn")
    world = World(tmp_path, seed, admission=admission, scope=scope, kills=True)
    stop, found = context.Event(), context.Queue()
    reader = context.Process(target=read, args=(world.path, stop, found))
    reader.start()
    try:
        for _ in range(STEPS):
            world.step()
        stop.set()
        reads, seen = found.get(timeout=60)
    finally:
        stop.set()
        reader.join(timeout=60)
        reader.kill()
        world.close()
    assert reads > 10
    for skill_id, code in seen:
        codes = {each.fields["code"] for each in world.admissible[skill_id].values()}
        assert code in codes or code.startswith("l"), f"{skill_id} was served with {code}"
    print(f"{admission}, {scope}: {STEPS} steps, {reads} reads, {len(seen)} versions read")  # noqa: T201 - figures


def test_1999_of_2000_updates_are_approved_from_a_file(tmp_path: Path) -> None:
    with Sandbox(skills=5000, seed=3) as sandbox:
        machine = Machine(sandbox, tmp_path)
        review = {**NO_LIMITS, "ATOM_SYNC_ADMISSION": "review"}
        assert machine.command("sync", "skills").returncode == 0
        before = machine.sql("SELECT skill_id, skill_data FROM skill_cache ORDER BY skill_id")
        changed = sandbox.skill_ids()[:2000]
        for number, skill_id in enumerate(changed):
            sandbox.patch_skill(skill_id, {"code": f"new {number}", "version": "99"}, touch=False, push=False)
        report = json.loads(machine.command("sync", "skills", "--json", **review).stdout)
        assert report["updates"] == {"admitted": 0, "held": 2000, "refused": 0, "waiting": 2000}
        assert machine.sql("SELECT skill_id, skill_data FROM skill_cache ORDER BY skill_id") == before
        updates = json.loads(machine.command("updates", "list", "--json", **review).stdout)["updates"]
        chosen = json.dumps({"updates": updates[1:]})
        decided = json.loads(
            machine.command("updates", "approve", "--from", "-", "--json", stdin=chosen, **review).stdout
        )
        assert (decided["success"], len(decided["approved"]), decided["refused"]) == (True, 1999, [])
        left = json.loads(machine.command("updates", "list", "--json", **review).stdout)
        assert [each["skill_id"] for each in left["updates"]] == [updates[0]["skill_id"]]
        served = dict(machine.sql("SELECT skill_id, skill_data FROM skill_cache"))
        assert {skill_id for skill_id, text in before if served[skill_id] != text} == {
            each["skill_id"] for each in updates[1:]
        }
