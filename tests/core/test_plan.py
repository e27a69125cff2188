"""The decision table and the rules around it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from decision_table import BASE, CELLS, LOCAL, NOW, REMOTE, WAITING_CELLS, Cell, decide, known_of, skill, table
from msgspec.structs import replace

from atom_saas_sync.core.canonical import version_from_fields
from atom_saas_sync.core.gate.admission import admitted_before
from atom_saas_sync.core.plan import classify, plan_deleted, plan_listed, plan_resolution, resolve
from atom_saas_sync.core.plan.sides import base_of
from atom_saas_sync.model import (
    STRATEGIES,
    Action,
    Conflict,
    Outcome,
    SkillState,
    SkillVersion,
    Strategy,
)
from atom_saas_sync.model.effects import EndVersion, SetBase, UnmarkDeleted, WriteServed

DOCUMENT = Path(__file__).parents[2] / "docs" / "CONFLICTS.md"


@pytest.mark.parametrize("cells", [CELLS, WAITING_CELLS], ids=["new", "waiting"])
def test_the_table_in_the_documentation_is_what_the_code_does(cells: tuple[Cell, ...]) -> None:
    assert table(cells) in DOCUMENT.read_text(encoding="utf-8"), f"docs/CONFLICTS.md should have:\n{table(cells)}"


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("cell", [*CELLS, *WAITING_CELLS])
def test_a_decision_carried_out_needs_no_second_one(cell: Cell, strategy: Strategy) -> None:
    action = decide(cell, strategy)
    if action is None or action.cache == "remove" or cell.remote == "-":
        return
    after = carried_out(cell, action)
    shown = {"A": BASE, "R": REMOTE}.get(cell.remote, action.remote or BASE)
    again = plan_listed(after, admitted_before(shown), strategy, NOW)
    assert (again.outcome, again.cache, again.conflict) == (Outcome.UNCHANGED, "keep", None)


def carried_out(cell: Cell, action: Action) -> SkillState:
    known = known_of(cell) or SkillState("s")
    local, base, waiting = known.local_text, known.base, known.waiting
    for effect in action.effects:
        match effect:
            case WriteServed(text=text):
                local = text
            case SetBase(version=version, kept_text=kept):
                base = replace(base_of(version), text=kept)
            case UnmarkDeleted() if base is not None:
                base = replace(base, deleted=False)
    if action.conflict is not None:
        entry = action.conflict
        waiting = None
        if entry.resolution is None:
            ours = known_of(Cell("A", "L", "R", "R"))
            assert ours is not None
            assert ours.waiting is not None
            waiting = replace(ours.waiting, remote_text=entry.conflict.remote_text)
    return SkillState("s", local, known.local_updated_at, base, waiting)


@pytest.mark.parametrize(
    ("local", "remote", "kind", "severity"),
    [
        ({"version": "1", "code": "a"}, {"version": "2", "code": "b"}, "VERSION_MISMATCH", "CRITICAL"),
        ({"version": "1"}, {"version": "2"}, "VERSION_MISMATCH", "HIGH"),
        ({"code": "a"}, {"code": "b"}, "CONTENT_MISMATCH", "CRITICAL"),
        ({"code": "a\n", "tags": ["a"]}, {"code": "  a", "tags": []}, "OTHER", "LOW"),
        ({"command": "a"}, {"command": "b"}, "OTHER", "CRITICAL"),
        ({"local_files": ["a"]}, {"local_files": []}, "OTHER", "CRITICAL"),
        ({"python_packages": ["a"]}, {"python_packages": ["b"]}, "DEPENDENCY_CONFLICT", "HIGH"),
        ({"npm_packages": ["a"]}, {}, "DEPENDENCY_CONFLICT", "HIGH"),
        ({"npm_packages": ["a", "b"]}, {"npm_packages": ["b", "a"]}, "OTHER", "LOW"),
        ({"parameters": {"a": 1}}, {"parameters": {}}, "OTHER", "MEDIUM"),
        ({"metadata": {"a": 1}}, {"metadata": {}}, "OTHER", "MEDIUM"),
        ({"env_vars": ["A"]}, {"env_vars": []}, "OTHER", "MEDIUM"),
        ({"description": "a"}, {"description": "b"}, "OTHER", "LOW"),
        ({"content_hash": "same", "code": "a"}, {"content_hash": "same", "code": "b"}, "CONTENT_MISMATCH", "CRITICAL"),
        ({"command": None}, {}, "OTHER", "LOW"),
    ],
)
def test_type_and_severity(local: dict[str, Any], remote: dict[str, Any], kind: str, severity: str) -> None:
    assert classify(local, remote) == (kind, severity)


def test_a_deletion_conflict_has_a_type_of_its_own() -> None:
    action = decide(Cell("A", "L", "-"), "manual")
    assert action is not None
    assert action.conflict is not None
    assert (action.conflict.conflict.type, action.conflict.conflict.severity) == ("DELETION_CONFLICT", "CRITICAL")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_conflict_is_logged_with_its_three_versions(strategy: Strategy) -> None:
    action = decide(Cell("A", "L", "R"), strategy)
    assert action is not None
    assert action.conflict is not None
    conflict = action.conflict.conflict
    assert (conflict.base_text, conflict.local_text, conflict.remote_text) == (BASE.text, LOCAL.text, REMOTE.text)


def rated(version: SkillVersion, rating: float, moment: str) -> SkillVersion:
    return version_from_fields("s", {**version.fields, "average_rating": rating, "updated_at": moment})


@pytest.mark.parametrize(("remote", "strategy"), [(BASE, "merge"), (REMOTE, "manual"), (REMOTE, "local_wins")])
def test_an_edited_copy_follows_the_ratings_and_keeps_its_time(remote: SkillVersion, strategy: Strategy) -> None:
    known = known_of(Cell("A", "L", "R"))
    assert known is not None
    edited = rated(LOCAL, 1, "2026-03-01T00:00:00Z")
    known = replace(known, local_text=edited.text, local_updated_at="2026-01-01T00:00:00Z")
    action = plan_listed(known, admitted_before(rated(remote, 4.5, "2026-02-01T00:00:00Z")), strategy, NOW)
    (write,) = (each for each in action.effects if isinstance(each, WriteServed))
    written = json.loads(write.text)
    assert (written["average_rating"], written["updated_at"]) == (4.5, "2026-02-01T00:00:00Z")
    assert written["code"] == "l"
    # The later of the row's time and its own; otherwise the next merge would consider the wrong side newer.
    assert write.changed_at == "2026-03-01T00:00:00Z"


def test_the_newer_side_is_determined_before_the_refresh() -> None:
    known = known_of(Cell("A", "L", "R"))
    assert known is not None
    base, local, remote = (skill(description=name) for name in "alr")
    assert known.base is not None
    known = replace(
        known,
        local_text=rated(local, 1, "2026-01-01T00:00:00Z").text,
        local_updated_at="2026-01-01T00:00:00Z",
        base=replace(known.base, content_digest=base.content_digest, text=base.text),
    )
    newer = rated(remote, 2, "2026-02-01T00:00:00Z")
    waits = plan_listed(known, admitted_before(newer), "manual", NOW)
    (write,) = (each for each in waits.effects if isinstance(each, WriteServed))
    conflict = Conflict("OTHER", "LOW", write.text, newer.text, base.text)
    # The refreshed text contains the remote time; the row keeps the local one.
    assert write.changed_at == "2026-01-01T00:00:00Z"
    merged = resolve(conflict, "s", "merge", local_updated_at=write.changed_at, now=NOW)
    assert merged is not None
    assert merged.fields["description"] == "r"


def test_the_same_version_with_other_code_is_republished_once() -> None:
    known = known_of(Cell("A", "L", "R"))
    assert known is not None
    assert known.base is not None
    first, second = (admitted_before(skill(version="1.0", code=code)) for code in ("a", "b"))
    base = replace(
        known.base,
        exec_digest=first.exec_digest,
        content_digest=first.content_digest,
        text=first.text,
        version="1.0",
    )
    action = plan_listed(replace(known, base=base), second, "manual", NOW)
    assert action.republished
    waiting = known_of(Cell("A", "L", "R", "R"))
    assert waiting is not None
    assert waiting.waiting is not None
    seen = replace(waiting, base=base, waiting=replace(waiting.waiting, remote_text=second.text))
    assert not plan_listed(seen, second, "manual", NOW).republished
    assert not plan_listed(seen, second, "remote_wins", NOW).republished


def test_a_version_that_waited_and_was_replaced_belongs_to_the_history() -> None:
    action = decide(Cell("A", "L", "N", "R"), "manual")
    assert action is not None
    (ended,) = (each for each in action.effects if isinstance(each, EndVersion))
    assert (ended.text.decode(), ended.ended_by) == (REMOTE.text, "superseded")


def test_a_text_that_is_not_json_is_not_lost() -> None:
    known = known_of(Cell("A", "L", "R"))
    assert known is not None
    spoiled = replace(known, local_text="not JSON at all")
    for strategy in STRATEGIES:
        action = plan_listed(spoiled, admitted_before(REMOTE), strategy, NOW)
        assert action.conflict is not None
        assert action.conflict.conflict.local_text == "not JSON at all"
    assert plan_deleted(spoiled, "manual") is not None


def test_manual_does_not_resolve_a_conflict() -> None:
    with pytest.raises(ValueError, match="no decision"):
        resolve(
            Conflict("OTHER", "LOW", LOCAL.text, REMOTE.text, BASE.text), "s", "manual", local_updated_at=None, now=NOW
        )


@pytest.mark.parametrize(
    ("cell", "result"),
    [(Cell("A", "L", "R"), LOCAL), (Cell("A", "-", "R", "R"), LOCAL), (Cell("A", "L", "R", "R"), None)],
)
def test_resolutions_that_are_impossible(cell: Cell, result: SkillVersion | None) -> None:
    known = known_of(cell)
    assert known is not None
    with pytest.raises(ValueError, match="resolve"):
        plan_resolution(known, result, "merge", NOW)
