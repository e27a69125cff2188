"""Data sent to a marketplace: ratings, list queries, heartbeats (marketplace-api.md).

Strict: anything that the contract does not allow is refused here, before it takes a request. Data received is in
core/incoming/.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Literal
from urllib.parse import quote

from atom_saas_sync.core.canonical import canonical, json_text
from atom_saas_sync.core.incoming.fields import id_problem
from atom_saas_sync.model import OutgoingRating, Rating
from atom_saas_sync.times import format_time

MAX_COMMENT = 1000
"""Characters in a comment (from the contract)."""

MAX_USER = 256
"""Characters in a user id."""

_STARS = range(1, 6)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTROL_IN_COMMENT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


# Requests (marketplace-api.md, section 3)


def path_segment(text: str) -> str:
    """Percent-encode `text` as one path segment; dots too, because HTTP clients collapse `..`."""
    return quote(text, safe="").replace(".", "%2E")


def list_query(page: int, page_size: int) -> Mapping[str, str]:
    """Return the query for one page of the list of skills; pages count from 1."""
    return {"page": str(page), "page_size": str(page_size)}


# Ratings (marketplace-api.md, section 3, "Send a rating")


def rating_problem(skill_id: object, user_id: object, stars: object, comment: object) -> str | None:
    """Say why a rating cannot be sent, or return None. Other programs may have stored anything."""
    return id_problem(skill_id) or user_problem(user_id) or stars_problem(stars) or comment_problem(comment)


def stars_problem(stars: object) -> str | None:
    """Say why a number of stars is invalid, or return None."""
    if not isinstance(stars, int) or isinstance(stars, bool) or stars not in _STARS:
        return "stars must be a whole number from 1 to 5"
    return None


def comment_problem(comment: object) -> str | None:
    """Say why the comment of a rating is invalid, or return None. It may have several lines."""
    if comment is None:
        return None
    if not isinstance(comment, str) or not _is_unicode(comment):
        return "the comment is not valid text"
    if len(comment) > MAX_COMMENT:
        return f"the comment has {len(comment)} characters; {MAX_COMMENT} are allowed"
    if _CONTROL_IN_COMMENT.search(comment):
        return "the comment has control characters"
    return None


def user_problem(user_id: object) -> str | None:
    """Say why a user id is invalid, or return None."""
    if not isinstance(user_id, str) or not _is_unicode(user_id):
        return "the user id is not valid text"
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


def user_hasher(token: str) -> Callable[[str], str]:
    """Return a function that maps user ids to HMAC-SHA256, with a key derived from the token.

    A user keeps the same hash as long as the token stays; without the token, the id cannot be found by guessing.
    """
    key = hmac.digest(token.encode(), b"atom-sync: ids of users", "sha256")
    return lambda user_id: hmac.digest(key, user_id.encode(), "sha256").hex()


def outgoing(rating: Rating, sent_user: str) -> OutgoingRating:
    """Return the rating as sent under the user id `sent_user`; an empty comment is left out."""
    return OutgoingRating(rating.skill_id, sent_user, rating.stars, rating.comment or None)


def rating_body(rating: OutgoingRating) -> bytes:
    """Return the body of the request: the same bytes for the same rating."""
    return canonical(
        {"skill_id": rating.skill_id, "rating": rating.stars, "comment": rating.comment, "user_id": rating.user_id}
    )


def idempotency_key(version: str, sent_user: str, *, update_of: str = "") -> str:
    """Return the idempotency key of this version of this rating, the same for each attempt.

    `version` is the random name given to the version when it was written. The user id is part of the key because it is
    part of the body: servers refuse a key with a different body. An update (`PUT`) has a separate key.
    """
    return sha256(canonical([version, sent_user, update_of])).hexdigest()[:32]


def rating_headers(key: str) -> Mapping[str, str]:
    """Return the headers of a rating sent with the idempotency key `key`."""
    return {"Idempotency-Key": key, "Content-Type": "application/json"}


# Messages (marketplace-api.md, section 4)


def heartbeat(kind: Literal["ping", "pong"], now: datetime) -> str:
    """Return the text of a ping, or of the reply to one."""
    return json_text({"type": kind, "timestamp": format_time(now)})
