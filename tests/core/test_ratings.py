"""Ratings without a network: keys, the newer of two, the pauses between tries, and what may be sent."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atom_saas_sync.core import ratings
from atom_saas_sync.errors import BadResponse
from atom_saas_sync.model import Rating, RemoteRating

NOON = datetime(2026, 2, 19, 12, tzinfo=UTC)
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=5)


def ours(stars: int = 4, comment: str | None = None, **fields: object) -> Rating:
    known = {"id": 1, "skill_id": "s", "user_id": "ann", "updated_at": "2026-02-19T12:00:00Z", "version": "v"}
    return Rating(**{**known, "stars": stars, "comment": comment, **fields})  # type: ignore[arg-type]


def theirs(stars: int = 2, comment: str | None = None, at: datetime | None = NOON) -> RemoteRating:
    return RemoteRating(stars, comment, "r1", "ann", at)


@given(names, names, names, names)
def test_a_key_is_the_same_for_the_same_and_another_for_another(v: str, u: str, w: str, x: str) -> None:
    key = ratings.idempotency_key(v, u)
    assert key == ratings.idempotency_key(v, u)
    assert (key == ratings.idempotency_key(w, x)) == ((v, u) == (w, x))
    assert key != ratings.idempotency_key(v, u, update_of=w)
    assert len(key) == 32 and key.isalnum() and key.isascii()


def test_pauses_grow_and_end_with_a_person() -> None:
    pauses = [ratings.next_try(retries, 5, NOON) for retries in range(6)]
    hours = [None if moment is None else (moment - NOON) / timedelta(hours=1) for moment in pauses]
    assert hours == [5 / 60, 15 / 60, 1, 6, 24, None]
    assert ratings.next_try(7, 9, NOON) == NOON + timedelta(hours=24)


@pytest.mark.parametrize(
    ("local", "remote", "skew", "winner"),
    [
        (ours(4), theirs(4), 0, "same"),
        (ours(4, ""), theirs(4, None), 0, "same"),
        (ours(4), theirs(2, at=NOON - timedelta(seconds=1)), 0, "ours"),
        (ours(4), theirs(2, at=NOON + timedelta(seconds=1)), 0, "theirs"),
        (ours(4), theirs(2), 0, "theirs"),  # equal times and different stars: the marketplace wins
        (ours(4), theirs(4, "else"), 0, "theirs"),
        (ours(4), theirs(2, at=None), 0, "ours"),
        (ours(4, updated_at="some day"), theirs(2), 0, "theirs"),
        # Its clock is an hour ahead: what it stamped 12:30 was given at 11:30.
        (ours(4), theirs(2, at=NOON + timedelta(minutes=30)), 3600, "ours"),
        (ours(4), theirs(2, at=NOON - timedelta(minutes=30)), -3600, "theirs"),
        # What stands there is what we last agreed on: only ours has changed since.
        (ours(4, base_digest=ratings.content_digest(2, None)), theirs(2, at=NOON + timedelta(days=9)), 0, "ours"),
    ],
)
def test_the_newest_wins(local: Rating, remote: RemoteRating, skew: int, winner: str) -> None:
    assert ratings.newest(local, remote, timedelta(seconds=skew)) == winner


@given(st.integers(-7200, 7200), st.integers(-100_000, 100_000))
def test_skew_changes_nothing_when_both_are_shifted(skew: int, apart: int) -> None:
    shifted = theirs(2, at=NOON + timedelta(seconds=apart + skew))
    straight = theirs(2, at=NOON + timedelta(seconds=apart))
    assert ratings.newest(ours(), shifted, timedelta(seconds=skew)) == ratings.newest(ours(), straight, timedelta())


def test_small_distances_between_clocks_are_no_skew() -> None:
    assert [ratings.clock_skew(seconds) for seconds in (None, 0, 4.9, -4.9)] == [timedelta()] * 4
    assert ratings.clock_skew(-3600.0) == timedelta(hours=-1)


@pytest.mark.parametrize(
    ("rating", "word"),
    [
        (("s", "ann", 0, None), "1 to 5"),
        (("s", "ann", 6, None), "1 to 5"),
        (("s", "ann", 4.5, None), "1 to 5"),
        (("s", "ann", True, None), "1 to 5"),
        (("s", "ann", 4, "x" * 1001), "1001"),
        (("s", "ann", 4, "a\x1b[0m"), "control"),
        (("s", "ann", 4, "\ud800"), "valid text"),
        (("s", "ann", 4, b"x"), "valid text"),
        (("s", " ", 4, None), "empty"),
        (("s", "a\nb", 4, None), "control"),
        (("s", "a" * 257, 4, None), "longer"),
        (("s", None, 4, None), "valid text"),
        (("..", "ann", 4, None), "skill_id"),
        (("s\x00", "ann", 4, None), "skill_id"),
    ],
)
def test_what_can_t_be_sent_is_said_clearly(rating: tuple[object, object, object, object], word: str) -> None:
    assert word in (ratings.rating_problem(*rating) or "")


@given(st.integers(1, 5), st.none() | st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=1000))
def test_everything_else_can_be_sent(stars: int, comment: str | None) -> None:
    assert ratings.rating_problem("s", "ann", stars, comment) is None
    body = json.loads(ratings.rating_body(ratings.outgoing(ours(stars, comment), "ann")))
    assert body == {"skill_id": "s", "rating": stars, "comment": comment or None, "user_id": "ann"}


def test_comments_may_have_lines() -> None:
    assert ratings.comment_problem("one\r\n\ttwo") is None


def test_hashed_users_are_stable_and_depend_on_the_token() -> None:
    one, other = ratings.user_hasher("token-1"), ratings.user_hasher("token-2")
    assert one("ann") == ratings.user_hasher("token-1")("ann")
    assert len({one("ann"), one("bob"), other("ann")}) == 3
    assert "ann" not in one("ann") and len(one("ann")) == 64


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"rating_id": null}', b'{"rating_id": ""}', b'{"rating_id": ".."}', b'{"rating_id": "a\\n"}',
     b'{"success": false, "rating_id": "r"}', b'{"rating_id": "r"', b"\xff"],
)  # fmt: skip
def test_receipts_that_are_none(body: bytes) -> None:
    with pytest.raises(BadResponse):
        ratings.parse_receipt(body)


@pytest.mark.parametrize(
    ("more", "figures"),
    [
        ({"average_rating": 4.5, "rating_count": 2}, (4.5, 2)),
        ({"average_rating": "4.5", "rating_count": -1}, (None, None)),
        ({"average_rating": 9, "rating_count": True}, (None, None)),
    ],
)
def test_figures_that_can_t_be_are_left_out(more: dict[str, object], figures: tuple[float | None, int | None]) -> None:
    receipt = ratings.parse_receipt(json.dumps({"rating_id": 7, **more}).encode())
    assert (receipt.rating_id, (receipt.average, receipt.count)) == ("7", figures)


@pytest.mark.parametrize(
    ("document", "stars"),
    [
        ({"rating": 3, "rating_id": "r"}, 3),
        ({"rating": {"rating": 3, "rating_id": "r", "user_id": "ann", "skill_id": "s"}}, 3),
        ({"rating": 3, "user_id": "bob"}, None),
        ({"rating": 3, "skill_id": "other"}, None),
        ({"rating": 9}, None),
        ({}, None),
        ([], None),
    ],
)
def test_a_conflict_shows_the_rating_in_either_form_or_none(document: object, stars: int | None) -> None:
    found = ratings.parse_conflict(json.dumps(document).encode(), skill_id="s", user_id="ann")
    assert (found.stars if found else None) == stars


def test_of_a_skill_s_ratings_the_usable_ones_are_read() -> None:
    entries = [{"user_id": "a", "rating": 3, "created_at": "2026-01-01T00:00:00Z"}, {"rating": 0}, None, {"rating": 5}]
    first, last = ratings.parse_skill_ratings(json.dumps({"name": "x", "ratings": entries}).encode())
    assert (first.user_id, first.stars, first.rated_at) == ("a", 3, datetime(2026, 1, 1, tzinfo=UTC))
    assert (last.user_id, last.rated_at) == (None, None)
    assert ratings.parse_skill_ratings(b'{"name": "x"}') == ()
    for body in (b"[]", b'{"ratings": 3}'):
        with pytest.raises(BadResponse):
            ratings.parse_skill_ratings(body)


@given(st.binary(max_size=40))
def test_no_bytes_break_the_readers(body: bytes) -> None:
    ratings.parse_conflict(body, skill_id="s", user_id="a")
    for read in (ratings.parse_receipt, ratings.parse_skill_ratings):
        try:
            read(body)
        except BadResponse:
            continue
