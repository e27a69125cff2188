"""Each way into `skill_cache`, tried with a version that the gate must keep out."""

from __future__ import annotations

import json
from collections.abc import Callable
from operator import methodcaller
from typing import Any

import pytest
from conftest import Json, Machine
from machine_databases import new_database
from test_gated_sync import REVIEW, Gated, change, revoke
from test_push_gate import REVIEW as REVIEWING
from test_push_gate import confirm, hear, update
from test_sync_ratings import rate

from atom_saas_sync.core.deletions import MaxDelete
from atom_saas_sync.core.gate.states import GOOD
from atom_saas_sync.core.gate.types import Policy
from atom_saas_sync.errors import NotAdmitted
from atom_saas_sync.store.sqlite.tables.gate import WORDS_OF_PEOPLE
from atom_saas_sync.usecases.edit_skills import Candidate, edit_skill, import_skills, restore_version, revert_skills
from atom_saas_sync.usecases.gate import approvals, pins_and_quarantine
from atom_saas_sync.usecases.gate.reports import Target
from atom_saas_sync.usecases.gate.verify import verify
from atom_saas_sync.usecases.purge_cache import PurgeOptions, purge_cache
from atom_saas_sync.usecases.resolve_conflicts import Decision, resolve_conflicts, undo_resolution

# The store's rooms that are given to what a person does.
CATALOGUE = methodcaller("edits", history_versions=10)
CONFLICTS = methodcaller("conflicts", history_versions=10)
LIFETIME = methodcaller("lifetime")
EVIL, BAD = "evil()", "6.6.6"


@pytest.fixture
def gated(machine: Machine) -> Gated:
    """Return a machine whose skills were adopted when the policy became `review`."""
    machine.fill()
    found = Gated(machine)
    found.policy = REVIEW
    machine.keep("under review", found.sync)
    return found


@pytest.fixture
def first(gated: Gated) -> str:
    return gated.machine.sandbox.skill_ids()[0]


@pytest.fixture
def second(gated: Gated) -> str:
    return gated.machine.sandbox.skill_ids()[1]


def offer_evil(gated: Gated, skill_id: str) -> Json:
    """Publish other code under another version number; return the skill served before."""
    before: Json = gated.machine.cached()[skill_id]
    change(gated, skill_id, BAD, code=EVIL, average_rating=1.5)
    return before


def stays(gated: Gated, skill_id: str, before: Json | None) -> None:
    """Check that a skill is served as before, except for its figures."""
    now = gated.machine.cached().get(skill_id)
    figures = {"average_rating", "rating_count", "ratings", "updated_at"}
    assert _without(now, figures) == _without(before, figures)


def _without(fields: Json | None, names: set[str]) -> Json | None:
    return None if fields is None else {name: value for name, value in fields.items() if name not in names}


def do(gated: Gated, what: Callable[..., object], room: Any, *arguments: Any, **options: Any) -> None:
    """Perform a user's action."""
    gated.machine.clock.move(seconds=1)
    with gated.machine.store() as store:
        what(room(store), *arguments, actor="ada", now=gated.machine.clock.now(), **options)


def refused(gated: Gated, why: str, what: Callable[..., object], room: Any, *arguments: Any, **options: Any) -> None:
    before = gated.machine.sql("SELECT * FROM skill_cache ORDER BY id")
    with pytest.raises(NotAdmitted, match=why):
        do(gated, what, room, *arguments, **options)
    assert gated.machine.sql("SELECT * FROM skill_cache ORDER BY id") == before


def put_away(gated: Gated, *skill_ids: str) -> None:
    assert gated.decide(pins_and_quarantine.quarantine, list(skill_ids), note="odd").done == skill_ids


def edited_then_shown(gated: Gated, skill_id: str, *, strategy: str, **fields: Any) -> None:
    """Edit a skill here, and fetch the marketplace's bad version under an open policy."""
    gated.policy = Policy()
    gated.machine.edit(skill_id, **fields)
    change(gated, skill_id, BAD, code=EVIL, description="theirs")
    gated.sync(strategy=strategy)


