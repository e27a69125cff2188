"""Decisions about ratings: the newer of two, and the pauses between retries."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atom_saas_sync.core import ratings
from atom_saas_sync.model import Rating, RemoteRating

NOON = datetime(2026, 2, 19, 12, tzinfo=UTC)
NOW = NOON + timedelta(days=1)


def ours(stars: int = 4, comment: str | None = None, **fields: object) -> Rating:
    known = {"id": 1, "skill_id": "s", "user_id": "ann", "updated_at": NOON, "version": "v"}
    return Rating(**{**known, "stars": stars, "comment": comment, **fields})  # type: ignore[arg-type]


def theirs(stars: int = 2, comment: str | None = None, at: datetime | None = NOON) -> RemoteRating:
    return RemoteRating(stars, comment, "r1", "ann", at)


def test_pauses_grow_until_a_manual_retry_is_needed() -> None:
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
        # Equal times do not decide: ours stays if it has changed since we last agreed.
        (ours(4), theirs(2), 0, "ours"),
        (ours(4), theirs(4, "else"), 0, "ours"),
        (ours(4, base_digest=ratings.content_digest(4, None)), theirs(2), 0, "theirs"),
        (ours(4), theirs(2, at=None), 0, "ours"),
        (ours(4, updated_at=None), theirs(2), 0, "ours"),
        (ours(4, updated_at=NOON + timedelta(days=365000)), theirs(2, at=NOON + timedelta(minutes=1)), 0, "ours"),
        (ours(4, updated_at=None, base_digest=ratings.content_digest(4, None)), theirs(2), 0, "theirs"),
        # Ahead of now, by more than rounding.
        (ours(4), theirs(2, at=NOW + timedelta(seconds=4)), 0, "theirs"),
        (ours(4), theirs(2, at=NOW + timedelta(seconds=6)), 0, "ours"),
        (ours(4), theirs(2, at=NOON.replace(year=8999)), 0, "ours"),
        (ours(4, base_digest=ratings.content_digest(4, None)), theirs(2, at=NOON.replace(year=8999)), 0, "ours"),
        # Its clock is an hour ahead: what it stamped 12:30 was given at 11:30.
        (ours(4), theirs(2, at=NOON + timedelta(minutes=30)), 3600, "ours"),
        (ours(4), theirs(2, at=NOON - timedelta(minutes=30)), -3600, "theirs"),
        # The remote rating is the last agreed one: only ours has changed since.
        (ours(4, base_digest=ratings.content_digest(2, None)), theirs(2, at=NOON + timedelta(days=9)), 0, "ours"),
    ],
)
def test_the_newest_wins(local: Rating, remote: RemoteRating, skew: int, winner: str) -> None:
    assert ratings.newest(local, remote, skew=timedelta(seconds=skew), now=NOW) == winner


@given(st.integers(-7200, 7200), st.integers(-100_000, 100_000))
def test_skew_changes_nothing_when_both_are_shifted(skew: int, apart: int) -> None:
    shifted = theirs(2, at=NOON + timedelta(seconds=apart + skew))
    straight = theirs(2, at=NOON + timedelta(seconds=apart))
    seen = ratings.newest(ours(), shifted, skew=timedelta(seconds=skew), now=NOW)
    assert seen == ratings.newest(ours(), straight, skew=timedelta(), now=NOW)


def test_small_clock_differences_are_not_a_skew() -> None:
    assert [ratings.clock_skew(seconds) for seconds in (None, 0, 4.9, -4.9)] == [timedelta()] * 4
    assert ratings.clock_skew(-3600.0) == timedelta(hours=-1)
