"""Decisions about ratings: which of two is newer, and what happens to one that could not be sent."""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Literal

from atom_saas_sync.core.canonical import canonical, decode_object
from atom_saas_sync.errors import ApiError, MarketplaceError, RateLimited
from atom_saas_sync.model import Rating, RemoteRating

SMALLEST_SKEW = timedelta(seconds=5)
"""Smaller differences between two clocks are rounding and network latency."""

_LARGEST_SKEW = timedelta(days=36525)
"""Ignore skews above a century: the remote clock is not set."""

_PAUSES = (
    timedelta(minutes=5),
    timedelta(minutes=15),
    timedelta(hours=1),
    timedelta(hours=6),
    timedelta(hours=24),
)

_STARS = range(1, 6)
_KEPT = ("rating", "comment", "updated_at", "replaced_at")

Newest = Literal["same", "ours", "theirs"]


def content_digest(stars: int, comment: str | None) -> bytes:
    """Return a digest of a rating's content."""
    return sha256(canonical([stars, comment or None])).digest()


def kept_rating(text: str | None) -> dict[str, Any] | None:
    """Return the rating in a JSON text of `replaced`; None if another program stored something else there.

    It has `rating` and `comment`, and the texts `updated_at` and `replaced_at`, of which the last may be None.
    """
    kept = None if text is None else decode_object(text)
    if kept is None:
        return None
    stars, *texts = (kept.get(name) for name in _KEPT)
    is_rating = type(stars) is int and stars in _STARS and all(isinstance(each, str | None) for each in texts)
    return dict(zip(_KEPT, (stars, *texts), strict=True)) if is_rating else None


# What happens to a rating that could not be sent


def after_failure(error: MarketplaceError) -> Literal["retry", "refused", "stop"]:
    """Decide: retry this rating later, count it as refused, or stop, because the failure concerns all ratings.

    A refused token, a rate limit and a redirect concern all of them.
    """
    if isinstance(error, RateLimited) or not (error.transient or isinstance(error, ApiError)):
        return "stop"
    return "retry" if error.transient else "refused"


# Which is newer


def newest(rating: Rating, remote: RemoteRating, *, skew: timedelta, now: datetime) -> Newest:
    """Compare our rating with the marketplace's; `skew` is how far its clock is ahead of ours.

    If the marketplace still has the rating that both sides last agreed on, only ours has changed, whatever the times
    say: it stamps ratings on arrival, possibly after ours was changed again. A time that is unknown or ahead of `now`
    never makes a rating newer. If the times do not decide, ours wins if it has changed since both sides last agreed.
    """
    theirs, own = content_digest(remote.stars, remote.comment), content_digest(rating.stars, rating.comment)
    if theirs == own:
        return "same"
    rated_at = None if remote.rated_at is None else _past(remote.rated_at - skew, now)
    if theirs == rating.base_digest or rated_at is None:
        return "ours"
    changed_at = _past(rating.updated_at, now)
    if changed_at is None or changed_at == rated_at:
        return "theirs" if own == rating.base_digest else "ours"
    return "theirs" if rated_at > changed_at else "ours"


def _past(moment: datetime | None, now: datetime) -> datetime | None:
    return moment if moment is not None and moment <= now + SMALLEST_SKEW else None


def clock_skew(seconds: float | None) -> timedelta:
    """Return the clock skew to allow for, given the measured one."""
    skew = timedelta(seconds=seconds or 0)
    return skew if SMALLEST_SKEW <= abs(skew) <= _LARGEST_SKEW else timedelta()


# Failures


def next_try(failed_retries: int, max_retries: int, now: datetime) -> datetime | None:
    """Return when a rating is retried after this many failed retries; None if only a manual retry is left."""
    if failed_retries >= max_retries:
        return None
    return now + _PAUSES[min(failed_retries, len(_PAUSES) - 1)]
