"""Ratings (marketplace-api.md, section 3, "One skill" and "Send a rating")."""

from __future__ import annotations

import json
from typing import Any

from atom_saas_sync.core.canonical import decode_object
from atom_saas_sync.core.incoming.fields import SURROGATE, read_average, read_count, read_identifier, read_stars
from atom_saas_sync.errors import BadResponse
from atom_saas_sync.model import RatingReceipt, RemoteRating
from atom_saas_sync.times import parse_time


def _lenient_object(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object in a body, even if some text or number in it is not valid."""
    fields = decode_object(body)
    if fields is not None:
        return fields
    try:
        document = json.loads(body.decode(errors="replace"), strict=False)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def parse_receipt(body: bytes, *, known_id: str | None = None) -> RatingReceipt:
    """Read the response to an accepted rating; `known_id` is its id if the response may omit it.

    Raises BadResponse if it does not have the contract's form.
    """
    document = _lenient_object(body)
    if document is None:
        raise BadResponse("the response to a rating is not a JSON object")
    if document.get("success", True) is not True:
        raise BadResponse("the response to a rating reports a failure with a successful status")
    rating_id = read_identifier(document.get("rating_id")) or read_identifier(document.get("id")) or known_id
    if rating_id is None:
        raise BadResponse("the response to a rating has no valid rating_id")
    return RatingReceipt(
        rating_id, read_average(document.get("average_rating")), read_count(document.get("rating_count"))
    )


def parse_conflict(body: bytes, *, skill_id: str, user_id: str) -> RemoteRating | None:
    """Return the stored rating in a 409 response, flat or nested in `rating`; None if it is missing or not ours."""
    document = _lenient_object(body)
    if document is None:
        return None
    nested = document.get("rating")
    fields = nested if isinstance(nested, dict) else document
    if fields.get("skill_id", skill_id) != skill_id or fields.get("user_id", user_id) != user_id:
        return None
    return _remote_rating(fields)


def parse_skill_ratings(body: bytes) -> tuple[RemoteRating, ...]:
    """Return the valid ratings of a skill. Raises BadResponse if the body is not a skill."""
    document = _lenient_object(body)
    if document is None:
        raise BadResponse("the response for a skill is not a JSON object")
    entries = document.get("ratings")
    if entries is None:
        return ()
    if not isinstance(entries, list):
        raise BadResponse("the response for a skill is not of the expected form: `ratings` is not a list")
    found = (_remote_rating(entry) for entry in entries if isinstance(entry, dict))
    return tuple(rating for rating in found if rating is not None)


def _remote_rating(fields: dict[str, Any]) -> RemoteRating | None:
    stars, comment = read_stars(fields.get("rating")), fields.get("comment")
    if stars is None or not isinstance(comment, str | None):
        return None
    user_id, updated_at = fields.get("user_id"), fields.get("updated_at")
    return RemoteRating(
        stars=stars,
        comment=SURROGATE.sub("\N{REPLACEMENT CHARACTER}", comment) if comment else None,
        rating_id=read_identifier(fields.get("rating_id")),
        user_id=user_id if isinstance(user_id, str) else None,
        # A rating with an invalid time of change was changed at an unknown time.
        rated_at=parse_time(fields.get("created_at") if updated_at is None else updated_at),
    )
