"""`lock write`, `check` and `diff` on the command line."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from conftest import Machine


@pytest.fixture
def lock(machine: Machine) -> Any:
    machine.pull()
    assert machine.command("lock", "write", "skills.lock").returncode == 0
    return machine.directory / "skills.lock"


def differences(machine: Machine, *arguments: str, **variables: str) -> tuple[int, list[tuple[str, str]]]:
    result = machine.command("lock", *arguments, "--json", **variables)
    document = json.loads(result.stdout)
    assert document["success"] is (result.returncode == 0)
    assert document["total"] == len(document["differences"])
    return result.returncode, [(each["skill_id"], each["kind"]) for each in document["differences"]]


def test_the_lock_file_lists_exactly_what_is_served(machine: Machine, lock: Any) -> None:
    document = json.loads(lock.read_text())
    rows = machine.sql("SELECT skill_id, version, content_digest, exec_digest FROM usable_skill ORDER BY skill_id")
    assert list(document["skills"].items()) == [
        (skill_id, {"version": version, "content": f"sha256:{content}", "exec": f"sha256:{executable}"})
        for skill_id, version, content, executable in rows
    ]
    assert document["marketplace"] == machine.sandbox.url
    assert machine.command("lock", "write").stdout == lock.read_text()
    assert differences(machine, "check", "skills.lock") == (0, [])
    assert "no difference" in machine.command("lock", "check", ATOM_SYNC_LOCK_FILE="skills.lock").stdout


def test_only_a_lock_file_is_replaced(machine: Machine, lock: Any) -> None:
    written = lock.read_text()
    for content in ("<<<<<<< ours\n" + written, "", written):
        lock.write_text(content)
        assert machine.command("lock", "write", "skills.lock").returncode == 0
        assert lock.read_text() == written
    policy = machine.directory / "policy.toml"
    policy.write_text("version = 1\n")
    database = machine.directory / "own.db"
    own = {"ATOM_SAAS_DATABASE_URL": str(database)}
    assert machine.command("sync", "skills", **own).returncode == 0
    for other in (policy, database):
        before = other.read_bytes()
        for variables in ({}, {"ATOM_SYNC_LOCK_FILE": str(other)}):
            result = machine.command("lock", "write", *([] if variables else [str(other)]), **variables, **own)
            assert result.returncode == 2
            assert "is not a lock file" in result.stderr
        assert other.read_bytes() == before


def test_missing_different_and_extra_skills_fail_a_check_and_not_a_diff(machine: Machine, lock: Any) -> None:
    gone, edited, extra = sorted(machine.sandbox.skill_ids())[:3]
    machine.sql("DELETE FROM skill_cache WHERE skill_id = ?", gone)
    machine.edit(edited, code="mine")
    document = json.loads(lock.read_text())
    del document["skills"][extra]
    lock.write_text(json.dumps(document))
    found = sorted([(gone, "missing"), (edited, "different"), (extra, "extra")])
    assert differences(machine, "check", "skills.lock") == (4, found)
    assert differences(machine, "diff", "skills.lock") == (0, found)
    told = machine.command("lock", "check", "-", stdin=lock.read_text())
    assert told.returncode == 4
    assert [line.split()[:2] for line in told.stdout.splitlines()[:-1]] == [[kind, each] for each, kind in found]
    assert told.stdout.splitlines()[-1] == "3 differences from standard input"
    written = json.loads(machine.command("lock", "write", "--json", ATOM_SYNC_LOCK_FILE="own.lock").stdout)
    assert written == {"success": True, "lock_file": str(machine.directory / "own.lock"), "skills": 59}
    own = json.loads((machine.directory / "own.lock").read_text())["skills"]
    assert own[edited]["source"] == "edited"
    assert differences(machine, "check", ATOM_SYNC_LOCK_FILE="own.lock") == (0, [])


@pytest.mark.parametrize("command", ["check", "diff"])
def test_a_missing_file_is_not_found_unless_the_policy_needs_it(machine: Machine, command: str, lock: Any) -> None:
    absent = machine.command("lock", command, "absent.lock", "--json")
    assert (absent.returncode, json.loads(absent.stdout)["error"]["type"]) == (1, "not_found")
    needed = machine.command("lock", command, ATOM_SYNC_LOCK_FILE="absent.lock", ATOM_SYNC_ADMISSION="lock")
    assert needed.returncode == 78
    assert machine.command("lock", command).returncode == 2
    (machine.directory / "folder").mkdir()
    for unusable in (b"{}", b"", b"\xff\xfe", None):
        lock.write_bytes(unusable or b"")
        file = "folder" if unusable is None else "skills.lock"
        assert machine.command("lock", command, file).returncode == 78, unusable
    os.mkfifo(machine.directory / "pipe")  # nobody waits for its writer
    assert machine.command("lock", command, ATOM_SYNC_LOCK_FILE="pipe").returncode == 78


def test_a_lock_file_of_another_marketplace_is_said_and_compared(machine: Machine, lock: Any) -> None:
    lock.write_text(lock.read_text().replace(machine.sandbox.url, "https://other.example"))
    told = machine.command("lock", "check", "skills.lock")
    assert told.returncode == 0
    assert "skills.lock is of https://other.example" in told.stderr