def states(gated: Gated) -> dict[str, str]:
    """Return the states of `skills verify` for skills that must not be used."""
    with gated.machine.store(read_only=True) as store:
        return {each.skill_id: each.state for each in verify(store.serving(), None).skills if each.state not in GOOD}


def usable(gated: Gated, skill_id: str) -> str | None:
    """Return the source of a skill as readers of the view see it."""
    rows = gated.machine.sql("SELECT source FROM usable_skill WHERE skill_id = ?", skill_id)
    return rows[0][0] if rows else None


# Versions from the marketplace


def test_a_page(gated: Gated, first: str) -> None:
    before = offer_evil(gated, first)
    gated.machine.sandbox.put_skill({"skill_id": "new", "name": "New"})
    for force in (False, True):
        gated.sync(force=force)
        stays(gated, first, before)
        stays(gated, "new", None)


def test_a_row_that_is_put_back_is_the_admitted_one_and_never_out_of_quarantine(
    gated: Gated, first: str, second: str
) -> None:
    before = offer_evil(gated, second)
    gated.sync()
    put_away(gated, first)
    gated.machine.sql("DELETE FROM skill_cache WHERE skill_id = ?", second)
    gated.sync()
    stays(gated, second, before)
    stays(gated, first, None)


def test_a_row_that_was_deleted_here_is_not_put_back_once_its_version_is_revoked(gated: Gated, first: str) -> None:
    version = gated.served(first)
    gated.machine.sql("DELETE FROM skill_cache WHERE skill_id = ?", first)
    revoke(gated, {"id": first, "version": version})
    gated.sync()
    stays(gated, first, None)


def test_an_open_conflict_whose_remote_side_was_revoked(gated: Gated, first: str) -> None:
    edited_then_shown(gated, first, strategy="manual", description="mine")
    before = gated.machine.cached()[first]
    revoke(gated, {"id": first, "version": BAD})
    gated.sync(strategy="remote_wins")
    stays(gated, first, before)
    assert [each.resolved for each in gated.machine.conflicts()] == [False]


@pytest.mark.parametrize("strategy", ["remote_wins", "merge", "manual"])
def test_a_held_version_makes_no_conflict_and_overwrites_no_edit(gated: Gated, first: str, strategy: str) -> None:
    gated.machine.edit(first, description="mine")
    before = offer_evil(gated, first)
    gated.sync(strategy=strategy)
    stays(gated, first, before)
    assert gated.machine.conflicts() == []


def test_a_skill_that_the_list_forgets_and_a_get_shows(gated: Gated, first: str) -> None:
    before = offer_evil(gated, first)
    gated.machine.sandbox.fault("empty_list", endpoint="list", times=1)
    report = gated.sync(max_delete=MaxDelete(share=1.0))
    assert report.proof.confirmations
    stays(gated, first, before)


def test_the_offer_of_a_withdrawn_skill_is_dropped(gated: Gated, first: str, second: str) -> None:
    for each in (first, second):
        offer_evil(gated, each)
    gated.sync()
    for each in (first, second):
        gated.machine.sandbox.delete_skill(each, push=False)
    confirm(gated.machine, REVIEWING, first)
    gated.sync()
    for each in (first, second):
        assert gated.approve(each).refused[0].reason == "not_waiting"
        stays(gated, each, None)


def test_messages(gated: Gated, first: str, second: str) -> None:
    machine = gated.machine
    before, gone = machine.cached()[second], {"type": "skill_delete", "data": {"skill_id": second}}
    assert hear(machine, REVIEWING, update(first, code=EVIL), update("new", code=EVIL), gone) == [first, "new", second]
    stays(gated, second, before)
    before = offer_evil(gated, first)
    machine.sandbox.put_skill({"skill_id": "new", "name": "New"})
    confirm(machine, REVIEWING, first, "new")
    stays(gated, first, before)
    stays(gated, "new", None)
    told = {"type": "skill_update", "data": {**machine.sandbox.skill(first), "description": "and more"}}
    assert hear(machine, REVIEWING, told) == [first]
    stays(gated, first, before)


