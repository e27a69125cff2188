"""The versions that the marketplace sent: `skills log`, `skills diff --from --to`."""

from __future__ import annotations

import json
from typing import Any

from conftest import Json, Machine


def run_json(machine: Machine, *arguments: str) -> Json:
    result = machine.command(*arguments, "--json")
    assert result.returncode == 0, result.stderr
    document: Json = json.loads(result.stdout)
    return document


def release(machine: Machine, skill_id: str, *versions: int, **options: Any) -> None:
    for version in versions:
        machine.sandbox.patch_skill(skill_id, {"version": f"{version}.0", "code": f"code {version}"})
        machine.clock.move(minutes=15)
        machine.pull(**options)


def test_the_last_ten_versions_are_kept(machine: Machine) -> None:
    machine.fill()
    skill_id = machine.sandbox.skill_ids()[0]
    release(machine, skill_id, *range(1, 15))
    document = run_json(machine, "skills", "log", skill_id)
    assert [line["version"] for line in document["versions"]] == [f"{version}.0" for version in range(14, 3, -1)]
    assert [line["current"] for line in document["versions"]] == [True, *[False] * 10]
    assert {line["ended_by"] for line in document["versions"][1:]} == {"superseded"}
    text = machine.command("skills", "log", skill_id).stdout
    assert text.count("\n") == 12
    assert text.splitlines()[1].startswith("base ")


def test_how_many_are_kept_is_a_setting(machine: Machine) -> None:
    machine.fill()
    skill_id = machine.sandbox.skill_ids()[0]
    release(machine, skill_id, 1, 2, 3, history_versions=2)
    assert [line["version"] for line in run_json(machine, "skills", "log", skill_id)["versions"]] == [
        "3.0",
        "2.0",
        "1.0",
    ]
    release(machine, skill_id, 4, history_versions=2)
    assert run_json(machine, "skills", "log", skill_id)["total"] == 3
    other = machine.sandbox.skill_ids()[1]
    release(machine, other, 1, 2, history_versions=0)
    assert run_json(machine, "skills", "log", other)["total"] == 1


def test_versions_are_compared(machine: Machine) -> None:
    machine.fill()
    skill_id = machine.sandbox.skill_ids()[0]
    release(machine, skill_id, 1, 2, 3)
    machine.edit(skill_id, code="mine")
    numbers = [line["number"] for line in run_json(machine, "skills", "log", skill_id)["versions"]]

    def codes(*arguments: str) -> list[str]:
        document = run_json(machine, "skills", "diff", skill_id, *arguments)
        field = next(field for field in document["fields"] if field["name"] == "code")
        return [field["from"], field["to"]]

    assert codes() == ["code 3", "mine"]
    assert codes("--from", "1.0", "--to", "2.0") == ["code 1", "code 2"]
    assert codes("--from", f"#{numbers[1]}", "--to", "base") == ["code 2", "code 3"]
    assert codes("--from", str(numbers[2])) == ["code 1", "mine"]
    same = machine.command("skills", "diff", skill_id, "--from", "base", "--to", "3.0")
    assert "are the same" in same.stdout
    assert "code 1" in machine.command("skills", "diff", skill_id, "--from", "1.0").stdout


def test_a_former_version_is_shown_and_compared(machine: Machine) -> None:
    machine.fill()
    skill_id = machine.sandbox.skill_ids()[0]
    release(machine, skill_id, 1, 2)
    former = run_json(machine, "skills", "log", skill_id)["versions"][1]
    shown = run_json(machine, "skills", "show", skill_id[:8], "--version", str(former["number"]))
    assert (shown["skill"]["code"], shown["version"], shown["content_digest"]) == (
        *("code 1", "1.0"),
        former["content_digest"],
    )
    by_digest = machine.command("skills", "show", skill_id, "--version", f"sha256:{former['content_digest']}", "--code")
    assert by_digest.stdout == "code 1"
    patch = machine.command("skills", "diff", skill_id, "--from", former["exec_digest"][:12]).stdout
    assert f"--- a/code\t#{former['number']} (1.0)\n+++ b/code\tlocal\n@@ -1 +1 @@\n-code 1\n+code 2\n" in patch
    imported = machine.command("skills", "import", "-", "--json", stdin=json.dumps(shown))
    assert json.loads(imported.stdout)["updated"] == 1


def test_ratings_make_no_version(machine: Machine) -> None:
    machine.fill()
    skill_id = machine.sandbox.skill_ids()[0]
    machine.sandbox.patch_skill(skill_id, {"average_rating": 1.0})
    machine.pull()
    assert run_json(machine, "skills", "log", skill_id)["total"] == 1


def test_a_deleted_skill_leaves_its_last_version(machine: Machine) -> None:
    machine.fill()
    skill_id = machine.sandbox.skill_ids()[0]
    last = machine.cached()[skill_id]
    machine.sandbox.delete_skill(skill_id)
    machine.pull(history_versions=0)
    versions = run_json(machine, "skills", "log", skill_id)["versions"]
    assert [(line["version"], line["ended_by"]) for line in versions] == [(last["version"], "deleted")]
    shown = run_json(machine, "skills", "diff", skill_id, "--from", last["version"], "--to", last["version"])
    assert shown["fields"] == []
    assert "no local version" in machine.command("skills", "diff", skill_id, "--from", last["version"]).stderr


def test_versions_that_came_while_a_conflict_waited_belong_to_it(machine: Machine) -> None:
    machine.fill()
    skill_id = machine.sandbox.skill_ids()[0]
    machine.edit(skill_id, code="mine")
    release(machine, skill_id, 1, 2, 3, strategy="manual")
    versions = [line["version"] for line in run_json(machine, "skills", "log", skill_id)["versions"]]
    # 3.0 waits in the conflict; the base is the version that the edit began with.
    assert versions[1:] == ["2.0", "1.0"]
    assert len(machine.conflicts()) == 1


def test_undoing_and_doing_again_makes_no_versions(machine: Machine) -> None:
    machine.fill()
    skill_id = machine.sandbox.skill_ids()[0]
    machine.edit(skill_id, code="mine")
    release(machine, skill_id, 1)
    before = machine.sql("SELECT skill_id, content_digest FROM skill_version")
    for _ in range(2):
        machine.command("conflicts", "undo", "1")
        machine.command("conflicts", "resolve", "1", "--strategy", "remote_wins")
    assert machine.sql("SELECT skill_id, content_digest FROM skill_version") == before
    assert machine.cached()[skill_id]["code"] == "code 1"


def test_versions_take_little_room(machine: Machine) -> None:
    machine.fill()
    skill_id = machine.sandbox.skill_ids()[0]
    machine.sandbox.patch_skill(skill_id, {"code": "def function():\n    return 1\n" * 2000})
    machine.pull()
    release(machine, skill_id, 1)
    assert machine.sql("SELECT max(length(data)) < 5000 FROM skill_version WHERE skill_id = ?", skill_id) == [(1,)]
