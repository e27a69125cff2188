"""The contract of reading: lists, searches, the history, the age of entries."""

from __future__ import annotations

from datetime import timedelta

import pytest
from store_rooms import DAY, HOUR, NOW, SECOND, Rooms, skill

from atom_saas_sync.core.gate.types import Quarantined, Revocation
from atom_saas_sync.core.plan import plan_deleted
from atom_saas_sync.model import Action, CachedSkill, Outcome, SkillFilter, Sort
from atom_saas_sync.model.effects import MarkDeleted


@pytest.fixture
def four(store: Rooms) -> Rooms:
    """Return a store with `a` and `b` from the marketplace, `c` edited here, and `d` that exists only here."""
    store.show(
        skill("a", name="Zebra pdf", tags=["Docs"], category="Office", average_rating=4.0, updated_at="2026-01-01"),
        skill("b", name="Excel", description="makes a pdf", average_rating=4.5),
        skill("c", name="Cut"),
    )
    store.edit(skill("c", name="Cut", category="office"), skill("d", name="Draw"))
    return store


def ids(skills: list[CachedSkill]) -> str:
    return "".join(each.skill_id for each in skills)


# Reading


@pytest.mark.parametrize(("sort", "order"), [("name", "cdba"), ("rating", "bacd"), ("updated", "abcd")])
def test_lists_are_sorted_and_limited(four: Rooms, sort: Sort, order: str) -> None:
    assert ids(four.reading().list_skills(SkillFilter(), sort=sort)) == order
    assert ids(four.reading().list_skills(SkillFilter(), sort=sort, limit=2)) == order[:2]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (SkillFilter(), "abcd"),
        (SkillFilter(category="OFFICE"), "ac"),
        (SkillFilter(tag="docs"), "a"),
        (SkillFilter(modified=True), "cd"),
        (SkillFilter(category="office", modified=True), "c"),
        (SkillFilter(category="none"), ""),
    ],
)
def test_each_condition_must_hold(four: Rooms, wanted: SkillFilter, found: str) -> None:
    assert "".join(sorted(ids(four.reading().list_skills(wanted)))) == found
    assert four.reading().count(wanted) == len(found)


@pytest.mark.parametrize("banned", ["quarantined", "revoked"])
def test_what_only_the_view_hides_is_not_counted(four: Rooms, banned: str) -> None:
    """Another program has put it back into the cache, and no command has removed it since."""
    (text,) = [each.text for each in four.reading().list_skills(SkillFilter()) if each.skill_id == "a"]
    with four.gate().deciding() as batch:
        if banned == "revoked":
            batch.gate.add_revocation(Revocation(skill_id="a", added_by="eva"), NOW)
        else:
            batch.gate.quarantine(
                [Quarantined("a", text, None, b"a" * 32, "quarantined", NOW, "eva", None, "marketplace")]
            )
    four.others.write_skill("a", text)
    reading = four.reading()
    assert (ids(reading.list_skills(SkillFilter())), reading.count(SkillFilter())) == ("cdb", 3)
    assert reading.count(SkillFilter(category="office")) == 1
    for words in ("pdf", "zebra", "%%"):
        for sort in (None, "name"):
            found, total = reading.search(words, SkillFilter(), sort=sort)
            assert (ids(found), total) == ("b" if words == "pdf" else "", len(found)), (words, sort)


def test_a_skill_has_its_source_and_age(four: Rooms) -> None:
    assert four.shown() == {"a": "marketplace", "b": "marketplace", "c": "edited", "d": "local"}
    found = four.reading(NOW + DAY).skill("a")
    assert found is not None
    assert (found.confirmed_at, found.stale) == (NOW, False)
    stale = {name: four.reading(NOW + DAY + SECOND).skill(name) for name in "acd"}
    assert {name: each is not None and each.stale for name, each in stale.items()} == {
        "a": True,
        "c": False,
        "d": False,
    }
    assert four.reading().skill("nowhere") is None


@pytest.mark.parametrize(
    ("text", "found"),
    [("pdf", "ab"), ("pd", "ab"), ("makes pdf", "b"), ("zebra OR excel", ""), ('"', ""), ("", ""), ("nothing", "")],
)
def test_a_search_needs_every_word(four: Rooms, text: str, found: str) -> None:
    skills, total = four.reading().search(text, SkillFilter())
    assert (ids(skills), total) == (found, len(found))


def test_a_search_can_be_sorted_limited_and_narrowed(four: Rooms) -> None:
    reading = four.reading()
    assert [ids(reading.search("pdf", SkillFilter(), sort=sort)[0]) for sort in ("name", "rating")] == ["ba", "ba"]
    skills, total = reading.search("pdf", SkillFilter(), limit=1)
    assert (ids(skills), total) == ("a", 2)
    assert ids(reading.search("pdf", SkillFilter(category="office"))[0]) == "a"


