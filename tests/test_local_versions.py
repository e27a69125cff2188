"""Changing the local version: `skills restore`, `delete`, `revert` of several, and code in an editor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Json, Machine, on_a_terminal

from atom_saas_sync.core.documents import place_of_field
from atom_saas_sync.core.suffixes import code_suffix


@pytest.fixture
def here(machine: Machine) -> Machine:
    machine.pull()
    machine.command("skills", "import", "-", stdin='{"skill_id": "mine-1", "name": "Mine", "code": "one"}')
    return machine


def run(machine: Machine, *arguments: str, exit_code: int = 0, **variables: str) -> Any:
    done = machine.command("skills", *arguments, "--json", **variables)
    assert done.returncode == exit_code, done.stderr
    return json.loads(done.stdout)


def versions(machine: Machine, skill_id: str, origin: str = "local") -> list[Json]:
    return [each for each in run(machine, "log", skill_id)["versions"] if each["origin"] == origin]


def test_a_former_version_is_restored_as_an_edit_and_what_it_replaces_is_kept(machine: Machine) -> None:
    machine.pull()
    skill_id = min(machine.cached())
    first = machine.cached()[skill_id]
    machine.sandbox.patch_skill(skill_id, {"code": "second", "version": "9.0.0", "average_rating": 1.5})
    machine.pull()
    run(machine, "edit", skill_id, "--set", "code=mine")
    (sent,) = [each for each in versions(machine, skill_id, "marketplace") if not each["current"]]
    assert run(machine, "restore", skill_id[:8], "--version", str(sent["number"]))["changed"]
    now = machine.cached()[skill_id]
    assert (now["code"], now["version"]) == (first["code"], first["version"])
    assert now["average_rating"] == 1.5  # follows the marketplace
    assert run(machine, "list", "--modified")["total"] == 1

    (mine,) = versions(machine, skill_id)
    assert mine["ended_by"] == "superseded"
    assert run(machine, "restore", skill_id, "--version", mine["content_digest"][:12])["changed"]
    assert machine.cached()[skill_id]["code"] == "mine"
    assert not run(machine, "restore", skill_id, "--version", f"#{mine['number']}")["changed"]
    assert run(machine, "restore", skill_id, "--version", "9.0.0")["changed"]
    assert run(machine, "list", "--modified")["total"] == 0
    assert run(machine, "restore", skill_id, "--version", "7", exit_code=1)["error"]["type"] == "not_found"


def test_a_skill_that_exists_only_here_is_deleted_and_comes_back(here: Machine) -> None:
    before = here.cached()
    piped = here.command("skills", "delete", "mine-1")
    assert piped.returncode == 2
    assert "mine-1  Mine" in piped.stderr and "--yes" in piped.stderr
    assert here.cached() == before
    assert run(here, "delete", "mine-1", "--yes")["deleted"] == ["mine-1"]
    assert "mine-1" not in here.cached()
    assert run(here, "search", "Mine")["total"] == 0
    (last,) = versions(here, "mine-1")
    assert last["ended_by"] == "deleted"
    run(here, "restore", "mine-1", "--version", str(last["number"]))
    assert here.cached() == before
    on_a_terminal(here, ["skills", "delete", "mine-1"], [("Delete them?", "n")], exit_code=1)
    assert here.cached() == before


def test_the_marketplace_s_skills_are_not_deleted(here: Machine) -> None:
    theirs, edited = sorted(here.cached())[:2]
    here.edit(edited, code="mine")
    before = here.sql("SELECT * FROM skill_cache")
    for arguments, says in (
        (["mine-1", theirs], "cache purge --all"),
        ([edited], f"skills revert {edited}"),
        (["mine-1", "mine-2"], "no skill 'mine-2'"),
        (["mine"], "ids must be complete here"),
    ):
        refused = here.command("skills", "delete", "--yes", *arguments)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert says in refused.stderr
    assert here.sql("SELECT * FROM skill_cache") == before


def test_several_edits_are_reverted_after_a_question_or_not_at_all(here: Machine) -> None:
    before = here.cached()
    one, two, three = sorted(set(before) - {"mine-1"})[:3]
    for each in (one, two):
        here.edit(each, code="mine")
    refused = here.command("skills", "revert", one, two, three)
    assert refused.returncode == 2
    assert one in refused.stderr and two in refused.stderr and three not in refused.stderr
    only_here = here.command("skills", "revert", one, "mine-1", "--yes")
    assert "skills delete mine-1" in only_here.stderr
    assert here.cached()[one]["code"] == "mine"
    assert run(here, "revert", one, two, three, "--yes")["skills"] == [
        {"skill_id": one, "changed": True},
        {"skill_id": two, "changed": True},
        {"skill_id": three, "changed": False},
    ]
    assert here.cached() == before
    assert run(here, "revert", one, two)["total"] == 2, "nothing to lose, nothing to ask"
    assert [each["ended_by"] for each in versions(here, one)] == ["superseded"]


# In an editor


def editor(machine: Machine, *lines: str) -> str:
    """Return an editor that runs these lines with `path`, and a counter of its calls in `calls`."""
    script = machine.directory / "editor.py"
    count = machine.directory / "calls"
    script.write_text(
        "import pathlib, sys\npath, calls = pathlib.Path(sys.argv[1]), pathlib.Path("
        f"{str(count)!r})\ncalls.write_text((calls.read_text() if calls.exists() else '') + path.name + ' ')\n"
        + "\n".join(lines),
        encoding="utf-8",
    )
    return f"python3 {script}"


def test_code_is_edited_as_a_file_of_its_language(here: Machine) -> None:
    run(here, "edit", "mine-1", "--set", "skill_type=python")
    add_a_line = editor(here, "path.write_text(path.read_text() + 'two\\n')")
    assert run(here, "edit", "mine-1", "--code", EDITOR=add_a_line)["changed"]
    assert here.cached()["mine-1"]["code"] == "one\ntwo"
    only_saves = editor(here, "path.write_text(path.read_text())")
    assert not run(here, "edit", "mine-1", "--code", EDITOR=only_saves)["changed"]
    fails = editor(here, "path.write_text('half')", "sys.exit(3)")
    failed = here.command("skills", "edit", "mine-1", "--code", EDITOR=fails)
    assert failed.returncode == 2
    kept = Path(failed.stderr.strip().rpartition(" ")[2])
    assert kept.read_text(encoding="utf-8") == "half"
    assert here.cached()["mine-1"]["code"] == "one\ntwo"
    assert (here.directory / "calls").read_text(encoding="utf-8") == "code.py " * 3
    excluded = here.command("skills", "edit", "mine-1", "--code", "--set", "code=x")
    assert excluded.returncode == 2


def test_after_a_mistake_the_same_text_is_edited_again(here: Machine) -> None:
    mends = editor(
        here,
        "text = path.read_text()",
        "wrong = text.replace('\"Mine\"', '7')",
        "path.write_text(wrong if text != wrong else text.replace('7', '\"Ours\"'))",
    )
    piped = here.command("skills", "edit", "mine-1", EDITOR=mends)
    assert piped.returncode == 2
    assert "name is not a string, line 3, column 11" in piped.stderr
    assert "your text is kept in" in piped.stderr
    said = on_a_terminal(here, ["skills", "edit", "mine-1"], [("edit again? [Y/n]", "")], EDITOR=mends)
    assert "name is not a string, line 3, column 11" in said
    assert here.cached()["mine-1"]["name"] == "Ours"


@pytest.mark.parametrize(
    ("skill_type", "code", "suffix"),
    [
        ("python", "", ".py"),
        ("Shell", "#!/usr/bin/env python3\n", ".sh"),
        ("nodejs", "", ".js"),
        ("prompt_only", "", ".md"),
        ("code", "#!/usr/bin/env -S python3.12 -u\n", ".py"),
        ("code", "#!/bin/bash\n", ".sh"),
        (None, "#! /usr/local/bin/node\n", ".js"),
        (7, "#!/usr/bin/env\n", ".txt"),
        ("code", "import os\n", ".txt"),
        (None, "", ".txt"),
    ],
)
def test_the_suffix_is_that_of_the_type_else_of_the_first_line(skill_type: object, code: str, suffix: str) -> None:
    assert code_suffix(skill_type, code) == suffix


def test_a_top_level_field_is_found() -> None:
    text = '{\n  "tags": ["name"],\n  "metadata": {\n    "name": 1\n  },\n  "name": 7\n}\n'
    assert place_of_field(text, "name") == "line 6, column 11"
    assert place_of_field(text, "version") is None
