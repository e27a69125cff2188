"""Stored counters behind the metrics: incremented in the transaction that did the work, never lowered (rule 8)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import psycopg

from atom_saas_sync.store.counting import durations, labels_text
from atom_saas_sync.store.postgresql.rows import Row

# Another program may have stored infinity or NaN: neither is a valid count. PostgreSQL sorts NaN above all numbers.
READ = "SELECT name, labels, value FROM counter WHERE value > '-Infinity' AND value < 'Infinity'"

Counted = tuple[str, float, Mapping[str, str]]
"""The name of a counter, its increment and its labels."""


def increment(connection: psycopg.Connection[Row], name: str, value: float = 1, **labels: str) -> None:
    """Add `value` to the counter `name` with these labels; nothing is written for zero."""
    increment_all(connection, [(name, value, labels)])


def increment_all(connection: psycopg.Connection[Row], counted: Iterable[Counted]) -> None:
    """Add to several counters in one statement; nothing is written for zero.

    Raises ValueError for a counter, label or value that is not in the registry (model.COUNTERS): a bug.
    """
    sums: dict[tuple[str, str], float] = {}
    for name, value, labels in counted:
        key = name, labels_text(name, labels)
        sums[key] = sums.get(key, 0) + value
    added = [(name, labels, float(value)) for (name, labels), value in sorted(sums.items()) if value]
    if not added:
        return
    names, texts, values = (list(column) for column in zip(*added, strict=True))
    connection.execute(
        "INSERT INTO counter AS c (name, labels, value) "
        "SELECT * FROM unnest(%b::text[], %b::text[], %b::double precision[]) "
        "ON CONFLICT (name, labels) DO UPDATE "
        "SET value = CASE WHEN c.value < 'Infinity' THEN c.value ELSE 0 END + excluded.value",
        (names, texts, values),
    )


def read_counters(connection: psycopg.Connection[Row]) -> dict[tuple[str, str], float]:
    """Return the values by name and labels, which are JSON text as any version has written it."""
    rows = connection.execute(READ).fetchall()
    return {(name, labels): value for name, labels, value in rows}


def observe_duration(connection: psycopg.Connection[Row], seconds: float, *, run_type: str) -> None:
    """Count one run of `seconds` in the histogram of durations."""
    increment_all(connection, durations(seconds, run_type=run_type))


def count_requests(connection: psycopg.Connection[Row], requests: Mapping[tuple[str, str], int]) -> None:
    """Add to the counters of requests by (endpoint, code)."""
    increment_all(connection, requests_counted(requests))


def requests_counted(requests: Mapping[tuple[str, str], int]) -> list[Counted]:
    """Return the increments for requests, by (endpoint, code)."""
    return [
        ("atom_saas_api_requests_total", number, {"endpoint": endpoint, "code": code})
        for (endpoint, code), number in requests.items()
    ]
