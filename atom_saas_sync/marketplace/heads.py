"""Parsing response headers (marketplace-api.md, "Errors and limits"). Servers may put anything into them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import httpx

LARGEST_ETAG = 1024
_DAY = 86_400.0
_EPOCH_SECONDS, _EPOCH_MILLISECONDS = 1e9, 1e11
_MOST_DIGITS = 18
_NUMBER = re.compile(r"\s*(\d+)(?:\.\d*)?\s*(?:[,;]|$)", re.ASCII)


class RateLimit(NamedTuple):
    """A rate limit declared by a response; `reset_seconds` is None if the end of the window is unknown."""

    limit: int
    remaining: int | None
    reset_seconds: float | None


def http_date(value: str | None) -> datetime | None:
    """Return an HTTP date as a moment in UTC; None if it is invalid."""
    try:
        moment = parsedate_to_datetime(value or "")
        # A naive one had the zone "-0000": UTC, in an unknown place.
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def redirect_target(url: httpx.URL, headers: Mapping[str, str]) -> httpx.URL | None:
    """Return the target of a redirect from `url`; None if it is not a valid address."""
    location = headers.get("location", "").strip()
    try:
        target = url.join(location)
        target.host  # noqa: B018 - an xn-- name is decoded only when it is asked for
    except (httpx.InvalidURL, ValueError):  # also UnicodeError
        return None
    return target if location else None


def usable_etag(etag: str | None) -> str | None:
    """Return a validator that can be sent back. Servers refuse requests with a very long one; * matches any version."""
    if not etag or len(etag) > LARGEST_ETAG or not etag.isascii() or not etag.isprintable():
        return None
    return None if "*" in map(str.strip, etag.split(",")) else etag


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the delay of a `Retry-After` header, in either form, in seconds."""
    value = headers.get("retry-after")
    if value is None:
        return None
    seconds = _number(value)
    if seconds is not None:
        return seconds
    moment = http_date(value)
    return None if moment is None else max(0.0, (moment - now).total_seconds())


def rate_limit(headers: Mapping[str, str], now: datetime) -> RateLimit | None:
    """Return the rate limit that a response declares; None if there is none.

    The reset is a number of seconds, or a moment in seconds or milliseconds; it is ignored if more than a day away.
    """
    limit, remaining, reset = (
        _number(headers.get(f"x-ratelimit-{name}") or headers.get(f"ratelimit-{name}"))
        for name in ("limit", "remaining", "reset")
    )
    if not limit:
        return None
    if reset is not None:
        if reset > _EPOCH_MILLISECONDS:
            reset /= 1000
        if reset > _EPOCH_SECONDS:
            reset -= now.timestamp()
        if reset > _DAY:
            reset = None
    return RateLimit(int(limit), None if remaining is None else int(remaining), reset)


def _number(value: str | None) -> float | None:
    """Return the first number of a header such as `100, 100;w=60`."""
    found = _NUMBER.match(value or "")
    return float(found[1][:_MOST_DIGITS]) if found else None