def test_a_message_about_figures(gated: Gated, first: str, second: str) -> None:
    before = offer_evil(gated, first)
    gated.sync()
    put_away(gated, second)
    figures = {"rating": 1, "average_rating": 2.5, "rating_count": 7, "code": EVIL, "version": BAD}
    told = [{"type": "rating_update", "data": {"skill_id": each, **figures}} for each in (first, second)]
    assert hear(gated.machine, REVIEWING, *told) == []
    assert gated.served(first, "average_rating") == 2.5
    stays(gated, first, before)
    stays(gated, second, None)


def test_the_answer_to_a_rating(gated: Gated, first: str, second: str) -> None:
    before = offer_evil(gated, first)
    gated.sync()
    for each in (first, second):
        rate(gated.machine, each, 1)
    put_away(gated, second)
    gated.machine.send_ratings()
    assert gated.served(first, "average_rating") != before["average_rating"]
    stays(gated, first, before)
    stays(gated, second, None)
    assert usable(gated, first) == "marketplace", "figures are no edit"


# Actions of users


@pytest.mark.parametrize(
    "decision",
    [
        Decision(strategy="remote_wins"),
        Decision(strategy="merge"),
        Decision(strategy="local_wins"),
        Decision(sides={"code": "remote", "version": "remote", "description": "local"}),
        Decision(text="own"),
    ],
    ids=["remote_wins", "merge", "local_wins", "field", "data"],
)
def test_resolving_a_conflict(gated: Gated, first: str, decision: Decision) -> None:
    edited_then_shown(gated, first, strategy="manual", description="mine")
    gated.decide(pins_and_quarantine.add_revocation, skill_id=first, version=BAD, note=None)
    if decision.text is not None:
        decision = Decision(text=json.dumps(gated.machine.sandbox.skill(first)))
    refused(gated, "is revoked", resolve_conflicts, CONFLICTS, [1], decision)


def test_undoing_a_resolution(gated: Gated, first: str, second: str) -> None:
    edited_then_shown(gated, first, strategy="remote_wins", version="5.5.5")
    edited_then_shown(gated, second, strategy="remote_wins", version="5.5.5")
    gated.decide(pins_and_quarantine.add_revocation, skill_id=first, version="5.5.5", note=None)
    put_away(gated, second)
    refused(gated, "is revoked", undo_resolution, CONFLICTS, 1)
    refused(gated, "in quarantine", undo_resolution, CONFLICTS, 2)


def test_editing_importing_and_restoring(gated: Gated, first: str, second: str) -> None:
    evil = json.dumps({**gated.machine.cached()[first], "version": BAD})
    away = json.dumps({**gated.machine.cached()[second], "description": "mine"})
    gated.decide(pins_and_quarantine.add_revocation, skill_id=first, version=BAD, note=None)
    put_away(gated, second)
    for skill_id, text, why in ((first, evil, "is revoked"), (second, away, "in quarantine")):
        refused(gated, why, edit_skill, CATALOGUE, skill_id, text, seen=None)
        refused(gated, why, import_skills, CATALOGUE, [Candidate("a file", text.encode())])
        refused(gated, why, restore_version, CATALOGUE, skill_id, text, version="a")


def test_reverting_an_edit(gated: Gated, first: str, second: str) -> None:
    before = gated.machine.cached()[first]
    gated.machine.edit(first, description="mine")
    offer_evil(gated, first)
    gated.sync()
    do(gated, revert_skills, CATALOGUE, [first])
    stays(gated, first, before)
    for each in (first, second):
        gated.machine.edit(each, description="mine")
    gated.decide(pins_and_quarantine.add_revocation, skill_id=first, version=before["version"], note=None)
    put_away(gated, second)
    refused(gated, "is revoked", revert_skills, CATALOGUE, [first])
    refused(gated, "in quarantine", revert_skills, CATALOGUE, [second])


def test_a_purge_forgets_no_decision(gated: Gated, first: str, second: str) -> None:
    third, fourth = gated.machine.sandbox.skill_ids()[2:4]
    for each in (first, second):
        offer_evil(gated, each)
    gated.sync()
    assert gated.decide(approvals.reject, [Target(first)], note=None).success
    put_away(gated, third)
    gated.decide(pins_and_quarantine.add_revocation, skill_id=fourth, note=None)
    do(gated, purge_cache, LIFETIME, PurgeOptions(everything=True, include_local=True))
    assert gated.machine.cached() == {}
    gated.policy = Policy()
    gated.machine.sandbox.patch_skill(fourth, {"version": "7.7.7"}, push=False)
    gated.sync(force=True)
    assert [gated.served(each) for each in (first, second, third, fourth)] == [None, BAD, None, None]


