"""Durations in settings and policies: 30s, 90m, 72h, 7d."""

from __future__ import annotations

import re
from datetime import timedelta

LONGEST_AGE = timedelta(days=90)
AGE_TAKES = "a whole number followed by s, m, h or d, up to 90d, or 0"

_AGE = re.compile(r"([0-9]{1,9})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def read_age(text: str) -> timedelta:
    """Parse a minimum age, from 0 to 90 days. Raises ValueError (see AGE_TAKES)."""
    found = _AGE.fullmatch("0s" if text == "0" else text)
    if found is None:
        raise ValueError(AGE_TAKES)
    seconds = int(found[1]) * _SECONDS[found[2]]
    if seconds > LONGEST_AGE.total_seconds():
        raise ValueError(AGE_TAKES)
    return timedelta(seconds=seconds)


def age_text(age: timedelta) -> str:
    """Return an age in the form that `read_age` parses, in the largest unit that divides it."""
    seconds = int(age.total_seconds())
    for unit in ("d", "h", "m"):
        if seconds and seconds % _SECONDS[unit] == 0:
            return f"{seconds // _SECONDS[unit]}{unit}"
    return f"{seconds}s"
