"""The contract of the gate: offers, evidence, decisions, revocations, quarantine."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from store_rooms import HOUR, LIST, NOW, SECOND, Rooms, skill

from atom_saas_sync.core.canonical import version_key
from atom_saas_sync.core.gate.admission import written_here
from atom_saas_sync.core.gate.stored import GateState, Marks
from atom_saas_sync.core.gate.types import (
    Decision,
    Evidence,
    Offer,
    Pin,
    Quarantined,
    Revocation,
    Revocations,
    ScanResult,
)
from atom_saas_sync.model import Action, Outcome, SkillVersion
from atom_saas_sync.model.effects import DropBase, Life, PutOffer, Release, RemoveServed, ReplaceServed
from atom_saas_sync.usecases.ports import GateBatch

GONE = Action("a", Outcome.DELETED, (RemoveServed("a"), DropBase("a")))
ONE, TWO, THREE = (skill("a", code=str(number), version=f"{number}.0.0") for number in (1, 2, 3))


def offer(version: SkillVersion, **values: Any) -> Offer:
    return Offer(
        **{
            "skill_id": version.skill_id,
            "text": version.text,
            "wire_digest": version.wire_digest,
            "content_digest": version.content_digest,
            "exec_digest": version.exec_digest,
            "version": version_key(version.fields),
            "page": 1,
            "kind": "hold",
            "reason": "review",
            "due_at": None,
            "first_seen_at": NOW,
            "offered_at": NOW,
            **values,
        }
    )


def put(store: Rooms, *offers: Offer, now: datetime = NOW) -> None:
    with store.catalogue.batch() as batch:
        batch.gate.put_offers(offers, now)


def evidence_on(store: Rooms, version: SkillVersion) -> Evidence:
    with store.catalogue.batch(write=False) as batch:
        return batch.gate.evidence([version])[version.skill_id]


def decide(store: Rooms, version: SkillVersion, kind: Any, at: datetime = NOW) -> None:
    with store.catalogue.batch() as batch:
        batch.gate.decide([Decision(version.skill_id, version.content_digest, kind, at, "ada", "because")])


# Offers


def test_waiting_versions_are_listed_oldest_first_with_the_served_ones(store: Rooms) -> None:
    store.show(ONE)
    newer, older = offer(TWO, first_seen_at=NOW + HOUR, due_at=NOW + HOUR), offer(skill("b"), reason="lookalike")
    put(store, newer, older, offer(skill("c"), kind="refuse", reason="rejected"))
    with store.catalogue.batch(write=False) as batch:
        found = batch.gate.waiting()
        assert [each.offer for each in found] == [older, newer]
        assert [each.served_digest for each in found] == [None, ONE.content_digest]
        assert [each.served_text for each in found] == [None, ONE.text]
        assert [each.offer for each in batch.gate.waiting(reason="review")] == [newer]
        assert [each.offer for each in batch.gate.waiting(skill_ids=["b", "c", "nowhere"])] == [older]
        assert batch.gate.count_waiting() == {"lookalike": 1, "review": 1}
        assert batch.gate.offers(["c", "nowhere"])["c"].reason == "rejected"
    assert store.gate().state().anything_stored


def test_due_offers_are_judged_again(store: Rooms) -> None:
    put(store, offer(skill("a"), reason="age", due_at=NOW), offer(skill("b"), reason="age", due_at=NOW + SECOND))
    put(store, offer(skill("c"), kind="refuse", reason="rejected"))
    with store.catalogue.batch(write=False) as batch:
        assert batch.gate.ids_to_judge(NOW, everything=False) == ["a"]
        assert batch.gate.ids_to_judge(NOW, everything=True) == ["a", "b", "c"]


def test_a_replaced_offer_stays_in_the_history_as_never_served(store: Rooms) -> None:
    store.show(ONE)
    put(store, offer(TWO))
    put(store, offer(THREE, offered_at=NOW + HOUR), now=NOW + HOUR)
    put(store, offer(THREE, offered_at=NOW + 2 * HOUR, page=None), now=NOW + 2 * HOUR)
    with store.catalogue.batch() as batch:
        (waits,) = batch.gate.offers(["a"]).values()
        assert (waits.content_digest, waits.offered_at, waits.page) == (THREE.content_digest, NOW + HOUR, 1)
        batch.gate.drop_offers(["a", "nowhere"], NOW, never_served=True)
    ended = [(each.text, each.ended_by, each.origin) for each in store.history.versions("a")]
    never = [(each.text, "not_admitted", "marketplace") for each in (THREE, TWO)]
    assert ended == [(ONE.text, None, "marketplace"), *never]


def test_an_offer_that_is_admitted_leaves_no_trace_in_the_history(store: Rooms) -> None:
    put(store, offer(TWO))
    with store.catalogue.batch() as batch:
        batch.gate.drop_offers(["a"], NOW, never_served=False)
    assert not store.gate().state().anything_stored
    assert store.history.versions("a") == []


def test_offers_held_for_a_reason_that_is_gone_are_judged_again(store: Rooms) -> None:
    scanned = skill("c")
    put(
        store,
        offer(skill("a"), reason="pinned"),
        offer(skill("b"), reason="quarantined"),
        offer(scanned, reason="scan"),
    )
    kept = Quarantined("b", "{}", None, ONE.content_digest, "quarantined", NOW, "ada", None, "local")
    with store.catalogue.batch() as batch:
        batch.gate.set_pin(Pin("a", ONE.content_digest, "1.0.0", NOW, "ada", None))
        batch.gate.quarantine([kept])
        batch.gate.write_scans([ScanResult(scanned.content_digest, passed=False, note=None, at=NOW)])
        assert batch.gate.ids_to_judge(NOW, everything=False) == []
        batch.gate.remove_pin("a")
        batch.gate.release(["b"])
        batch.gate.write_scans([ScanResult(scanned.content_digest, passed=True, note=None, at=NOW)])
        assert batch.gate.ids_to_judge(NOW, everything=False) == ["a", "b", "c"]


# Pages


def test_a_page_holds_what_it_offers(store: Rooms) -> None:
    put(store, offer(TWO), offer(skill("b"), kind="refuse", reason="rejected"))
    store.show(ONE, etag='"1"')
    assert sorted(store.catalogue.ids_on_page(1)) == ["a"]
    put(store, offer(skill("b"), page=1))
    assert store.catalogue.digests_on_page(1) == {TWO.wire_digest: "a", skill("b").wire_digest: "b"}
    assert sorted(store.catalogue.ids_on_page(1)) == ["a", "b"]
    assert store.catalogue.marketplace_skills() == 2
    with store.catalogue.batch() as batch:
        batch.record_page(1, {"a", "b"}, list_key=LIST, etag='"2"', total=2, now=NOW)
    assert store.catalogue.page_records(LIST)[1].etag == '"2"'
    with store.catalogue.batch() as batch:
        batch.record_page(2, {"b", "gone"}, list_key=LIST, etag='"3"', total=2, now=NOW)
    assert store.catalogue.page_records(LIST)[2].etag is None
    assert (store.catalogue.ids_on_page(1), store.catalogue.ids_on_page(2)) == (["a"], ["b"])


def test_an_offer_that_is_no_longer_listed_counts_as_missing(store: Rooms) -> None:
    store.show(ONE)
    put(store, offer(TWO), offer(skill("b"), page=2))
    assert store.catalogue.unlisted_ids({"a"}, recorded=False) == ["b"]
    assert store.catalogue.unlisted_ids(set(), recorded=True) == []
    with store.catalogue.batch() as batch:
        batch.record_page(2, {"b"}, list_key=LIST, etag=None, total=1, now=NOW)
    store.catalogue.forget_pages_from(2)
    assert store.catalogue.unlisted_ids(set(), recorded=True) == ["b"]


def test_an_offer_that_a_message_brought_gets_its_page(store: Rooms) -> None:
    store.show(ONE)
    put(store, offer(TWO, page=None))
    assert store.catalogue.digests_on_page(1) == {}
    with store.catalogue.batch() as batch:
        batch.record_page(1, {"a"}, list_key=LIST, etag='"2"', total=1, now=NOW)
    assert store.catalogue.digests_on_page(1) == {TWO.wire_digest: "a"}


# Evidence


def test_a_new_skill_has_no_evidence(store: Rooms) -> None:
    assert evidence_on(store, ONE) == Evidence("a")
    assert store.gate().state() == GateState((), Marks(), anything_stored=False, synced=False)


def test_first_sight_outlives_the_offer_and_the_skill(store: Rooms) -> None:
    put(store, offer(TWO))
    with store.catalogue.batch() as batch:
        batch.gate.drop_offers(["a"], NOW, never_served=True)
    store.show(TWO, now=NOW + HOUR)
    store.show(THREE, now=NOW + 2 * HOUR)
    store.carry_out(GONE)
    assert evidence_on(store, TWO).first_seen_at == NOW
    assert evidence_on(store, THREE).first_seen_at == NOW + 2 * HOUR
    assert evidence_on(store, ONE).first_seen_at is None
    assert evidence_on(store, skill("a", code="evil", version="2.0.0")).seen_otherwise
    assert not evidence_on(store, TWO).seen_otherwise


def test_the_newest_decision_on_the_digest_counts(store: Rooms) -> None:
    decide(store, TWO, "approve")
    decide(store, THREE, "approve")
    decide(store, TWO, "reject")
    said = evidence_on(store, TWO).decision
    assert said == Decision("a", TWO.content_digest, "reject", NOW, "ada", "because")
    assert evidence_on(store, ONE).decision is None
    assert evidence_on(store, skill("b")).decision is None


def test_an_approval_knows_whether_another_version_was_admitted_since(store: Rooms) -> None:
    store.show(ONE, now=NOW)
    decide(store, TWO, "approve", NOW + SECOND)
    assert not evidence_on(store, TWO).admitted_since
    store.show(TWO, now=NOW + SECOND)
    assert not evidence_on(store, TWO).admitted_since
    store.show(THREE, now=NOW + 2 * SECOND)
    assert evidence_on(store, TWO).admitted_since
    store.carry_out(GONE)
    assert evidence_on(store, TWO).admitted_since
    decide(store, TWO, "approve", NOW + 3 * SECOND)
    assert not evidence_on(store, TWO).admitted_since


def test_volatile_fields_are_not_an_admission(store: Rooms) -> None:
    store.show(ONE)
    decide(store, TWO, "approve", NOW + SECOND)
    store.show(skill("a", code="1", version="1.0.0", rating_count=7), now=NOW + HOUR)
    assert not evidence_on(store, TWO).admitted_since


def test_pins_scans_and_quarantine_are_evidence(store: Rooms) -> None:
    pin = Pin("a", ONE.content_digest, "1.0.0", NOW, "ada", None)
    scan = ScanResult(TWO.content_digest, passed=False, note="bad", at=NOW)
    kept = Quarantined("a", ONE.text, None, ONE.content_digest, "quarantined", NOW, "ada", "leak", "marketplace")
    with store.catalogue.batch() as batch:
        batch.gate.set_pin(pin)
        batch.gate.write_scans([scan])
        batch.gate.quarantine([kept])
    found = evidence_on(store, TWO)
    assert (found.pin, found.scan, found.quarantined) == (pin, scan, kept)
    assert evidence_on(store, ONE).scan is None
    with store.catalogue.batch() as batch:
        assert (batch.gate.pins(), batch.gate.quarantined()) == ({"a": pin}, {"a": kept})
        assert (batch.gate.remove_pin("a"), batch.gate.remove_pin("a")) == (True, False)
        batch.gate.forget_scans([TWO.content_digest])
        batch.gate.release(["a", "nowhere"])
    assert evidence_on(store, TWO) == Evidence("a")


@pytest.mark.parametrize("other", ["pdf-reader", "PDF-Reader", "\u0440df-reader", "pdf\u2010reader"], ids=ascii)
def test_an_id_that_looks_like_one_known_before(store: Rooms, other: str) -> None:
    known = "pdf-reader" if other != "pdf-reader" else "Pdf-Reader"
    put(store, offer(skill(known)))
    assert evidence_on(store, skill(other)).lookalike_of == known
    put(store, offer(skill(other)))  # in the same instant, but later
    assert evidence_on(store, skill(other)).lookalike_of == known
    assert evidence_on(store, skill(known)).lookalike_of is None


def test_an_id_looks_like_one_that_is_gone_but_not_once_it_is_served(store: Rooms) -> None:
    store.show(ONE)
    store.carry_out(GONE)
    assert evidence_on(store, skill("A")).lookalike_of == "a"
    assert evidence_on(store, skill("a")).lookalike_of is None
    store.show(skill("A"))
    assert evidence_on(store, skill("A", code="new")).lookalike_of is None


def test_the_second_of_two_lookalikes_in_one_list_is_held(store: Rooms) -> None:
    with store.catalogue.batch() as batch:
        found = batch.gate.evidence([skill("modem"), skill("modern"), skill("model")])
    assert {name: each.lookalike_of for name, each in found.items()} == {
        "modem": None,
        "modern": "modem",
        "model": None,
    }


# Revocations


def test_revocations_of_the_command_and_of_the_file(store: Rooms) -> None:
    listed = [Revocation(publisher="evil", note="x", source="file")]
    with store.catalogue.batch() as batch:
        first = batch.gate.add_revocation(Revocation(skill_id="a", version="1.0.0", added_by="ada"), NOW)
        assert batch.gate.replace_file_revocations(listed, NOW)
        assert not batch.gate.replace_file_revocations(listed, NOW + HOUR)
        mine, theirs = batch.gate.revocations().entries
        assert mine == Revocation("a", "1.0.0", source="command", added_at=NOW, added_by="ada", id=first)
        assert (theirs.publisher, theirs.source, theirs.added_at) == ("evil", "file", NOW)
    assert store.gate().state().revocations == (mine, theirs)
    with store.catalogue.batch() as batch:
        assert theirs.id is not None
        assert (batch.gate.remove_revocation(theirs.id), batch.gate.remove_revocation(first)) == (False, True)
        assert batch.gate.replace_file_revocations([], NOW)
        assert batch.gate.revocations().entries == ()
        assert batch.gate.add_revocation(Revocation(skill_id="a", added_by="ada"), NOW) > theirs.id


@pytest.mark.parametrize(
    ("revocation", "hits"),
    [
        (Revocation(skill_id="a"), ["a"]),
        (Revocation(skill_id="a", version="1.0.0"), ["a"]),
        (Revocation(skill_id="a", version="2.0.0"), []),
        (Revocation(digest=ONE.content_digest), ["a"]),
        (Revocation(digest=TWO.content_digest), []),
        (Revocation(publisher="acme"), ["b", "c"]),
        (Revocation(digest=skill("d", code="mine").content_digest), ["d"]),
    ],
    ids=["id", "version", "other version", "digest", "other digest", "publisher", "what was written here"],
)
def test_which_skills_a_revocation_applies_to(store: Rooms, revocation: Revocation, hits: list[str]) -> None:
    store.show(ONE, skill("b", metadata={"author": "ACME"}), skill("c", metadata={"author": "Acme"}), skill("d"))
    store.edit(skill("c", metadata={"author": "me"}), skill("d", code="mine"))
    with store.catalogue.batch(write=False) as batch:
        assert batch.gate.revoked_skills(Revocations((revocation,))) == hits


# Who admitted what


def test_versions_admitted_by_policy_are_adopted_once(store: Rooms) -> None:
    store.show(skill("a"), skill("b"))
    with store.catalogue.batch() as batch:
        batch.gate.note_admissions(["b"], "ada")
        assert batch.gate.adopt(NOW) == 1
        assert batch.gate.adopt(NOW) == 0
        assert batch.gate.served_marketplace_skills() == 2


def test_marks_are_remembered_one_by_one(store: Rooms) -> None:
    with store.catalogue.batch() as batch:
        batch.gate.write_marks(Marks("review", b"\1\2", NOW), NOW)
        batch.gate.write_marks(Marks(revocations_broken=True), NOW)
    assert store.gate().state().marks == Marks("review", b"\1\2", NOW, revocations_broken=True)


def test_verdicts_are_counted_when_they_are_applied(store: Rooms) -> None:
    store.show(ONE)
    store.show(skill("a", code="1", version="1.0.0", rating_count=7))  # nothing to admit
    store.show(TWO)
    store.edit(skill("b", code="mine"))
    held = PutOffer("c", skill("c"), "1", "hold", "review", None, None, False, None, "none")
    store.carry_out(Action("c", Outcome.HELD, (held,)))
    decide(store, skill("c"), "reject")
    with store.catalogue.batch() as batch:
        batch.gate.adopt(NOW)
    found = {
        tuple(sorted(json.loads(labels).items())): value
        for (name, labels), value in store.status().counters.items()
        if name == "atom_saas_admissions_total"
    }
    assert found == {
        (("by", "policy"), ("verdict", "admit")): 2,
        (("by", "policy"), ("verdict", "hold")): 1,
        (("by", "adopted"), ("verdict", "admit")): 1,
        (("by", "person"), ("verdict", "refuse")): 1,
    }


# Changes


def test_changes_since_a_time_are_counted_by_scope(store: Rooms) -> None:
    def changed(moment: datetime, *, executable: bool) -> int:
        with store.gate().deciding(write=False) as batch:
            return batch.changed_since(moment, executable=executable)

    words, waits = skill("b", code="b", description="Other words"), skill("c", code="c")
    store.show(ONE, skill("b", code="b"), waits)
    store.show(TWO, words, waits, now=NOW + HOUR)
    put(store, offer(skill("c", code="new"), first_seen_at=NOW + HOUR), now=NOW + HOUR)
    assert [changed(NOW + HOUR, executable=each) for each in (False, True)] == [3, 2]
    assert changed(NOW + 2 * HOUR, executable=False) == 0
    put(store, offer(THREE, first_seen_at=NOW + HOUR), now=NOW + HOUR)
    store.show(THREE, words, waits, now=NOW + 3 * HOUR)
    assert changed(NOW + 3 * HOUR, executable=False) == 0, "it was seen two hours before it was admitted"


def test_a_transaction_knows_what_was_decided_before_it(store: Rooms) -> None:
    def standing() -> tuple[bool, int]:
        with store.catalogue.batch() as batch:
            return batch.gate_standing()

    assert standing() == (False, 0)
    with store.catalogue.batch() as batch:
        number = batch.gate.add_revocation(Revocation(skill_id="z", added_by="eva"), NOW)
    assert standing() == (False, number)
    decisions: list[Callable[[GateBatch], object]] = [
        lambda gate: gate.set_pin(Pin("a", ONE.content_digest, "1.0.0", NOW, "eva", None)),
        lambda gate: gate.decide([Decision("a", ONE.content_digest, "approve", NOW, "eva", None)]),
        lambda gate: gate.quarantine(
            [Quarantined("a", ONE.text, None, ONE.content_digest, "quarantined", NOW, "eva", None, "marketplace")]
        ),
    ]
    for decide in decisions:
        with store.catalogue.batch() as batch:
            decide(batch.gate)
        assert standing() == (True, number)
        with store.catalogue.batch() as batch:
            batch.gate.remove_pin("a")
            batch.gate.release(["a"])


def test_a_released_skill_has_the_rest_of_its_life(store: Rooms) -> None:
    store.show(ONE)
    store.carry_out(
        Action(
            "a",
            Outcome.ADDED,
            (Release("a"), ReplaceServed("a", written_here(ONE.text), None, Life.CONFIRMED, None, ONE.text, None)),
        ),
        now=NOW + HOUR,
    )
    (row,) = store.everything()["skill_cache"]
    ends = f"{NOW + 24 * HOUR:%Y-%m-%d %H:%M}"
    assert ends in str(row).replace("T", " ") or any(ends in str(each) for each in row), row
