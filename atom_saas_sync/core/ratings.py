"""Ratings: what may be sent, under which key, which of two is the newer, and when a failed one is tried again.

The wire: marketplace-api.md, "Send a rating". Nothing here sends or stores.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Literal

from atom_saas_sync.core.canonical import canonical, decode_object
from atom_saas_sync.core.realtime import utc
from atom_saas_sync.core.wire import id_problem
from atom_saas_sync.errors import BadResponse
from atom_saas_sync.model import OutgoingRating, Rating, RatingReceipt, RemoteRating
from atom_saas_sync.times import parse_time

MAX_COMMENT = 1000
"""Characters of a comment (the contract)."""

MAX_USER = 256
"""Characters of a user id."""

SMALLEST_SKEW = timedelta(seconds=5)
"""Smaller distances between two clocks are rounding and the time that an answer takes."""

_LARGEST_SKEW = timedelta(days=36525)
"""What is a century away is no clock."""

_STARS = range(1, 6)
_PAUSES = (
    timedelta(minutes=5),
    timedelta(minutes=15),
    timedelta(hours=1),
    timedelta(hours=6),
    timedelta(hours=24),
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTROL_IN_COMMENT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")

Newest = Literal["same", "ours", "theirs"]


def rating_problem(skill_id: object, user_id: object, stars: object, comment: object) -> str | None:
    """Say why this is no rating that can be sent, or None. Other programs may have stored anything."""
    return id_problem(skill_id) or user_problem(user_id) or stars_problem(stars) or comment_problem(comment)


def stars_problem(stars: object) -> str | None:
    """Say why these are no stars, or None."""
    if not isinstance(stars, int) or isinstance(stars, bool) or stars not in _STARS:
        return "stars must be a whole number from 1 to 5"
    return None


def comment_problem(comment: object) -> str | None:
    """Say why this can't be the comment of a rating, or None. It may have several lines."""
    if comment is None:
        return None
    if not isinstance(comment, str) or not _is_unicode(comment):
        return "the comment is no valid text"
    if len(comment) > MAX_COMMENT:
        return f"the comment has {len(comment)} characters; {MAX_COMMENT} are allowed"
    if _CONTROL_IN_COMMENT.search(comment):
        return "the comment has control characters"
    return None


def user_problem(user_id: object) -> str | None:
    """Say why this can't be the id of a user, or None."""
    if not isinstance(user_id, str) or not _is_unicode(user_id):
        return "the user id is no valid text"
    if not user_id.strip():
        return "the user id is empty"
    if len(user_id) > MAX_USER:
        return f"the user id is longer than {MAX_USER} characters"
    return "the user id has control characters" if _CONTROL.search(user_id) else None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# What is sent


def user_hasher(token: str) -> Callable[[str], str]:
    """Return the function that turns user ids into HMAC-SHA256, keyed by a key derived from the token.

    The same user has the same hash as long as the token stays; without the token it can't be traced back by guessing.
    """
    key = hmac.digest(token.encode(), b"atom-sync: ids of users", "sha256")
    return lambda user_id: hmac.digest(key, user_id.encode(), "sha256").hex()


def outgoing(rating: Rating, sent_user: str) -> OutgoingRating:
    """Return the rating as it is sent under the user id `sent_user`; an empty comment is none."""
    return OutgoingRating(rating.skill_id, sent_user, rating.stars, rating.comment or None)


def rating_body(rating: OutgoingRating) -> bytes:
    """Return the body of the request: the same bytes for the same rating."""
    return canonical(
        {"skill_id": rating.skill_id, "rating": rating.stars, "comment": rating.comment, "user_id": rating.user_id}
    )


def idempotency_key(version: str, sent_user: str, *, update_of: str = "") -> str:
    """Return the key that belongs to this version of this rating, the same for each try.

    `version` is the random name that the version got when it was written. The user id is part of it because it is
    part of the body: servers refuse a key that comes with another body. An update (`PUT`) has a key of its own.
    """
    return sha256(canonical([version, sent_user, update_of])).hexdigest()[:32]


