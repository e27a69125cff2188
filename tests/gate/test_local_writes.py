"""Local users are trusted, but their edits cannot restore revoked or quarantined versions."""

from __future__ import annotations

import json

import pytest
from conftest import Machine


@pytest.fixture
def skill_id(machine: Machine) -> str:
    machine.fill()
    return machine.sandbox.skill_ids()[0]


def ok(machine: Machine, *arguments: str) -> None:
    result = machine.command(*arguments)
    assert result.returncode == 0, (result.stdout, result.stderr)


def refused(machine: Machine, *arguments: str, why: str) -> None:
    before = machine.cached()
    result = machine.command(*arguments)
    assert result.returncode == 4, (result.stdout, result.stderr)
    assert why in result.stderr
    assert machine.cached() == before


def test_a_revoked_skill_is_not_imported_edited_or_restored(machine: Machine, skill_id: str) -> None:
    skill = machine.cached()[skill_id]
    ok(machine, "skills", "edit", skill_id, "--set", "description=mine")
    ok(machine, "revocations", "add", "--id", skill_id)
    assert skill_id not in machine.cached()
    file = machine.directory / "skill.json"
    file.write_text(json.dumps(skill))
    refused(machine, "skills", "import", str(file), why="is revoked")
    refused(machine, "skills", "revert", skill_id, why="is revoked")


def test_an_edit_that_makes_a_revoked_version_is_refused(machine: Machine, skill_id: str) -> None:
    ok(machine, "revocations", "add", "--id", skill_id, "--version", "6.6.6")
    refused(machine, "skills", "edit", skill_id, "--set", "version=6.6.6", why="is revoked")
    ok(machine, "skills", "edit", skill_id, "--set", "version=6.6.7")


def test_a_manually_quarantined_skill_stays_in_quarantine(machine: Machine, skill_id: str) -> None:
    ok(machine, "skills", "edit", skill_id, "--set", "description=mine")
    ok(machine, "quarantine", "add", skill_id, "--note", "odd")
    refused(machine, "skills", "revert", skill_id, why="in quarantine")
    edit = machine.command("skills", "edit", skill_id, "--set", "description=other")
    assert (edit.returncode, "is in quarantine" in edit.stderr) == (1, True)
    ok(machine, "quarantine", "release", skill_id)
    assert machine.cached()[skill_id]["description"] == "mine"


def test_undo_does_not_bring_a_revoked_version_back(machine: Machine, skill_id: str) -> None:
    ok(machine, "skills", "edit", skill_id, "--set", "version=6.6.6")
    machine.sandbox.patch_skill(skill_id, {"version": "7.0.0"}, push=False)
    ok(machine, "sync", "skills")
    ok(machine, "revocations", "add", "--id", skill_id, "--version", "6.6.6")
    refused(machine, "conflicts", "undo", "1", why="is revoked")


def test_resolving_makes_no_revoked_version_the_base_of_an_edit(machine: Machine, skill_id: str) -> None:
    ok(machine, "skills", "edit", skill_id, "--set", "description=mine")
    machine.sandbox.patch_skill(skill_id, {"version": "7.0.0", "description": "theirs"}, push=False)
    ok(machine, "sync", "skills", "--strategy", "manual")
    ok(machine, "revocations", "add", "--id", skill_id, "--version", "7.0.0")
    for strategy in ("local_wins", "remote_wins", "merge"):
        refused(machine, "conflicts", "resolve", "1", "--strategy", strategy, why="is revoked")


def test_a_rule_that_denies_takes_out_the_edit_of_a_marketplace_skill_and_no_local_one(
    machine: Machine, skill_id: str
) -> None:
    """A rule is about what the marketplace offers; what exists only here was written by trusted people."""
    other = machine.sandbox.skill_ids()[1]
    for each in (skill_id, other):
        ok(machine, "skills", "edit", each, "--set", "description=mine")
    file = machine.directory / "skill.json"
    file.write_text(json.dumps({**machine.cached()[skill_id], "skill_id": "own", "id": "own", "name": "Own"}))
    ok(machine, "skills", "import", str(file))
    policy = machine.directory / "policy.toml"
    policy.write_text(f'[[rule]]\nid = ["{skill_id}", "own"]\nadmission = "deny"\n')
    denying = {"ATOM_SYNC_POLICY_FILE": str(policy)}
    assert machine.command("skills", "edit", skill_id, "--set", "description=again", **denying).returncode == 0
    assert machine.command("sync", "skills", **denying).returncode == 0
    assert {skill_id, other, "own"} & machine.cached().keys() == {other, "own"}
    assert machine.sql("SELECT skill_id, reason, served_source FROM gate_quarantine") == [
        (skill_id, "denied", "edited")
    ]
    released = machine.command("quarantine", "release", skill_id, **denying)
    assert (released.returncode, "denied" in released.stdout + released.stderr) == (4, True)
    assert machine.command("skills", "edit", "own", "--set", "description=again", **denying).returncode == 0
