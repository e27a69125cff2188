"""Syncs of skills that were changed on both sides, and special cases of unmodified pages."""

from __future__ import annotations

import itertools
import json

import pytest
from conftest import Json, Machine

from atom_saas_sync.model import Strategy


def conflict(machine: Machine, strategy: Strategy = "manual") -> str:
    """Return a skill that was edited here, and then changed there."""
    machine.fill()
    skill_id = machine.sandbox.skill_ids()[0]
    machine.edit(skill_id, code="mine")
    machine.sandbox.patch_skill(skill_id, {"code": "theirs"})
    machine.pull(strategy=strategy)
    return skill_id


def logged(machine: Machine) -> list[tuple[int, str | None]]:
    return [(each.resolved, each.strategy) for each in machine.conflicts()]


@pytest.mark.parametrize(
    ("strategy", "code"), [("remote_wins", "theirs"), ("local_wins", "mine"), ("merge", "mine"), ("manual", "mine")]
)
def test_many_edited_skills(machine: Machine, strategy: Strategy, code: str) -> None:
    machine.fill()
    ids = machine.sandbox.skill_ids()[:20]
    for skill_id in ids:
        machine.edit(skill_id, code="mine")
        machine.sandbox.patch_skill(skill_id, {"code": "theirs", "rating_count": 77})
    report = machine.pull(strategy=strategy)
    waiting = 20 if strategy == "manual" else 0
    assert (report.status, report.counts.conflicts_detected) == ("success", 20)
    assert (report.counts.conflicts_resolved, report.counts.conflicts_manual) == (20 - waiting, waiting)
    cached = machine.cached()
    assert {(cached[skill_id]["code"], cached[skill_id]["rating_count"]) for skill_id in ids} == {(code, 77)}
    local = [json.loads(each.local_text or "")["code"] for each in machine.conflicts()]
    assert local == ["mine"] * 20
    again = machine.pull(strategy=strategy)
    assert (again.counts.conflicts_detected, again.counts.updated, again.counts.conflicts_manual) == (0, 0, waiting)
    assert machine.cached() == cached
    counters = machine.status().counters.items()
    assert sum(value for (name, _), value in counters if name == "atom_saas_conflicts_detected_total") == 20


def test_a_changed_strategy_resolves_open_conflicts_even_behind_a_304(machine: Machine) -> None:
    skill_id = conflict(machine)
    report = machine.pull(strategy="remote_wins")
    assert report.counts.not_modified == report.counts.requests
    assert (report.counts.updated, report.counts.conflicts_resolved, report.counts.conflicts_manual) == (1, 1, 0)
    assert machine.cached()[skill_id]["code"] == "theirs"


def test_a_newer_version_brings_the_waiting_conflict_up_to_date(machine: Machine) -> None:
    skill_id = conflict(machine)
    machine.sandbox.patch_skill(skill_id, {"code": "newer"})
    assert machine.pull(strategy="manual").counts.conflicts_detected == 0
    (waiting,) = machine.conflicts()
    assert (json.loads(waiting.remote_text or "")["code"], waiting.resolved) == ("newer", False)


@pytest.mark.parametrize("strategy", ["manual", "remote_wins"])
def test_equal_sides_close_the_conflict(machine: Machine, strategy: Strategy) -> None:
    skill_id = conflict(machine)
    machine.edit(skill_id, code="theirs")
    assert machine.pull(strategy=strategy).counts.conflicts_manual == 0
    assert logged(machine) == [(1, "converged")]


def test_a_marketplace_that_reverts_to_the_same_bytes_closes_the_conflict(machine: Machine) -> None:
    machine.fill()
    skill_id = machine.sandbox.skill_ids()[0]
    before = machine.sandbox.skill(skill_id)
    machine.edit(skill_id, code="mine")
    machine.sandbox.patch_skill(skill_id, {"code": "theirs"})
    machine.pull(strategy="manual")
    fields = {name: before[name] for name in ("code", "updated_at")}
    machine.sandbox.patch_skill(skill_id, fields, touch=False)
    assert machine.sandbox.skill(skill_id) == before
    assert machine.pull(strategy="manual").counts.conflicts_manual == 0
    assert logged(machine) == [(1, "converged")]
    assert machine.cached()[skill_id]["code"] == "mine"


