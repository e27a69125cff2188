"""What the marketplace sent stays to be looked at, and automatic resolutions can be taken back."""

from __future__ import annotations

import json

import pytest
from conftest import Json, Machine


def _json(machine: Machine, *arguments: str, exit_code: int = 0) -> Json:
    result = machine.command(*arguments, "--json")
    assert result.returncode == exit_code, result.stderr
    document: Json = json.loads(result.stdout)
    return document


def test_the_last_versions_are_kept_and_can_be_compared(machine: Machine) -> None:
    skill_id = machine.sandbox.skill_ids()[0]
    machine.pull(history_versions=3)
    for number in range(1, 6):
        machine.sandbox.patch_skill(skill_id, {"version": f"{number}.0.0", "code": f"print({number})"})
        machine.pull(history_versions=3)
    assert machine.sql("SELECT version FROM skill_version ORDER BY id") == [("2.0.0",), ("3.0.0",), ("4.0.0",)]
    log = machine.command("skills", "log", skill_id)
    assert log.returncode == 0
    assert all(version in log.stdout for version in ("5.0.0", "4.0.0", "3.0.0", "2.0.0"))
    assert "1.0.0" not in log.stdout
    diff = machine.command("skills", "diff", skill_id, "--from", "2.0.0", "--to", "4.0.0")
    assert diff.returncode == 0
    assert "print(2)" in diff.stdout
    assert "print(4)" in diff.stdout


def test_without_history_only_the_evidence_of_deleted_skills_is_kept(machine: Machine) -> None:
    machine.pull(history_versions=0)
    changed, gone = machine.sandbox.skill_ids()[:2]
    machine.sandbox.patch_skill(changed, {"version": "9.0.0"})
    machine.sandbox.delete_skill(gone)
    machine.pull(history_versions=0)
    assert machine.sql("SELECT skill_id, ended_by FROM skill_version") == [(gone, "deleted")]


@pytest.mark.parametrize("strategy", ["remote_wins", "local_wins", "merge"])
def test_an_automatic_resolution_is_logged_with_its_three_versions_and_can_be_undone(
    machine: Machine, strategy: str
) -> None:
    machine.pull()
    skill_id = machine.sandbox.skill_ids()[0]
    machine.edit(skill_id, description="edited here")
    edited = machine.cached()[skill_id]
    machine.sandbox.patch_skill(skill_id, {"description": "changed there", "code": "new"})
    assert machine.pull(strategy=strategy).counts.conflicts_resolved == 1
    entry = _json(machine, "conflicts", "show", "1")
    text = json.dumps(entry)
    assert "edited here" in text
    assert "changed there" in text
    assert machine.command("conflicts", "undo", "1").returncode == 0
    assert machine.cached()[skill_id]["description"] == edited["description"]
    assert machine.cached()[skill_id]["code"] == edited["code"]


def test_local_edits_by_command_survive_syncs_and_go_back_to_base(machine: Machine) -> None:
    machine.pull()
    skill_id = machine.sandbox.skill_ids()[0]
    before = machine.cached()[skill_id]
    assert machine.command("skills", "edit", skill_id, "--set", "description=mine").returncode == 0
    machine.sandbox.patch_skill(skill_id, {"rating_count": 99})
    assert machine.pull().status == "success"
    assert machine.cached()[skill_id]["description"] == "mine"
    assert machine.cached()[skill_id]["rating_count"] == 99  # volatile: follows the marketplace
    assert _json(machine, "skills", "list", "--modified")["total"] == 1
    assert machine.command("skills", "revert", skill_id).returncode == 0
    assert machine.cached()[skill_id]["description"] == before["description"]
    assert _json(machine, "skills", "list", "--modified")["total"] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("conflicts", "resolve", "77", "--strategy", "merge"),
        ("conflicts", "resolve", "--all", "--strategy", "remote-wins"),
        ("conflicts", "undo", "77"),
        ("skills", "edit", "no-such-skill", "--set", "name=x"),
        ("skills", "revert", "no-such-skill"),
        ("skills", "show", "no-such-skill"),
    ],
)
def test_what_does_not_exist_is_a_clear_error_and_no_change(machine: Machine, arguments: tuple[str, ...]) -> None:
    machine.pull()
    before = machine.cached()
    result = machine.command(*arguments)
    assert result.returncode not in {0, None}
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("atom-sync: ")
    assert machine.cached() == before
