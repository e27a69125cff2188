"""The audit log: what users did, and what it replaced."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from datetime import datetime

from atom_saas_sync.times import format_time


def write_audit(
    connection: sqlite3.Connection, actor: str, action: str, subject: str, now: datetime, details: Mapping[str, object]
) -> None:
    """Record a user's action in the audit log."""
    connection.execute(
        "INSERT INTO audit_log (at, actor, action, subject, details) VALUES (?, ?, ?, ?, ?)",
        (format_time(now), actor, action, subject, json.dumps(details, sort_keys=True)),
    )
