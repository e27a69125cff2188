"""The contract of the conflict log."""

from __future__ import annotations

from datetime import datetime

import pytest
from msgspec.structs import replace
from store_rooms import HOUR, NOW, Rooms, skill

from atom_saas_sync.core.plan import plan_resolution
from atom_saas_sync.model import ConflictFilter


@pytest.fixture
def two(store: Rooms) -> Rooms:
    """Return a store with two open conflicts; that of `b` is older, that of `a` more severe."""
    store.show(skill("a"), skill("b"))
    store.edit(skill("a", code="mine"), skill("b", description="mine"))
    store.show(skill("a"), skill("b", description="theirs"))
    store.show(skill("a", code="theirs"), skill("b", description="theirs"), now=NOW + HOUR)
    return store


def resolve(store: Rooms, skill_id: str, now: datetime = NOW) -> None:
    with store.conflicts.resolving() as desk:
        known = desk.known([skill_id])[skill_id]
        action = plan_resolution(known, skill(skill_id, code="chosen"), "manual", now)
        desk.apply([action], now, actor="ada")
        desk.note("ada", "conflicts resolve", skill_id, now, strategy="manual")


def test_open_conflicts_are_listed_by_severity_and_age(two: Rooms) -> None:
    listed = two.conflicts.list_conflicts(ConflictFilter())
    assert [each.skill_id for each in listed] == ["a", "b"]
    assert [each.local_text for each in listed] == [None, None]
    assert [each.skill_id for each in two.conflicts.list_conflicts(ConflictFilter(), limit=1)] == ["a"]
    assert [each.skill_id for each in two.conflicts.list_conflicts(ConflictFilter(), limit=1, offset=1)] == ["b"]
    assert [each.skill_id for each in two.conflicts.list_conflicts(ConflictFilter(), offset=1)] == ["b"]
    assert two.conflicts.count(ConflictFilter()) == 2


@pytest.mark.parametrize("name", ["severity", "type", "skill_id"])
def test_conflicts_are_filtered(two: Rooms, name: str) -> None:
    (first, second) = two.conflicts.list_conflicts(ConflictFilter())
    for each, other in ((first, second), (second, first)):
        wanted = replace(ConflictFilter(), **{name: getattr(each, name)})
        assert getattr(each, name) != getattr(other, name)
        assert [found.id for found in two.conflicts.list_conflicts(wanted)] == [each.id]
        assert two.conflicts.count(wanted) == 1
        with two.conflicts.resolving() as desk:
            assert desk.open_ids(wanted) == [each.id]
    assert two.conflicts.count(replace(ConflictFilter(), **{name: "nothing"})) == 0


def test_one_conflict_has_its_three_versions_and_what_is_cached(two: Rooms) -> None:
    first = two.conflicts.list_conflicts(ConflictFilter(skill_id="a"))[0]
    two.edit(skill("a", code="since"), now=NOW)
    found = two.conflicts.conflict(first.id)
    assert found is not None
    assert found.base_text == skill("a").text
    assert (found.local_text, found.remote_text) == (skill("a", code="mine").text, skill("a", code="theirs").text)
    assert found.cached_text == skill("a", code="since").text
    assert two.conflicts.conflict(99) is None


def test_a_resolution_records_who_and_how(two: Rooms) -> None:
    resolve(two, "a")
    assert two.conflicts.count(ConflictFilter()) == 1
    (done,) = two.conflicts.list_conflicts(ConflictFilter(resolved=True))
    assert (done.skill_id, done.strategy, done.resolved_by) == ("a", "manual", "ada")
    with two.conflicts.resolving() as desk:
        (left,) = desk.open_ids(ConflictFilter(resolved=True))  # the open ones, whatever `resolved` says
        assert left != done.id
    assert two.status().conflicts_resolved == 1


def test_an_undone_resolution_says_who(two: Rooms) -> None:
    resolve(two, "a")
    (done,) = two.conflicts.list_conflicts(ConflictFilter(resolved=True))
    with two.conflicts.resolving() as desk:
        desk.mark_undone(done.id, "bob", NOW + HOUR)
        found = desk.conflict(done.id)
        assert found is not None
        assert (found.undone_by, found.undone_at) == ("bob", NOW + HOUR)
        desk.mark_undone(99, "bob", NOW)


def test_a_resolution_confirms_no_skill(two: Rooms) -> None:
    before = two.figures.statistics(NOW).newest_confirmed_at
    resolve(two, "b", now=NOW + 5 * HOUR)
    assert two.figures.statistics(NOW).newest_confirmed_at == before == NOW + HOUR


def test_replaced_edits_are_new_until_seen(store: Rooms) -> None:
    store.show(skill("a"), skill("b"), skill("c"))
    store.edit(*(skill(name, code="mine") for name in "abc"))
    store.show(skill("a", code="theirs"), skill("b"), skill("c"), strategy="remote_wins")
    store.show(skill("b", code="theirs"), skill("c"), strategy="remote_wins", now=NOW + HOUR)
    store.show(skill("c", code="theirs"), strategy="local_wins", now=NOW + HOUR)
    assert store.catalogue.newest_replaced_edits(9) == [2, 1]
    assert store.catalogue.newest_replaced_edits(1) == [2]
    store.conflicts.note_seen([1, 3, 99])
    store.conflicts.note_seen([])
    assert store.catalogue.newest_replaced_edits(9) == [2]
    with store.conflicts.resolving() as desk:
        desk.mark_undone(2, "ada", NOW)
    assert store.catalogue.newest_replaced_edits(9) == []