def test_a_purge_does_not_admit_a_held_version_as_a_new_skill(gated: Gated, first: str) -> None:
    offer_evil(gated, first)
    gated.sync()
    do(gated, purge_cache, LIFETIME, PurgeOptions(everything=True))
    gated.sync()
    stays(gated, first, None)
    assert first in gated.waiting()


def test_pins_and_releases(gated: Gated, first: str) -> None:
    version = gated.served(first)
    gated.policy = Policy()
    change(gated, first)
    gated.sync()
    gated.decide(pins_and_quarantine.add_revocation, skill_id=first, version=version, note=None)
    assert gated.decide(pins_and_quarantine.add_pin, f"{first}@{version}", note=None).refused[0].reason == "revoked"
    gated.decide(pins_and_quarantine.add_revocation, skill_id=first, note=None)
    assert gated.decide(pins_and_quarantine.release, [first]).refused[0].reason == "revoked"
    stays(gated, first, None)


# SQL by other programs


def test_plain_sql_is_marked_as_an_edit(gated: Gated, first: str) -> None:
    gated.machine.edit(first, code=EVIL)
    assert (usable(gated, first), states(gated)) == ("edited", {first: "edited"})


def test_plain_sql_that_brings_back_what_is_revoked_or_in_quarantine(gated: Gated, first: str, second: str) -> None:
    here = gated.machine.cached()
    texts = {
        first: {**here[first], "version": "0.0.1"},
        second: here[second],
        "new": {**here[first], "skill_id": "new"},
    }
    for each in (first, "new"):
        gated.decide(pins_and_quarantine.add_revocation, skill_id=each, note=None)
    put_away(gated, second)
    for skill_id, fields in texts.items():
        gated.machine.sql("INSERT INTO skill_cache (skill_id, skill_data) VALUES (?, ?)", skill_id, json.dumps(fields))
    assert [usable(gated, each) for each in texts] == [None, None, None]
    assert states(gated) == {first: "revoked", second: "quarantined", "new": "revoked"}
    other = gated.machine.sandbox.skill(gated.machine.sandbox.skill_ids()[2])
    text = json.dumps({**other, "description": "mine"})
    do(gated, edit_skill, CATALOGUE, other["skill_id"], text, seen=None)
    for each in (first, "new"):
        stays(gated, each, None)
    gated.sync()
    assert usable(gated, second) is None


def test_plain_sql_that_resolves_a_conflict_with_a_revoked_version(gated: Gated, first: str) -> None:
    edited_then_shown(gated, first, strategy="manual", description="mine")
    revoke(gated, {"id": first, "version": BAD})
    gated.sync(strategy="manual")
    gated.machine.sql(
        "UPDATE conflict_log SET resolved = TRUE, resolution_strategy = 'remote_wins', resolved_data = remote_data, "
        "resolved_at = '2026-02-01T00:00:00Z', resolved_by = 'backend'"
    )
    gated.sync(strategy="manual")
    stays(gated, first, None)


def test_plain_sql_in_the_other_side_of_a_conflict(gated: Gated, first: str) -> None:
    edited_then_shown(gated, first, strategy="manual", description="mine")
    before = gated.machine.cached()[first]
    gated.policy = REVIEW
    gated.sync(strategy="manual")
    gated.machine.sql("UPDATE conflict_log SET remote_data = json_set(remote_data, '$.code', 'forged()')")
    gated.sync(strategy="remote_wins")
    stays(gated, first, before)


