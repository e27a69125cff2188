"""Stored counters behind the metrics: incremented in the transaction that did the work, never lowered (rule 8)."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping

from atom_saas_sync.model import COUNTERS, DURATION, DURATION_BUCKETS


def increment(connection: sqlite3.Connection, name: str, value: float = 1, **labels: str) -> None:
    """Add `value` to the counter `name` with these labels; nothing is written for zero.

    Raises ValueError if the registry (model.COUNTERS) does not know this counter or a label or value of it: a bug.
    """
    _check(name, labels)
    if value == 0:
        return
    connection.execute(
        "INSERT INTO counter (name, labels, value) VALUES (?, ?, ?) "
        "ON CONFLICT (name, labels) DO UPDATE SET value = value + excluded.value",
        (name, json.dumps(labels, sort_keys=True), value),
    )


def read_counters(connection: sqlite3.Connection) -> dict[tuple[str, str], float]:
    """Return the values by name and labels, which are JSON text as any version has written it."""
    rows = connection.execute("SELECT name, labels, value FROM counter WHERE typeof(value) IN ('real', 'integer')")
    return {(name, labels): value for name, labels, value in rows}


def observe_duration(connection: sqlite3.Connection, seconds: float, *, run_type: str) -> None:
    """Count one run of `seconds` in the histogram of durations; buckets are stored one by one, not cumulative."""
    bound = next((bound for bound in DURATION_BUCKETS if seconds <= bound), None)
    bucket = "+Inf" if bound is None else str(bound)
    increment(connection, f"{DURATION}_bucket", type=run_type, le=bucket)
    increment(connection, f"{DURATION}_sum", seconds, type=run_type)


def _check(name: str, labels: Mapping[str, str]) -> None:
    counter = COUNTERS.get(name)
    if counter is None:
        raise ValueError(f"unknown counter {name!r}: add it to model.COUNTERS")
    if labels.keys() != set(counter.labels):
        raise ValueError(f"counter {name} has the labels {counter.labels}, not {tuple(labels)}")
    for place, label in enumerate(counter.labels):
        known = (value for group in counter.known for value in group[place])
        if label not in counter.open_labels and labels[label] not in known:
            raise ValueError(f"counter {name}: unknown value {labels[label]!r} of the label {label}")


def count_requests(connection: sqlite3.Connection, requests: dict[tuple[str, str], int]) -> None:
    """Add to the counters of requests by (endpoint, code)."""
    for (endpoint, code), number in requests.items():
        increment(connection, "atom_saas_api_requests_total", number, endpoint=endpoint, code=code)
