"""Ratings, local and remote, and the outcomes of sending them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import Struct


class Rating(Struct, frozen=True):
    """A stored local rating.

    `version` is the random name of this version of it, None if it came from the marketplace. `base_digest` is of what
    the marketplace had when it and we last agreed. `retry_count` is None unless the rating is on the failed list.
    """

    id: str
    skill_id: str
    user_id: str
    stars: int
    comment: str | None
    updated_at: datetime | None
    version: str | None = None
    remote_rating_id: str | None = None
    base_digest: bytes | None = None
    retry_count: int | None = None
    max_retries: int = 5


class OutgoingRating(Struct, frozen=True):
    """A rating as sent; `user_id` may be a keyed hash."""

    skill_id: str
    user_id: str
    stars: int
    comment: str | None


class RemoteRating(Struct, frozen=True):
    """A rating of the marketplace; the last three fields may be missing."""

    stars: int
    comment: str | None
    rating_id: str | None
    user_id: str | None
    rated_at: datetime | None


class RatingReceipt(Struct, frozen=True):
    """The marketplace stored a rating; the skill's average and number of ratings, if included."""

    rating_id: str
    average: float | None
    count: int | None


class RatingConflict(Struct, frozen=True):
    """The marketplace already has a rating of this user, and may return it."""

    stored: RemoteRating | None


class ShownRatings(Struct, frozen=True):
    """The response for the ratings of a skill; `ratings` is None if they were not modified."""

    ratings: tuple[RemoteRating, ...] | None
    etag: str | None


class RatingFailure(Struct, frozen=True):
    """Why a rating could not be sent; `next_retry_at` is None if it needs a manual retry."""

    type: str
    message: str
    retry_count: int
    next_retry_at: datetime | None


RatingEnd = Literal["sent", "updated", "taken", "kept", "failed"]


class Delivery(Struct, frozen=True):
    """The outcome of one version of a rating.

    `sent`: the marketplace has it; `digest` is of what it has now. `updated`: likewise, in place of an older one.
    `taken`: the marketplace's own is newer, and is `remote`, with its time in our clock in `taken_at`. `kept`: ours is
    newer, but the marketplace can't update; `note` says so. `failed`: `failure` says why.
    """

    rating: Rating
    end: RatingEnd
    digest: bytes | None = None
    receipt: RatingReceipt | None = None
    remote: RemoteRating | None = None
    taken_at: datetime | None = None
    note: str | None = None
    failure: RatingFailure | None = None


class RatingsCheck(Struct, frozen=True):
    """A check of a skill's ratings; `resource` names them, `etag` is for the next request."""

    resource: str
    etag: str | None


class ListedRating(Struct, frozen=True):
    """A rating with all details for users; `state` is pending, sent or failed.

    `replaced` is a JSON object with the local rating that a newer one of the marketplace replaced.
    """

    id: str
    skill_id: str
    user_id: str
    stars: int
    comment: str | None
    state: str
    created_at: datetime | None
    updated_at: datetime | None
    synced_at: datetime | None
    remote_rating_id: str | None
    note: str | None
    replaced: str | None
    error_type: str | None
    error_message: str | None
    failed_at: datetime | None
    last_retry_at: datetime | None
    next_retry_at: datetime | None
    retry_count: int | None
    max_retries: int | None
