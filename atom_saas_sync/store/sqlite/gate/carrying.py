"""Carry decisions made since a backup over into the restored database."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime

from atom_saas_sync.core.gate.types import Revocations
from atom_saas_sync.core.plan.offered import plan_quarantine
from atom_saas_sync.core.signing import Signer
from atom_saas_sync.store.sqlite.batch import Batch
from atom_saas_sync.store.sqlite.bulk import bulk_write
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.store.sqlite.gate import people, serving
from atom_saas_sync.store.sqlite.gate.verifying import ServedSnapshot

# The current rows of these tables replace the restored ones.
_REPLACED = ("gate_revocation", "gate_pin")
# These tables are append-only: missing rows are added, with new row ids.
_ADDED = {
    "gate_decision": ("skill_id", "content_digest", "kind", "at", "by"),
    "skill_seen": ("skill_id", "content_digest"),
    "gate_scan": ("content_digest",),
    "gate_quarantine": ("skill_id",),
}

Rows = Mapping[str, Sequence[Mapping[str, object]]]


def rows_to_carry(connection: sqlite3.Connection) -> Rows:
    """Return the rows of the gate's tables in a database of any revision; missing tables are left out."""
    there = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "gate_decision" not in there:
        return {}
    return {
        table: [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]  # noqa: S608 - our own names
        for table in (*_REPLACED, *_ADDED)
    }


def carry_over(rows: Rows, restored: Database, now: datetime, *, signer: Signer | None, actor: str) -> None:
    """Write these rows into a restored database, and remove what is revoked or in quarantine by now."""
    if not rows:
        return
    with restored.transaction() as connection, bulk_write(connection):
        for table in _REPLACED:
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 - our own names
            _insert(connection, table, rows[table])
        for table, key in _ADDED.items():
            same = " AND ".join(f"{column} IS :{column}" for column in key)
            new = [
                row
                for row in rows[table]
                if not connection.execute(f"SELECT 1 FROM {table} WHERE {same}", row).fetchone()  # noqa: S608
            ]
            _insert(connection, table, [{k: v for k, v in row.items() if k != "id"} for row in new])
        batch = Batch(connection, 1, signer=signer)
        _take_out(batch, connection, now, actor=actor)
        batch.finish()


def _take_out(batch: Batch, connection: sqlite3.Connection, now: datetime, *, actor: str) -> None:
    kept = people.quarantined(connection, None)
    revoked = set(serving.revoked_skills(connection, Revocations(tuple(people.revocations(connection)))))
    held = {each.skill_id for each in ServedSnapshot(connection, None).served(list(kept)) if each.is_quarantined}
    known = [each for each in batch.known({*revoked, *held}).values() if each.local_text is not None]
    offers = batch.gate.offers([each.skill_id for each in known])
    actions = [
        plan_quarantine(
            each,
            reason="revoked" if each.skill_id in revoked else "quarantined",
            by=actor,
            note="db restore",
            is_shown=each.skill_id in offers,
        )
        for each in known
    ]
    batch.apply(actions, now, actor=actor)
    # Keep the user, the reason and the text of that time.
    people.quarantine(connection, [each for each in kept.values() if each.skill_id in held])


def _insert(connection: sqlite3.Connection, table: str, rows: Sequence[Mapping[str, object]]) -> None:
    for row in rows:
        columns = ", ".join(row)
        values = ", ".join(f":{column}" for column in row)
        connection.execute(f"INSERT INTO {table} ({columns}) VALUES ({values})", row)  # noqa: S608 - our own columns
