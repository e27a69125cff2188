"""Stored counters behind the metrics: incremented in the transaction that did the work, never lowered (rule 8)."""

from __future__ import annotations

import sqlite3

from atom_saas_sync.store.counting import durations, labels_text


def increment(connection: sqlite3.Connection, name: str, value: float = 1, **labels: str) -> None:
    """Add `value` to the counter `name` with these labels; nothing is written for zero.

    Raises ValueError if the registry (model.COUNTERS) does not know this counter or a label or value of it: a bug.
    """
    text = labels_text(name, labels)
    if value == 0:
        return
    connection.execute(
        "INSERT INTO counter (name, labels, value) VALUES (?, ?, ?) "
        "ON CONFLICT (name, labels) DO UPDATE SET value = value + excluded.value",
        (name, text, value),
    )


def read_counters(connection: sqlite3.Connection) -> dict[tuple[str, str], float]:
    """Return the values by name and labels, which are JSON text as any version has written it."""
    rows = connection.execute("SELECT name, labels, value FROM counter WHERE typeof(value) IN ('real', 'integer')")
    return {(name, labels): value for name, labels, value in rows}


def observe_duration(connection: sqlite3.Connection, seconds: float, *, run_type: str) -> None:
    """Count one run of `seconds` in the histogram of durations."""
    for name, value, labels in durations(seconds, run_type=run_type):
        increment(connection, name, value, **labels)


def count_requests(connection: sqlite3.Connection, requests: dict[tuple[str, str], int]) -> None:
    """Add to the counters of requests by (endpoint, code)."""
    for (endpoint, code), number in requests.items():
        increment(connection, "atom_saas_api_requests_total", number, endpoint=endpoint, code=code)