def test_plain_sql_in_the_other_side_of_a_conflict_under_an_open_policy(gated: Gated, first: str) -> None:
    edited_then_shown(gated, first, strategy="manual", description="mine")
    before = gated.machine.cached()[first]
    forged = gated.machine.sql("SELECT remote_data FROM conflict_log")[0][0]
    gated.machine.sql("UPDATE conflict_log SET remote_data = json_set(remote_data, '$.code', 'forged()')")
    gated.sync(strategy="remote_wins")
    stays(gated, first, before)
    gated.machine.sql("UPDATE conflict_log SET remote_data = ?", forged)
    gated.sync(strategy="remote_wins")
    assert gated.served(first, "code") == EVIL, "the marketplace's own version settles it"


# Older states of the database


def test_a_restored_backup_brings_back_nothing_that_was_decided_against_since(
    gated: Gated, first: str, second: str
) -> None:
    third, fourth = gated.machine.sandbox.skill_ids()[2:4]
    before = offer_evil(gated, third)
    gated.sync()
    copy = gated.machine.directory / "copy.db"
    assert gated.machine.command("db", "backup", str(copy)).returncode == 0
    digest = gated.machine.sql("SELECT content_digest FROM skill_base WHERE skill_id = ?", first)[0][0]
    gated.decide(pins_and_quarantine.add_revocation, digest=digest.hex(), note=None)
    put_away(gated, second)
    assert gated.decide(approvals.reject, [Target(third)], note=None).success
    version = gated.served(fourth)
    gated.decide(pins_and_quarantine.add_pin, fourth, note=None)
    change(gated, fourth, BAD, code=EVIL)
    restored = gated.machine.command("db", "restore", str(copy), "--yes")
    assert restored.returncode == 0, restored.stderr
    for policy in (REVIEW, Policy()):
        gated.policy = policy
        gated.sync(force=True)
        assert [usable(gated, each) for each in (first, second)] == [None, None]
        stays(gated, first, None)
        stays(gated, second, None)
        stays(gated, third, before)
        assert gated.served(fourth) == version


def test_a_backup_that_replaces_a_lost_database_brings_its_decisions(gated: Gated, first: str, second: str) -> None:
    machine = gated.machine
    put_away(gated, first)
    gated.decide(pins_and_quarantine.add_revocation, skill_id=second, note="bad")
    gated.decide(pins_and_quarantine.add_pin, machine.sandbox.skill_ids()[2], note=None)
    tables = ("gate_quarantine", "gate_revocation", "gate_pin")
    before = [machine.sql(f"SELECT * FROM {table}") for table in tables]
    copy = machine.directory / "copy.db"
    assert machine.command("db", "backup", str(copy)).returncode == 0
    machine.database.remove()
    machine.database = new_database(machine.engine_name, machine.directory)
    restored = machine.command("db", "restore", str(copy), "--yes")
    assert restored.returncode == 0, restored.stderr
    assert [machine.sql(f"SELECT * FROM {table}") for table in tables] == before
    for each in (first, second):
        stays(gated, each, None)


@pytest.mark.sqlite("its older migrations")
def test_a_downgrade_below_the_gate_and_back_brings_back_nothing(gated: Gated, first: str, second: str) -> None:
    third, fourth = gated.machine.sandbox.skill_ids()[2:4]
    before = [offer_evil(gated, each) for each in (third, fourth)]
    gated.sync()
    assert gated.decide(approvals.reject, [Target(fourth)], note="bad").success
    gated.decide(pins_and_quarantine.add_revocation, skill_id=first, note=None)
    put_away(gated, second)
    said = [gated.machine.sql(f"SELECT * FROM {table}") for table in WORDS_OF_PEOPLE]
    for arguments in (("downgrade", "0021_deleted_edits", "--yes"), ("upgrade",)):
        done = gated.machine.command("db", *arguments)
        assert done.returncode == 0, done.stderr
    assert [gated.machine.sql(f"SELECT * FROM {table}") for table in WORDS_OF_PEOPLE] == said
    gated.sync()
    for each in (first, second):
        stays(gated, each, None)
    for each, text in zip((third, fourth), before, strict=True):
        stays(gated, each, text)
    assert (third in gated.waiting(), fourth in gated.waiting()) == (True, False)
    gated.policy = Policy()
    gated.sync(force=True)
    stays(gated, fourth, before[1])
    assert [usable(gated, each) for each in (first, second)] == [None, None]
