"""The contract of the catalogue: skills, pages, categories."""

from __future__ import annotations

from datetime import timedelta

from store_rooms import DAY, HOUR, LIST, NOW, SECOND, Rooms, skill

from atom_saas_sync.model import Action, Category, MessageMark, Outcome, PageRecord
from atom_saas_sync.model.effects import DropBase, MarkDeleted, RemoveServed

GONE = Action("a", Outcome.DELETED, (RemoveServed("a"), DropBase("a")))


# Skills


def test_known_says_all_that_is_stored_and_leaves_out_the_rest(store: Rooms) -> None:
    mine, theirs = skill("b", code="mine"), skill("b", code="theirs", version="2.0.0")
    store.show(skill("a"), skill("b"))
    store.edit(mine, skill("c"))
    store.show(skill("a"), theirs)
    known = store.catalogue.known(["a", "b", "c", "nowhere"])
    assert set(known) == {"a", "b", "c"}
    base = known["a"].base
    assert base is not None
    assert (base.wire_digest, base.page, base.deleted) == (skill("a").wire_digest, 1, False)
    assert known["a"].base_text == known["a"].local_text == skill("a").text
    assert known["b"].waiting is not None
    assert (known["b"].local_text, known["b"].base_text) == (mine.text, skill("b").text)
    assert known["b"].waiting.remote_text == theirs.text
    assert (known["c"].base, known["c"].waiting) == (None, None)


def test_a_removed_skill_is_absent_and_can_come_back(store: Rooms) -> None:
    store.show(skill("a"))
    store.carry_out(GONE)
    assert store.catalogue.known(["a"]) == {}
    assert store.shown() == {}
    store.show(skill("a"))
    assert store.shown() == {"a": "marketplace"}


def test_a_batch_sees_what_it_has_written(store: Rooms) -> None:
    store.show(skill("a"))
    with store.catalogue.batch() as batch:
        batch.known(["a"])
        batch.apply([GONE], NOW)
        assert batch.known(["a"]) == {}
        # Readers do not, until it ends.
        assert store.status().skills == 1
    assert store.status().skills == 0


def test_a_version_is_seen_otherwise_if_it_ever_had_other_code(store: Rooms) -> None:
    first, second, again = skill("a", code="1"), skill("a", code="2", version="2.0.0"), skill("a", code="evil")
    store.show(first)
    with store.catalogue.batch() as batch:
        assert batch.seen_otherwise([again]) == set()  # the base does not count
    store.show(second)
    with store.catalogue.batch() as batch:
        assert batch.seen_otherwise([again, skill("b", code="evil")]) == {"a"}
        assert batch.seen_otherwise([first, skill("a", code="3", version="3.0.0")]) == set()


def test_touched_and_unlisted_skills(store: Rooms) -> None:
    store.show(skill("a"), skill("b"))
    store.show(skill("c"), page=2)
    store.edit(skill("b", code="mine"), skill("d"))
    assert store.catalogue.modified_ids() == ["b"]
    assert store.catalogue.marketplace_skills() == 3
    assert store.catalogue.unlisted_ids({"a"}, recorded=False) == ["b", "c"]
    store.show(skill("a"))
    assert store.catalogue.unlisted_ids(set(), recorded=True) == ["b"]
    store.carry_out(Action("b", Outcome.UNCHANGED, (MarkDeleted("b"),)))
    assert store.catalogue.unlisted_ids({"a"}, recorded=False) == ["c"]
    assert store.catalogue.modified_ids() == []


def test_a_skill_of_here_counts_as_unlisted_while_its_conflict_is_open(store: Rooms) -> None:
    store.edit(skill("a", code="mine"))
    assert store.catalogue.unlisted_ids(set(), recorded=False) == []
    store.show(skill("a", code="theirs"))
    assert store.catalogue.waiting_ids() == ["a"]
    assert store.catalogue.unlisted_ids(set(), recorded=False) == ["a"]


def test_changed_by_events_since_covers_messages_until_now(store: Rooms) -> None:
    for hours, name in ((-2, "before"), (0, "a"), (5, "ahead")):
        with store.events.batch() as batch:
            batch.mark("skill", {name: MessageMark(None)}, NOW + timedelta(hours=hours))
    with store.catalogue.batch() as batch:
        assert batch.changed_by_events_since(NOW - HOUR, now=NOW) == {"a"}


def test_distrusted_skills_must_be_read_again(store: Rooms) -> None:
    store.show(skill("a"), skill("b"))
    store.catalogue.distrust(["a", "nowhere"])
    assert set(store.catalogue.digests_on_page(1).values()) == {"b"}
    assert store.catalogue.page_records(LIST)[1].etag is None
    assert store.shown() == {"a": "marketplace", "b": "marketplace"}


def test_an_unchanged_skill_is_not_tampered_with(store: Rooms) -> None:
    store.show(skill("a"), skill("b"))
    store.edit(skill("b", code="mine"))  # an edit is none of the marketplace's
    assert store.catalogue.tampered(everything=True) == []
    assert store.catalogue.note_tampered(["a", "nowhere"], NOW) == 0
    assert store.catalogue.tampered(everything=False) == []
    assert store.catalogue.unsigned() == []  # without a key


# Pages