def content_digest(stars: int, comment: str | None) -> bytes:
    """Return a digest of what a rating says."""
    return sha256(canonical([stars, comment or None])).digest()


# Which is newer


def newest(rating: Rating, remote: RemoteRating, skew: timedelta) -> Newest:
    """Compare ours with the marketplace's; `skew` is how far its clock is ahead of ours.

    If it still has what it and we last agreed on, only ours has changed since, whatever the times say: it stamps
    ratings when they arrive, and that may be after ours was changed again. Equal times: the marketplace wins. One
    whose time is unknown is not newer.
    """
    theirs = content_digest(remote.stars, remote.comment)
    if theirs == content_digest(rating.stars, rating.comment):
        return "same"
    if theirs == rating.base_digest or remote.rated_at is None:
        return "ours"
    ours_at = parse_time(rating.updated_at)
    return "theirs" if ours_at is None or remote.rated_at - skew >= ours_at else "ours"


def clock_skew(seconds: float | None) -> timedelta:
    """Return the distance to allow for, given the measured one."""
    skew = timedelta(seconds=seconds or 0)
    return skew if SMALLEST_SKEW <= abs(skew) <= _LARGEST_SKEW else timedelta()


# Failures


def next_try(failed_retries: int, max_retries: int, now: datetime) -> datetime | None:
    """Return when a rating is tried again after so many failed retries; None if it waits for a person."""
    if failed_retries >= max_retries:
        return None
    return now + _PAUSES[min(failed_retries, len(_PAUSES) - 1)]


# Answers, which nobody vouches for


def parse_receipt(body: bytes, *, known_id: str | None = None) -> RatingReceipt:
    """Read the answer to a rating that was taken; `known_id` is its id if the answer may leave it out.

    Raises BadResponse if it is not of the contract's form.
    """
    document = decode_object(body)
    if document is None:
        raise BadResponse("the answer to a rating is not a JSON object")
    if document.get("success", True) is not True:
        raise BadResponse("the answer to a rating says that it was no success, with a status that says it was")
    rating_id = _identifier(document.get("rating_id")) or known_id
    if rating_id is None:
        raise BadResponse("the answer to a rating has no usable rating_id")
    count = document.get("rating_count")
    return RatingReceipt(
        rating_id,
        _average(document.get("average_rating")),
        count if isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 1 << 53 else None,
    )


def parse_conflict(body: bytes, *, skill_id: str, user_id: str) -> RemoteRating | None:
    """Return the stored rating that a 409 shows, flat or nested in `rating`; None if it shows none that is ours."""
    document = decode_object(body)
    if document is None:
        return None
    nested = document.get("rating")
    fields = nested if isinstance(nested, dict) else document
    if fields.get("skill_id", skill_id) != skill_id or fields.get("user_id", user_id) != user_id:
        return None
    return _remote_rating(fields)


def parse_skill_ratings(body: bytes) -> tuple[RemoteRating, ...]:
    """Return the usable ratings among those that a skill shows. Raises BadResponse if it is no skill."""
    document = decode_object(body)
    if document is None:
        raise BadResponse("the answer for a skill is not a JSON object")
    entries = document.get("ratings")
    if entries is None:
        return ()
    if not isinstance(entries, list):
        raise BadResponse("the answer for a skill is not of the expected form: `ratings` is no list")
    found = (_remote_rating(entry) for entry in entries if isinstance(entry, dict))
    return tuple(rating for rating in found if rating is not None)


def _remote_rating(fields: dict[str, Any]) -> RemoteRating | None:
    stars, comment = fields.get("rating"), fields.get("comment")
    if stars_problem(stars) or comment_problem(comment):
        return None
    assert isinstance(stars, int)
    user_id = fields.get("user_id")
    return RemoteRating(
        stars=stars,
        comment=comment or None,
        rating_id=_identifier(fields.get("rating_id")),
        user_id=user_id if isinstance(user_id, str) else None,
        rated_at=utc(fields.get("updated_at")) or utc(fields.get("created_at")),
    )


def _identifier(value: object) -> str | None:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    return text if isinstance(text, str) and id_problem(text) is None else None


def _average(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0 <= value <= _STARS[-1] else None