def test_a_search_finds_what_was_written_last(four: Rooms) -> None:
    four.edit(skill("b", name="Word"))
    assert ids(four.reading().search("excel", SkillFilter())[0]) == ""
    assert ids(four.reading().search("word", SkillFilter())[0]) == "b"


def test_a_skill_edited_here_and_deleted_there_is_not_shown(four: Rooms) -> None:
    four.carry_out(Action("c", Outcome.UNCHANGED, (MarkDeleted("c"),)))
    assert four.shown() == {"a": "marketplace", "b": "marketplace", "d": "local"}
    assert four.reading().count(SkillFilter()) == 3
    assert four.reading().search("cut", SkillFilter()) == ([], 0)


def test_reads_are_counted(four: Rooms) -> None:
    found = four.reading().skill("a")
    assert found is not None
    four.reading().count_read([found])
    four.reading().count_read([])
    late = four.reading(NOW + 2 * DAY)
    stale = late.skill("a")
    assert stale is not None
    late.count_read([stale])
    assert four.figures.statistics(NOW).reads == {"hit": 1, "miss": 1, "stale": 1}
    assert four.figures.statistics(NOW).hits_of_entries == 2


# The history


def test_the_history_has_the_newest_first_and_forgets_the_oldest(store: Rooms) -> None:
    for number in range(5):
        store.show(skill("a", version=f"{number}"))
    versions = store.history.versions("a")
    assert [each.version for each in versions] == ["4", "3", "2"]  # the base and two
    assert [each.number is None for each in versions] == [True, False, False]
    assert [each.ended_by for each in versions] == [None, "superseded", "superseded"]
    assert versions[1].text == skill("a", version="3").text
    assert store.history.versions("nowhere") == []


def test_the_last_version_of_a_deleted_skill_stays(store: Rooms) -> None:
    store.show(skill("a"))
    gone = plan_deleted(store.catalogue.known(["a"])["a"], "manual")
    assert gone is not None
    store.carry_out(gone)
    (last,) = store.history.versions("a")
    assert (last.text, last.ended_by) == (skill("a").text, "deleted")


def test_an_edit_is_not_a_version_of_the_marketplace(store: Rooms) -> None:
    store.show(skill("a"))
    store.edit(skill("a", code="mine"), skill("b"))
    assert [each.text for each in store.history.versions("a")] == [skill("a").text]
    assert store.history.versions("b") == []


# The age of entries


def purged(store: Rooms, *, older_than: timedelta | None = None, everything: bool = False, local: str = "") -> str:
    now = NOW + 2 * DAY
    chosen = store.lifetime.choose(now, older_than=older_than, everything=everything, local=bool(local))
    done = store.lifetime.purge(now, older_than=older_than, everything=everything, local=local, actor="ada")
    assert done == chosen
    return "".join(done.skills)


def test_a_purge_removes_what_expired_and_spares_what_is_ours(four: Rooms) -> None:
    assert four.lifetime.choose(NOW + DAY, older_than=None, everything=False, local=True).skills == ()
    assert purged(four) == "ab"
    assert four.shown() == {"c": "edited", "d": "local"}
    assert four.catalogue.page_records("list?page=")[1].etag is None  # so the next run fetches it again
    assert purged(four) == ""


def test_a_purge_of_everything_removes_local_edits_only_on_request(four: Rooms) -> None:
    plan = four.lifetime.choose(NOW, older_than=None, everything=True, local=False)
    assert (plan.skills, plan.protected, plan.local) == (("a", "b"), 2, 0)
    assert purged(four, everything=True, local="cd") == "abcd"
    assert four.shown() == {}
    assert four.catalogue.marketplace_skills() == 0


def test_a_purge_by_age(four: Rooms) -> None:
    assert purged(four, older_than=3 * DAY) == ""
    assert purged(four, older_than=DAY) == "ab"


def test_a_purge_closes_conflicts_and_old_ones_are_pruned(four: Rooms) -> None:
    four.show(skill("c", name="Cut", code="theirs"))
    assert four.catalogue.waiting_ids() == ["c"]
    purged(four, everything=True, local="cd")
    assert four.catalogue.waiting_ids() == []
    four.lifetime.prune_logs(NOW + 90 * DAY)
    assert four.status().conflicts_resolved == 1
    four.lifetime.prune_logs(NOW + 93 * DAY)
    assert four.status().conflicts_resolved == 0


def test_figures_of_the_cache(four: Rooms) -> None:
    figures = four.figures.statistics(NOW + DAY + HOUR)
    assert (figures.skills, figures.edited, figures.only_here) == (4, 1, 1)
    assert (figures.stale, figures.expired) == (2, 2)
    assert figures.oldest_confirmed_at == figures.newest_confirmed_at == NOW


def test_an_empty_cache_has_no_times(store: Rooms) -> None:
    figures = store.figures.statistics(NOW)
    assert (figures.skills, figures.oldest_confirmed_at, figures.newest_confirmed_at) == (0, None, None)
    assert store.lifetime.marketplace_reached_at() is None
