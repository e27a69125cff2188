"""The contract of ratings and the request budget."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from store_rooms import DAY, HERE, HOUR, NOW, SECOND, Rooms, skill

from atom_saas_sync.model import (
    Delivery,
    ListedRating,
    Rating,
    RatingFailure,
    RatingReceipt,
    RatingsCheck,
    RemoteRating,
)

MINUTE = timedelta(minutes=1)


@pytest.fixture
def rated(store: Rooms) -> Rooms:
    """Return a store with three pending ratings, the oldest last."""
    store.show(skill("a", average_rating=1.0, rating_count=1), skill("b"))
    for hours, (skill_id, user) in enumerate([("b", "ada"), ("a", "bob"), ("a", "ada")]):
        store.own_ratings.add(skill_id, user, 3, "fine", now=NOW - hours * HOUR)
    return store


def settle(store: Rooms, *deliveries: Delivery, checks: tuple[RatingsCheck, ...] = ()) -> None:
    store.ratings.record_deliveries(deliveries, checks=checks, now=NOW, requests={("ratings", "201"): len(deliveries)})


def sent(rating: Rating) -> Delivery:
    return Delivery(rating, "sent", digest=b"digest", receipt=RatingReceipt(f"r{rating.id}", 4.5, 7))


def failed(rating: Rating, *, again_at: datetime | None) -> Delivery:
    return Delivery(rating, "failed", failure=RatingFailure("api_error", "no", 1, again_at))


def one(store: Rooms, rating_id: str) -> ListedRating:
    found = store.own_ratings.find(rating_id)
    assert found is not None
    return found


# The outbox


def test_the_oldest_change_is_sent_first(rated: Rooms) -> None:
    assert rated.ratings.due_ids(NOW) == ["3", "2", "1"]
    assert rated.ratings.count_pending() == 3
    loaded = rated.ratings.load(["1", "9", "3"])
    assert [(each.id, each.skill_id, each.user_id) for each in loaded] == [("1", "b", "ada"), ("3", "a", "ada")]
    assert all(each.version for each in loaded)


def test_a_delivered_rating_is_not_sent_again(rated: Rooms) -> None:
    (rating,) = rated.ratings.load(["2"])
    settle(rated, sent(rating))
    assert rated.ratings.load(["2"]) == []
    assert rated.ratings.due_ids(NOW) == ["3", "1"]
    (settled,) = rated.ratings.settled_of("a")
    assert (settled.remote_rating_id, settled.base_digest) == ("r2", b"digest")
    shown = rated.reading().skill("a")
    assert shown is not None
    assert (json.loads(shown.text)["average_rating"], json.loads(shown.text)["rating_count"]) == (4.5, 7)
    assert rated.shown()["a"] == "marketplace"


def test_a_rating_changed_while_it_was_sent_stays_pending(rated: Rooms) -> None:
    (rating,) = rated.ratings.load(["2"])
    rated.own_ratings.add("a", "bob", 5, None, now=NOW)
    settle(rated, sent(rating))
    (again,) = rated.ratings.load(["2"])
    assert (again.stars, again.remote_rating_id, again.updated_at) == (5, "r2", NOW)
    assert again.version != rating.version


def test_a_newer_rating_of_the_marketplace_can_be_undone(rated: Rooms) -> None:
    (rating,) = rated.ratings.load(["2"])
    theirs = RemoteRating(1, "bad", "r9", "bob", NOW)
    settle(rated, Delivery(rating, "taken", digest=b"d", remote=theirs, taken_at=NOW + HOUR))
    assert (one(rated, "2").stars, one(rated, "2").comment, one(rated, "2").state) == (1, "bad", "sent")
    restored = rated.own_ratings.restore("2", actor="ada", now=NOW)
    assert restored is not None
    assert (restored.stars, restored.comment, restored.state) == (3, "fine", "pending")
    assert rated.own_ratings.restore("2", actor="ada", now=NOW) is None
    assert rated.own_ratings.restore("99", actor="ada", now=NOW) is None


def test_failed_ratings_wait_until_due_or_for_a_manual_retry(rated: Rooms) -> None:
    first, second = rated.ratings.load(["1", "2"])
    settle(rated, failed(first, again_at=NOW + 5 * MINUTE), failed(second, again_at=None))
    assert rated.ratings.count_pending() == 1
    assert rated.ratings.due_ids(NOW) == ["3"]
    assert rated.ratings.due_ids(NOW + 5 * MINUTE) == ["3", "1"]
    assert rated.ratings.due_ids(NOW, retry_failed=True) == ["3", "2", "1"]
    assert rated.own_ratings.retry(["2", "3", "99"], actor="ada", now=NOW) == ["2"]
    assert rated.ratings.load(["2"])[0].version == second.version  # so that the marketplace recognises it
    assert one(rated, "1").error_message == "no"


def test_reopening_makes_all_pending_under_their_names(rated: Rooms) -> None:
    first, second = rated.ratings.load(["1", "2"])
    settle(rated, sent(first), failed(second, again_at=None))
    rated.ratings.note_not_updatable(HERE, NOW)
    assert (rated.ratings.can_update(HERE), rated.ratings.can_update("https://other")) == (False, True)
    rated.ratings.reopen_all()
    assert [each.version for each in rated.ratings.load(["1", "2"])] == [first.version, second.version]
    assert (rated.ratings.count_pending(), rated.ratings.can_update(HERE)) == (3, True)


def test_the_least_recently_checked_skills_come_first(rated: Rooms) -> None:
    settle(rated, *map(sent, rated.ratings.load(["1", "2", "3"])))
    assert rated.ratings.least_recently_checked("r/", 9) == [("a", None), ("b", None)]
    settle(rated, checks=(RatingsCheck("r/a", '"1"'),))
    assert rated.ratings.least_recently_checked("r/", 9) == [("b", None), ("a", '"1"')]
    assert rated.ratings.least_recently_checked("r/", 1) == [("b", None)]


# Actions of users


def test_a_rating_is_added_or_changed(rated: Rooms) -> None:
    def add(stars: int, comment: str | None, hours: int) -> tuple[str, int, str | None, datetime | None]:
        done = rated.own_ratings.add("b", "ada", stars, comment, now=NOW + hours * HOUR)
        return done.id, done.stars, done.comment, done.updated_at

    assert add(3, "fine", 1) == ("1", 3, "fine", NOW)  # the same again
    assert add(4, None, 1) == ("1", 4, "fine", NOW + HOUR)
    assert add(4, "", 2) == ("1", 4, None, NOW + 2 * HOUR)
    assert rated.own_ratings.add("b", "bob", 1, None, now=NOW).id not in {"1", "2", "3"}


def test_ratings_are_listed(rated: Rooms) -> None:
    first, second = rated.ratings.load(["1", "2"])
    settle(rated, sent(first), failed(second, again_at=None))

    def listed(**wanted: Any) -> list[str]:
        ratings, total = rated.own_ratings.listed(**wanted)
        assert total == len(ratings)
        return [each.id for each in ratings]

    assert listed() == ["1", "2", "3"]
    assert [listed(state=state) for state in ("sent", "failed", "pending")] == [["1"], ["2"], ["3"]]
    assert (listed(skill_id="a"), listed(user_id="ada"), listed(skill_id="a", user_id="ada")) == (
        ["2", "3"],
        ["1", "3"],
        ["3"],
    )
    ratings, total = rated.own_ratings.listed(limit=1)
    assert ([each.id for each in ratings], total) == (["1"], 3)
    assert rated.own_ratings.find("99") is None
    assert (rated.own_ratings.is_cached("a"), rated.own_ratings.is_cached("nowhere")) == (True, False)
    status = rated.status()
    assert (status.ratings_synced, status.ratings_failed, status.ratings_pending) == (1, 1, 1)


# The request budget


def test_a_budget_is_shared_and_comes_back(store: Rooms) -> None:
    other = store.new_budget()
    for number in range(8):
        assert (store.budget, other)[number % 2].take(NOW + number * SECOND) == 0
    assert other.free(NOW + 8 * SECOND) == 0
    assert 0 < store.budget.take(NOW + 8 * SECOND) <= 60
    assert store.budget.free(NOW + MINUTE + SECOND) == 1 + 1
    other.close()


def test_unused_requests_of_a_lease_are_returned(store: Rooms) -> None:
    wide = store.new_budget(per_minute=100, per_hour=1000)
    for _ in range(2):
        wide.take(NOW)
    wide.close()
    again = store.new_budget(per_minute=100, per_hour=1000)
    assert again.free(NOW) == 98
    again.close()


def test_the_hour_limits_too(store: Rooms) -> None:
    for number in range(20):
        assert store.budget.take(NOW + number * MINUTE) == 0
    assert store.budget.take(NOW + 20 * MINUTE) == pytest.approx(40 * 60, abs=60)
    assert store.budget.free(NOW + DAY) == 8


def test_a_pause_that_is_declared_is_kept(store: Rooms) -> None:
    store.budget.learn(NOW, limit=100, remaining=0, reset_seconds=30)
    assert (store.budget.free(NOW), store.budget.take(NOW)) == (0, 30)
    assert store.status().rate_limit_remaining == 0
    assert store.budget.take(NOW + 31 * SECOND) == 0


def test_only_what_was_never_sent_can_be_deleted(rated: Rooms) -> None:
    (rating,) = rated.ratings.load(["2"])
    settle(rated, sent(rating))
    rated.own_ratings.add("a", "bob", 5, "changed since", now=NOW + HOUR)
    assert one(rated, "2").state == "pending"
    assert rated.own_ratings.delete(["1", "2", "9"], actor="ada", now=NOW) == ["1"]
    assert rated.own_ratings.find("1") is None
    assert rated.ratings.due_ids(NOW) == ["3", "2"]
