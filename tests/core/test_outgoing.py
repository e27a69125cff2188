"""Outgoing data: keys and bodies of ratings, and ratings that are refused before sending."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atom_saas_sync.core.outgoing import (
    comment_problem,
    idempotency_key,
    outgoing,
    rating_body,
    rating_problem,
    user_hasher,
)
from atom_saas_sync.model import Rating

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=5)


@given(names, names, names, names)
def test_a_key_is_the_same_for_the_same_and_another_for_another(v: str, u: str, w: str, x: str) -> None:
    key = idempotency_key(v, u)
    assert key == idempotency_key(v, u)
    assert (key == idempotency_key(w, x)) == ((v, u) == (w, x))
    assert key != idempotency_key(v, u, update_of=w)
    assert len(key) == 32 and key.isalnum() and key.isascii()


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
def test_a_rating_that_cannot_be_sent_gets_a_clear_error(
    rating: tuple[object, object, object, object], word: str
) -> None:
    assert word in (rating_problem(*rating) or "")


@given(st.integers(1, 5), st.none() | st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=1000))
def test_everything_else_can_be_sent(stars: int, comment: str | None) -> None:
    rating = Rating(id="1", skill_id="s", user_id="ann", stars=stars, comment=comment, updated_at=None, version="v")
    assert rating_problem("s", "ann", stars, comment) is None
    body = json.loads(rating_body(outgoing(rating, "ann")))
    assert body == {"skill_id": "s", "rating": stars, "comment": comment or None, "user_id": "ann"}


def test_comments_may_have_lines() -> None:
    assert comment_problem("one\r\n\ttwo") is None


def test_hashed_users_are_stable_and_depend_on_the_token() -> None:
    one, other = user_hasher("token-1"), user_hasher("token-2")
    assert one("ann") == user_hasher("token-1")("ann")
    assert len({one("ann"), one("bob"), other("ann")}) == 3
    assert "ann" not in one("ann") and len(one("ann")) == 64
