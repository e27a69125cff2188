"""Stored counters behind the metrics: incremented in the transaction that did the work, never lowered (rule 8)."""

from __future__ import annotations

import json
import sqlite3

from atom_saas_sync.model import DURATION_BUCKETS


def increment(connection: sqlite3.Connection, name: str, value: float = 1, **labels: str) -> None:
    """Add `value` to the counter `name` with these labels; nothing is written for zero."""
    if value == 0:
        return
    connection.execute(
        "INSERT INTO counter (name, labels, value) VALUES (?, ?, ?) "
        "ON CONFLICT (name, labels) DO UPDATE SET value = value + excluded.value",
        (name, json.dumps(labels, sort_keys=True), value),
    )


def observe_duration(connection: sqlite3.Connection, seconds: float, *, run_type: str) -> None:
    """Count one run of `seconds` in the histogram of durations; buckets are stored one by one, not cumulative."""
    bound = next((bound for bound in DURATION_BUCKETS if seconds <= bound), None)
    bucket = "+Inf" if bound is None else str(bound)
    increment(connection, "atom_saas_sync_duration_seconds_bucket", type=run_type, le=bucket)
    increment(connection, "atom_saas_sync_duration_seconds_sum", seconds, type=run_type)
