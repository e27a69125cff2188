"""Conditions on times that other programs write too: `2026-02-19T14:15:00Z`, and `2026-02-19 14:15:00.5`, also UTC.

The two forms do not order as text: of one day, all with a blank come before all with a `T`. A limit is always of the
first form. Where a column has an index these conditions can use it.
"""

from __future__ import annotations


def before(column: str, limit: str) -> str:
    """Return the SQL for a time earlier than a limit; false where the column holds no time."""
    return f"({column} < {limit} AND julianday({column}) < julianday({limit}))"


def after(column: str, limit: str, *, or_at: bool = False) -> str:
    """Return the SQL for a time later than a limit, or not earlier."""
    sign = ">=" if or_at else ">"
    with_blank = f"replace(substr({limit}, 1, 19), 'T', ' ')"
    return f"({column} {sign} {limit} OR ({column} {sign} {with_blank} AND {column} < substr({limit}, 1, 10) || ' ~'))"