def test_a_page_is_what_was_recorded_last(store: Rooms) -> None:
    store.show(skill("a"), skill("b"), etag='"1"')
    store.show(skill("b"), etag='"2"')
    assert store.catalogue.page_records(LIST) == {1: PageRecord('"2"', 1, 1, NOW)}
    assert store.catalogue.page_records("another") == {}
    assert store.catalogue.ids_on_page(1) == ["b"]
    assert store.catalogue.digests_on_page(1) == {skill("b").wire_digest: "b"}
    assert store.catalogue.ids_on_page(7) == []
    assert store.catalogue.digests_on_page(7) == {}


def test_a_page_with_a_skill_that_is_gone_has_no_etag(store: Rooms) -> None:
    with store.catalogue.batch() as batch:
        batch.record_page(1, {"a"}, list_key=LIST, etag='"1"', total=1, now=NOW)
    assert store.catalogue.page_records(LIST)[1].etag is None


def test_a_skill_whose_conflict_is_open_has_no_digest_on_its_page(store: Rooms) -> None:
    store.show(skill("a"), skill("b"))
    store.edit(skill("a", code="mine"))
    store.show(skill("a", code="theirs"), skill("b"))
    assert set(store.catalogue.digests_on_page(1).values()) == {"b"}
    assert sorted(store.catalogue.ids_on_page(1)) == ["a", "b"]


def test_pages_are_forgotten_and_confirmations_are_not(store: Rooms) -> None:
    store.show(skill("a"))
    store.show(skill("b"), page=2)
    with store.catalogue.batch() as batch:
        batch.confirm_page(2, NOW + HOUR)
    store.catalogue.forget_pages_from(2)
    assert (set(store.catalogue.page_records(LIST)), store.catalogue.ids_on_page(2)) == ({1}, [])
    store.catalogue.forget_other_lists("another")
    assert (store.catalogue.page_records(LIST), store.catalogue.ids_on_page(1)) == ({}, [])
    shown = store.reading().skill("b")
    assert shown is not None
    assert shown.confirmed_at == NOW + HOUR


def test_a_confirmed_page_keeps_its_skills_alive(store: Rooms) -> None:
    store.show(skill("a"))
    later = NOW + DAY + HOUR
    assert store.lifetime.choose(later, older_than=None, everything=False, local=False).skills == ("a",)
    with store.catalogue.batch() as batch:
        batch.confirm_page(1, later)
    store.catalogue.refresh_expiry(later)
    much_later = later + DAY - HOUR
    assert store.lifetime.choose(much_later, older_than=None, everything=False, local=False).skills == ()
    assert store.lifetime.choose(later + DAY + SECOND, older_than=None, everything=False, local=False).skills == ("a",)


# Categories


def test_categories_follow_the_list(store: Rooms) -> None:
    one, two, other = Category("one", "1"), Category("two", "2"), Category("two", "other")

    def apply(*categories: Category, whole: bool = True, etag: str = '"1"') -> int:
        expected = store.catalogue.changed_categories(categories, whole=whole)
        changed = store.catalogue.apply_categories(categories, whole=whole, resource="c", etag=etag, now=NOW)
        assert changed == expected
        return changed

    assert store.catalogue.validator("c") is None
    assert (apply(one, two), store.catalogue.count_categories()) == (2, 2)
    assert apply(one, two) == 0
    assert (apply(other, whole=False), store.catalogue.count_categories()) == (1, 2)
    assert (apply(other, etag='"2"'), store.catalogue.count_categories()) == (1, 1)
    assert store.catalogue.validator("c") == '"2"'
    assert (apply(), store.catalogue.count_categories()) == (0, 1)  # an empty list proves nothing


def test_unchanged_categories_live_for_another_day(store: Rooms) -> None:
    store.catalogue.apply_categories([Category("one", "1")], whole=True, resource="c", etag='"1"', now=NOW)
    store.catalogue.apply_categories(None, whole=True, resource="c", etag=None, now=NOW + DAY)
    assert store.catalogue.validator("c") == '"1"'
    assert store.status(NOW + DAY + HOUR).expired_categories == 0
    assert store.status(NOW + 2 * DAY + HOUR).expired_categories == 1


# Counters


def test_counters_add_up(store: Rooms) -> None:
    with store.catalogue.batch() as batch:
        batch.count_requests({("skills", "200"): 2, ("skills", "304"): 1})
        batch.count_changes([GONE, Action("b", Outcome.UNCHANGED)])
    with store.catalogue.batch() as batch:
        batch.count_requests({("skills", "200"): 3})
    counters = store.status().counters
    assert counters["atom_saas_api_requests_total", '{"code": "200", "endpoint": "skills"}'] == 5
    assert counters["atom_saas_sync_items_total", '{"action": "deleted", "type": "skill"}'] == 1
    assert ("atom_saas_sync_items_total", '{"action": "unchanged", "type": "skill"}') not in counters


def test_local_versions_and_those_of_the_marketplace_push_each_other_out_of_no_history(store: Rooms) -> None:
    for code in ("1", "2", "3", "4"):
        store.show(skill("a", code=code))
    with store.edits.batch() as batch:
        for code in ("x", "y", "z"):
            batch.keep_local([skill("a", code=code)], NOW, ended_by="superseded")
    kept = [(each.origin, each.text) for each in store.history.versions("a") if each.number is not None]
    assert kept == [
        ("local", skill("a", code="z").text),
        ("local", skill("a", code="y").text),
        ("marketplace", skill("a", code="3").text),
        ("marketplace", skill("a", code="2").text),
    ]