def test_a_deleted_skill_is_not_resolved_with_its_last_version(machine: Machine) -> None:
    machine.fill()
    skill_id = "ours"
    machine.sql(
        "INSERT INTO skill_cache (skill_id, skill_data) VALUES (?, ?)",
        skill_id,
        json.dumps({"skill_id": skill_id, "name": "Ours", "code": "mine"}),
    )
    machine.sandbox.put_skill({"skill_id": skill_id, "name": "Theirs", "code": "theirs"})
    assert machine.pull(strategy="manual").counts.conflicts_manual == 1
    assert [(each.base_text, each.type) for each in machine.conflicts()] == [(None, "CONTENT_MISMATCH")]
    machine.sandbox.delete_skill(skill_id)
    report = machine.pull(strategy="remote_wins")
    assert (report.counts.deleted, report.counts.conflicts_manual) == (0, 0)
    assert machine.cached()[skill_id]["code"] == "mine"
    assert logged(machine) == [(1, "converged")]


def test_a_skill_deleted_there_and_restored_here_stays_as_written(machine: Machine) -> None:
    machine.sandbox.put_skill({"skill_id": "s0", "name": "N", "code": "theirs", "rating_count": 1})
    machine.pull()
    machine.sql("DELETE FROM skill_cache WHERE skill_id = 's0'")
    machine.sandbox.delete_skill("s0")
    ours = {"skill_id": "s0", "name": "N", "code": "mine"}
    machine.sql("INSERT INTO skill_cache (skill_id, skill_data) VALUES ('s0', ?)", json.dumps(ours))
    machine.pull(strategy="local_wins")
    # Ratings do not change a skill that was deleted.
    assert machine.cached()["s0"] == ours


def test_skills_that_exist_only_here_are_never_deleted(machine: Machine) -> None:
    machine.fill()
    machine.sql("""INSERT INTO skill_cache (skill_id, skill_data) VALUES ('ours', '{"skill_id":"ours","name":"O"}')""")
    for _ in range(2):
        assert machine.pull(force=True).counts.deleted == 0
    assert machine.cached()["ours"]["name"] == "O"
    assert machine.sql("SELECT source, stale FROM usable_skill WHERE skill_id = 'ours'") == [("local", 0)]


@pytest.mark.parametrize(
    ("strategy", "stays", "source"),
    [("remote_wins", False, None), ("local_wins", True, "local"), ("merge", True, "local"), ("manual", True, None)],
)
def test_deleted_there_and_changed_here(machine: Machine, strategy: Strategy, stays: bool, source: str | None) -> None:
    machine.fill()
    skill_id = machine.sandbox.skill_ids()[0]
    machine.edit(skill_id, code="mine")
    machine.sandbox.delete_skill(skill_id)
    machine.pull(strategy=strategy)
    assert (skill_id in machine.cached()) is stays
    found = machine.sql("SELECT source FROM usable_skill WHERE skill_id = ?", skill_id)
    # A skill deleted by the marketplace is not served while its conflict is open.
    assert found == ([] if source is None else [(source,)])
    again = machine.pull(strategy=strategy)
    assert (again.counts.conflicts_detected, again.counts.deleted) == (0, 0)
    assert again.proof.confirmations == 0


def test_a_waiting_deletion_that_is_listed_again_closes(machine: Machine) -> None:
    machine.fill()
    skill_id = machine.sandbox.skill_ids()[0]
    before = machine.sandbox.skill(skill_id)
    machine.edit(skill_id, code="mine")
    machine.sandbox.delete_skill(skill_id)
    machine.pull(strategy="manual")
    machine.sandbox.put_skill(before)
    assert machine.pull(strategy="manual").counts.conflicts_manual == 0
    assert machine.sql("SELECT source FROM usable_skill WHERE skill_id = ?", skill_id) == [("edited",)]


