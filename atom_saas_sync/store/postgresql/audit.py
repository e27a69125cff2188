"""The audit log: what users did, and what it replaced."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime

import psycopg

from atom_saas_sync.store.postgresql.rows import Row


def write_audit(
    connection: psycopg.Connection[Row],
    actor: str,
    action: str,
    subject: str,
    now: datetime,
    details: Mapping[str, object],
) -> None:
    """Record a user's action in the audit log."""
    write_audits(connection, actor, action, [(subject, details)], now)


def write_audits(
    connection: psycopg.Connection[Row],
    actor: str,
    action: str,
    entries: Iterable[tuple[str, Mapping[str, object]]],
    now: datetime,
) -> None:
    """Record a user's action on several subjects, each with its details."""
    rows = [(subject, json.dumps(details, sort_keys=True)) for subject, details in entries]
    connection.execute(
        "INSERT INTO audit_log (at, actor, action, subject, details) "
        "SELECT %s, %s, %s, * FROM unnest(%s::text[], %s::text[])",
        (now.replace(microsecond=0), actor, action, [row[0] for row in rows], [row[1] for row in rows]),
    )
