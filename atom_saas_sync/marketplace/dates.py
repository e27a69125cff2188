"""Dates in headers."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def http_date(value: str | None) -> datetime | None:
    """Return the moment in UTC that an HTTP date means, None if it means none."""
    try:
        moment = parsedate_to_datetime(value or "")
        # A naive one is of the zone "-0000": UTC, of an unknown place.
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