def test_changed_volatile_fields_are_restored_behind_a_304(machine: Machine) -> None:
    machine.fill()
    skill_id = machine.sandbox.skill_ids()[0]
    machine.edit(skill_id, code="mine", average_rating=1000)
    report = machine.pull()
    assert (report.counts.not_modified, report.counts.updated) == (report.counts.requests, 1)
    cached = machine.cached()[skill_id]
    assert (cached["code"], cached["average_rating"]) == ("mine", machine.sandbox.skill(skill_id)["average_rating"])
    assert machine.pull().counts.updated == 0


def test_a_row_rewritten_with_equal_json_is_not_an_edit(machine: Machine) -> None:
    machine.fill()
    skill_id = machine.sandbox.skill_ids()[0]
    machine.sql(
        "UPDATE skill_cache SET skill_data = ? WHERE skill_id = ?",
        json.dumps(machine.cached()[skill_id], indent=4, sort_keys=True),
        skill_id,
    )
    machine.pull()
    assert machine.sql("SELECT count(*) FROM usable_skill WHERE source != 'marketplace'") == [(0,)]
    machine.sandbox.patch_skill(skill_id, {"code": "theirs"})
    assert machine.pull().counts.conflicts_detected == 0
    assert machine.cached()[skill_id]["code"] == "theirs"


def test_the_local_side_of_a_conflict_that_waited_is_not_made_newer_by_ratings(machine: Machine) -> None:
    machine.fill()
    skill_id = machine.sandbox.skill_ids()[0]
    machine.sql("UPDATE skill_cache SET updated_at = '2026-01-01T00:00:00Z'")
    machine.edit(skill_id, description="mine", updated_at="2026-01-02T00:00:00Z")
    machine.sandbox.patch_skill(skill_id, {"description": "theirs", "updated_at": "2026-01-03T00:00:00Z"}, touch=False)
    machine.pull(strategy="manual")
    machine.sandbox.patch_skill(skill_id, {"average_rating": 2.5}, touch=False)
    machine.clock.move(hours=1)
    machine.pull(strategy="manual")
    machine.pull(strategy="merge")
    cached = machine.cached()[skill_id]
    assert (cached["description"], cached["average_rating"]) == ("theirs", 2.5)


def test_a_dry_run_reports_conflicts_without_storing_them(machine: Machine) -> None:
    machine.fill()
    skill_id = machine.sandbox.skill_ids()[0]
    machine.edit(skill_id, code="mine")
    machine.sandbox.patch_skill(skill_id, {"code": "theirs"})
    report = machine.pull(strategy="manual", dry_run=True)
    assert (report.counts.conflicts_detected, report.counts.conflicts_manual) == (1, 1)
    assert logged(machine) == []


def test_open_conflicts_can_be_made_to_fail_the_run(machine: Machine) -> None:
    conflict(machine)
    report = machine.pull(strategy="manual", fail_on_conflict=True)
    assert (report.exit_code, report.status, report.reasons) == (4, "success", ("conflicts_open",))


def merged(machine: Machine, base: Json, local: Json, remote: Json) -> Json:
    """Return the result of a sync for a skill that was changed on both sides."""
    skill = {"skill_id": "s0", "name": "N", "version": "1", "updated_at": "2026-01-01T00:00:00Z"}
    machine.sandbox.put_skill({**skill, **base})
    machine.pull()
    machine.sql("UPDATE skill_cache SET updated_at = '2026-01-10T00:00:00Z' WHERE skill_id = 's0'")
    machine.edit("s0", **local)
    changed = {**machine.sandbox.skill("s0"), **remote}
    machine.sandbox.put_skill({name: value for name, value in changed.items() if value != "no such field"})
    assert machine.pull(strategy="merge").counts.conflicts_resolved == 1
    cached = machine.cached()["s0"]
    machine.pull(strategy="merge")
    assert machine.cached()["s0"] == cached
    return cached


