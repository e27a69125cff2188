"""Times as text: UTC, ISO 8601 with `Z`, so that they order as text (data-model.md)."""

from __future__ import annotations

from datetime import UTC, datetime


def format_time(moment: datetime) -> str:
    """Return `moment`, which must be aware, to the second: `2026-02-19T10:30:00Z`."""
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='seconds')}Z"


def format_exact_time(moment: datetime) -> str:
    """Return `moment`, which must be aware, to the microsecond: what happens within a second has an order, too."""
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def parse_time(text: object) -> datetime | None:
    """Return the aware moment that an ISO 8601 text means, or None if it means none. Without a zone it is UTC."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
