"""Decisions about ratings: which of two is newer, and when a failed one is retried. Nothing here sends or stores."""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import sha256
from typing import Literal

from atom_saas_sync.core.canonical import canonical
from atom_saas_sync.model import Rating, RemoteRating
from atom_saas_sync.times import parse_time

SMALLEST_SKEW = timedelta(seconds=5)
"""Smaller distances between two clocks are rounding and the time that an answer takes."""

_LARGEST_SKEW = timedelta(days=36525)
"""What is a century away is no clock."""

_PAUSES = (
    timedelta(minutes=5),
    timedelta(minutes=15),
    timedelta(hours=1),
    timedelta(hours=6),
    timedelta(hours=24),
)

Newest = Literal["same", "ours", "theirs"]


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