def test_a_merge_never_creates_a_combination_that_nobody_wrote(machine: Machine) -> None:
    base = {"code": "a", "python_packages": ["requests==2.0", "old"], "tags": ["a", "b"], "examples": ["x", "y"]}
    local = {"code": "mine", "python_packages": ["requests==2.0", "new"], "tags": ["a", "mine"], "examples": ["x"]}
    remote = {
        "command": "sh -c evil",
        "python_packages": ["requests==2.1", "old"],
        "setup": "evil",
        "metadata": {"entrypoint": "evil", "author": "Ann", "keywords": ["k"]},
        "tags": ["a", "b", "theirs"],
        "examples": ["y", "z"],
    }
    cached = merged(machine, base, local, remote)
    assert {name: cached.get(name) for name in ("code", "python_packages", "command", "setup")} == {
        "code": "mine",
        "python_packages": ["requests==2.0", "new"],
        "command": None,
        "setup": None,
    }
    assert cached["metadata"] == {"author": "Ann", "keywords": ["k"]}
    assert (cached["tags"], cached["examples"]) == (["a", "mine", "theirs"], ["z"])


def test_executable_fields_changed_only_there_are_taken_whole(machine: Machine) -> None:
    base = {"code": "a", "python_packages": ["old"], "metadata": {"entrypoint": "a", "license": "MIT"}}
    remote = {"code": "b", "python_packages": ["new"], "metadata": {"entrypoint": "b", "license": "MIT"}}
    cached = merged(machine, base, {"metadata": {"entrypoint": "a", "license": "ISC"}, "name": "Mine"}, remote)
    assert (cached["code"], cached["python_packages"], cached["name"]) == ("b", ["new"], "Mine")
    assert cached["metadata"] == {"entrypoint": "b", "license": "ISC"}


# The time of the changes, and whose is kept.
THEIR_TIMES: list[tuple[str | None, str]] = [
    ("2026-01-20T00:00:00Z", "theirs"),
    ("2026-01-20T02:00:00+02:00", "theirs"),
    ("2026-01-05T00:00:00Z", "mine"),
    ("2026-01-10T00:00:00Z", "mine"),  # the same moment is not later
    ("2026-02-19T12:04:00Z", "theirs"),  # their clock is a little ahead of ours
    ("2026-02-19T12:06:00Z", "mine"),
    ("8999-01-01T00:00:00Z", "mine"),
    ("9999-12-31T23:59:59-23:59", "mine"),
    ("soon", "mine"),
    (None, "mine"),
    ("no such field", "mine"),
]


def test_an_unknown_time_never_decides_against_the_local_edit(machine: Machine) -> None:
    def value(field: str, text: str) -> Json:
        return {field: text if field == "description" else {"homepage": text}}

    pairs = itertools.product(("description", "metadata"), THEIR_TIMES)
    cases = {f"s{number}": (field, *case) for number, (field, case) in enumerate(pairs)}
    for skill_id, (field, _, _) in cases.items():
        skill = {"skill_id": skill_id, "name": "N", "version": "1", "updated_at": "2026-01-01T00:00:00Z"}
        machine.sandbox.put_skill({**skill, **value(field, "base")})
    machine.pull()
    for skill_id, (field, theirs, _) in cases.items():
        machine.sql("UPDATE skill_cache SET updated_at = '2026-01-10T00:00:00Z' WHERE skill_id = ?", skill_id)
        machine.edit(skill_id, **value(field, "mine"))
        changed = {**machine.sandbox.skill(skill_id), **value(field, "theirs"), "updated_at": theirs}
        machine.sandbox.put_skill({name: each for name, each in changed.items() if each != "no such field"})
    assert machine.pull(strategy="merge").counts.conflicts_resolved == len(cases)
    cached = machine.cached()
    for skill_id, (field, theirs, wins) in cases.items():
        assert cached[skill_id][field] == value(field, wins)[field], (field, theirs)
    machine.pull(strategy="merge")
    assert machine.cached() == cached


