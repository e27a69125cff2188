"""Conditions on times that other programs write too: `2026-02-19T14:15:00Z`, and `2026-02-19 14:15:00.5`, also UTC.

The two forms do not sort as text: within one day, all times with a blank sort before all with a `T`. A limit always has
the first form. These conditions can use the index of a column.
"""

from __future__ import annotations


def before(column: str, limit: str) -> str:
    """Return the SQL for a time before a limit; false if the column does not contain a time."""
    return f"({column} < {limit} AND julianday({column}) < julianday({limit}))"


def after(column: str, limit: str, *, or_at: bool = False) -> str:
    """Return the SQL for a time after a limit, or not before it."""
    sign = ">=" if or_at else ">"
    with_blank = f"replace(substr({limit}, 1, 19), 'T', ' ')"
    return f"({column} {sign} {limit} OR ({column} {sign} {with_blank} AND {column} < substr({limit}, 1, 10) || ' ~'))"
