"""Times: aware datetimes everywhere except in database rows and JSON documents.

There they are text: UTC, ISO 8601 with `Z`, so that they sort as text.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

CLOCK_TOLERANCE = timedelta(minutes=5)
"""How far another clock may be ahead of ours before its times count as unknown."""

_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d|\d{8})(?:[T ](\d\d(?::\d\d(?::\d\d(?:[.,]\d+)?)?)?|\d{4}(?:\d\d(?:[.,]\d+)?)?)"
    r" ?(?:Z|[+-]00:?00Z|([+-]\d\d(?::?\d\d)?))?)?",
    re.ASCII,
)
_UTC = "+00:00"
_MILLISECONDS = 1e11
_END = 1e15
_YEARS = range(1900, 9000)
_USUAL_LENGTH = 20


def format_time(moment: datetime) -> str:
    """Format `moment`, which must be aware, to the second: `2026-02-19T10:30:00Z`."""
    return f"{moment.astimezone(UTC).isoformat(timespec='seconds').removesuffix(_UTC)}Z"


def time_text(moment: datetime | None) -> str | None:
    """Return what a row or a document has for a moment; None where there is none."""
    return None if moment is None else format_time(moment)


def format_exact_time(moment: datetime) -> str:
    """Format `moment`, which must be aware, to the microsecond, to order events within one second."""
    return f"{moment.astimezone(UTC).isoformat(timespec='microseconds').removesuffix(_UTC)}Z"


def parse_time(value: object) -> datetime | None:
    """Parse a timestamp of our own or from a marketplace, as a moment in UTC; None if it is invalid.

    ISO 8601 with any offset, `+00:00Z`, lower-case `t` and `z`, or a blank instead of `T`; without a zone it is UTC. A
    number counts seconds since 1970, or milliseconds above 1e11 (marketplace-api.md, section 3). The ends of the
    calendar are invalid: the year 1 and second 0 are zero values in some languages.
    """
    try:
        if isinstance(value, str):
            moment = _from_text(value)
            if moment is None:
                return None
        elif isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < _END:
            moment = datetime.fromtimestamp(value / 1000 if value > _MILLISECONDS else value, UTC)
        else:
            return None
    except (ValueError, OverflowError):
        return None
    return moment if moment.year in _YEARS else None


def _from_text(value: str) -> datetime | None:
    return _from_usual(value) if len(value) == _USUAL_LENGTH else _searched(value)


@lru_cache(maxsize=256)  # a message's time is asked for several times, and messages of one second have the same
def _from_usual(value: str) -> datetime | None:
    if value[4::3] == "--T::Z":  # 2026-02-19T10:30:00Z, without a search
        return datetime.fromisoformat(value)
    return _searched(value)


def _searched(value: str) -> datetime | None:
    found = _ISO.fullmatch(value.strip().upper())
    if found is None:
        return None
    return datetime.fromisoformat(f"{found[1]}T{found[2] or '00:00'}{found[3] or 'Z'}").astimezone(UTC)


def utc_text(value: object) -> str | None:
    """Return a stored time as we write times, whichever program wrote it; a text that is not a time stays as it is."""
    if not isinstance(value, str) or (value.endswith("Z") and value[10:11] == "T"):
        return value if isinstance(value, str) else None
    moment = parse_time(value)
    return value if moment is None else format_time(moment)