_ANY_TEXT = pytest.mark.sqlite("a time there may be any text")


@pytest.mark.parametrize(
    "row",
    [
        pytest.param("some day", marks=_ANY_TEXT),
        pytest.param("", marks=_ANY_TEXT),
        "9000-01-01T00:00:00Z",
    ],
)
def test_an_unknown_time_of_the_local_edit_does_not_decide_either(machine: Machine, row: str) -> None:
    machine.sandbox.put_skill({"skill_id": "s0", "name": "N", "description": "a"})
    machine.pull()
    machine.edit("s0", description="mine")
    machine.sql("UPDATE skill_cache SET updated_at = ? WHERE skill_id = 's0'", row)
    machine.sandbox.patch_skill("s0", {"description": "theirs", "updated_at": "2026-02-01T00:00:00Z"})
    machine.pull(strategy="merge")
    assert machine.cached()["s0"]["description"] == "mine"


# Replaced edits are reported until a user has seen them


def test_a_replaced_edit_is_reported_until_a_user_inspects_it(machine: Machine) -> None:
    machine.fill()
    one, two, three = machine.sandbox.skill_ids()[:3]

    def replaced(*ids: str) -> str:
        for skill_id in ids:
            machine.edit(skill_id, code="mine")
            machine.sandbox.patch_skill(skill_id, {"code": f"theirs {len(machine.conflicts())}"})
        return machine.command("sync", "skills").stdout

    def told() -> list[str]:
        document: Json = json.loads(machine.command("status", "--json").stdout)
        assert ("edits_replaced" in document["health"]["notices"]) == (machine.status().edits_replaced > 0)
        return [line for line in machine.command("status").stdout.splitlines() if "replaced by a sync" in line]

    assert "  1 local edit replaced (`atom-sync conflicts undo 1`)\n" in replaced(one)
    machine.command("sync", "skills")
    assert len(told()) == 1
    machine.command("conflicts", "list")  # of the open ones
    assert len(told()) == 1
    machine.command("conflicts", "show", "1")
    assert told() == []
    assert "  2 local edits replaced (`atom-sync conflicts list --resolved`)\n" in replaced(two, three)
    assert machine.command("conflicts", "undo", "3").returncode == 0
    assert machine.status().edits_replaced == 1
    machine.command("conflicts", "list", "--resolved", "--json")
    assert told() == []


@pytest.mark.parametrize(
    ("strategy", "change", "ids"),
    [
        ("remote_wins", {"code": "theirs"}, (1,)),
        ("local_wins", {"code": "theirs"}, ()),
        ("merge", {"code": "theirs"}, ()),
        ("merge", {"description": "theirs", "updated_at": "2026-02-19T13:00:00Z"}, (1,)),
        ("remote_wins", None, (1,)),
        ("merge", None, ()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_replaced_edit_is_one_that_is_not_in_the_result(
    machine: Machine, strategy: Strategy, change: Json | None, ids: tuple[int, ...]
) -> None:
    machine.fill()
    skill_id = machine.sandbox.skill_ids()[0]
    machine.edit(skill_id, code="mine", description="mine", updated_at="2026-02-19T11:00:00Z")
    machine.sql("UPDATE skill_cache SET updated_at = '2026-02-19T11:00:00Z' WHERE skill_id = ?", skill_id)
    machine.clock.move(hours=2)
    if change is None:
        machine.sandbox.delete_skill(skill_id)
    else:
        machine.sandbox.patch_skill(skill_id, change)
    dry = machine.pull(strategy=strategy, dry_run=True)
    assert (dry.counts.edits_replaced, dry.replaced_edits) == (len(ids), ())
    report = machine.pull(strategy=strategy)
    assert (report.counts.edits_replaced, report.replaced_edits) == (len(ids), ids)
    assert machine.status().edits_replaced == len(ids)
    assert machine.pull(strategy=strategy).replaced_edits == ()
