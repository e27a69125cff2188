"""`db copy` of a large catalogue, from a file to a server and back: every row of every table is the same."""

from __future__ import annotations

import json
import os
import time
from hashlib import sha256
from pathlib import Path

import pytest
from conftest import Machine
from machine_databases import FileDatabase, at
from postgres_support import binaries, server

from atom_saas_sync.sandbox import Sandbox
from atom_saas_sync.store import open_store
from atom_saas_sync.times import parse_time

pytestmark = pytest.mark.soak

SKILLS = int(os.environ.get("COPY_SKILLS", "50000"))
ON_A_SERVER = {"sync_run": "host", "websocket_state": "host", "skill_offer": "id"}
"""Columns that a file has not."""
_LONGEST = 1800.0
FILLED = {
    "skill_cache",
    "category_cache",
    "skill_base",
    "skill_version",
    "conflict_log",
    "skill_ratings",
    "failed_rating_uploads",
    "skill_offer",
    "gate_decision",
    "gate_pin",
    "gate_revocation",
    "gate_quarantine",
    "audit_log",
    "sync_run",
    "counter",
}


def test_a_copy_there_and_back_has_the_same_rows(tmp_path: Path) -> None:
    with Sandbox(skills=SKILLS, seed=5) as sandbox, server(binaries()) as url:
        machine = Machine(sandbox, tmp_path)
        machine.database = FileDatabase(tmp_path / "first.db")
        sandbox.set_clock_offset(0)
        fill(machine)
        back = str(tmp_path / "back.db")
        run(machine, "db", "copy", "--to", url)
        run(machine, "db", "copy", "--to", back, ATOM_SAAS_DATABASE_URL=url)
        first, there, again = (digests(each) for each in (machine.database.url, url, back))
        print({table: number for table, (number, _) in first.items() if number})  # noqa: T201
        assert {table for table, (number, _) in first.items() if number} >= FILLED
        assert there == first
        assert again == first
        for each in (url, back):
            run(machine, "db", "check", ATOM_SAAS_DATABASE_URL=each)


def fill(machine: Machine) -> None:
    """Sync twice: with edits, conflicts and ratings in between; then let updates wait, and decide about some."""
    sandbox, ids = machine.sandbox, machine.sandbox.skill_ids()
    part = len(ids) // 100
    edited, changed, rated, waiting = (ids[part * each : part * (each + 1)] for each in range(1, 5))
    run(machine, "sync", "skills")
    with machine.database.transaction() as execute:
        for skill_id in edited:
            ((text,),) = execute("SELECT skill_data FROM skill_cache WHERE skill_id = ?", skill_id)
            mine = json.dumps({**json.loads(text), "description": f"mine {skill_id}"})
            execute("UPDATE skill_cache SET skill_data = ? WHERE skill_id = ?", mine, skill_id)
        for number, skill_id in enumerate(rated):
            values = (skill_id, f"user{number}")
            execute("INSERT INTO skill_rating (skill_id, user_id, rating) VALUES (?, ?, 4)", *values)
    for skill_id in edited[::2] + changed:
        sandbox.patch_skill(skill_id, {"description": f"theirs {skill_id}", "version": "99.0.0"}, push=False)
    run(machine, "sync", "skills", "--strategy", "manual")
    sandbox.fault("error", endpoint="ratings", status=422, times=3)
    run(machine, "sync", "ratings", code=1)
    for skill_id in waiting:
        sandbox.patch_skill(skill_id, {"code": f"print({skill_id!r})", "version": "99.0.0"}, push=False)
    run(machine, "sync", "skills", ATOM_SYNC_ADMISSION="review")
    run(machine, "updates", "approve", *waiting[: part // 3])
    run(machine, "updates", "reject", *waiting[part // 3 : 2 * part // 3])
    run(machine, "pins", "add", rated[0])
    run(machine, "revocations", "add", "--id", rated[1])
    run(machine, "quarantine", "add", rated[2])


def run(machine: Machine, *arguments: str, code: int = 0, **variables: str) -> None:
    began = time.monotonic()
    with machine.started(*arguments, **variables) as process:
        out, err = process.communicate(timeout=_LONGEST)
        print(f"{' '.join(arguments[:3])[:60]}: {time.monotonic() - began:.1f} s")  # noqa: T201
        assert process.wait() == code, out + err


def digests(url: str) -> dict[str, tuple[int, int]]:
    """Return for each table how many rows it has, and a sum of their digests; times count as moments."""
    found = {}
    with open_store(at(url).location, read_only=True) as store, store.moving_out() as rows:
        for table in rows.tables():
            number, total = 0, 0
            for row in rows.rows(table):
                own = ON_A_SERVER.get(table)
                values = sorted((name, moment(name, value)) for name, value in row.items() if name != own)
                total += int.from_bytes(sha256(repr(values).encode(errors="surrogatepass")).digest())
                number += 1
            found[table] = (number, total)
    return found


def moment(name: str, value: object) -> object:
    return str(parse_time(value)) if isinstance(value, str) and (name == "at" or name.endswith("_at")) else value
