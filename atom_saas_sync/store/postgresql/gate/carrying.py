"""Carry decisions made since a backup over into what was restored from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import psycopg
from psycopg import sql

from atom_saas_sync.core.gate.types import Revocations
from atom_saas_sync.core.plan.offered import plan_quarantine
from atom_saas_sync.core.signing import Signer
from atom_saas_sync.store.names import MARKETPLACE
from atom_saas_sync.store.postgresql.batch import Batch
from atom_saas_sync.store.postgresql.facts import get_fact
from atom_saas_sync.store.postgresql.gate import people, serving
from atom_saas_sync.store.postgresql.gate.verifying import ServedSnapshot
from atom_saas_sync.store.postgresql.rows import Row

# The current rows of these tables replace the restored ones.
_REPLACED = ("gate_revocation", "gate_pin")
# These tables are append-only: missing rows are added, with new row ids.
_ADDED = {
    "gate_decision": ("skill_id", "content_digest", "kind", "at", "by"),
    "skill_seen": ("skill_id", "content_digest"),
    "gate_scan": ("content_digest",),
    "gate_quarantine": ("skill_id",),
}

Rows = Mapping[str, Sequence[Row]]


def rows_to_carry(connection: psycopg.Connection[Row]) -> Rows:
    """Return the current rows of the gate's tables; nothing for a database that was never used."""
    rows = {
        table: connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table))).fetchall()
        for table in (*_REPLACED, *_ADDED)
    }
    return rows if any(rows.values()) or get_fact(connection, MARKETPLACE) is not None else {}


def carry_over(
    rows: Rows, connection: psycopg.Connection[Row], now: datetime, *, signer: Signer | None, actor: str
) -> None:
    """Write these rows beside the restored ones, and remove what is revoked or in quarantine by now."""
    if not rows:
        return
    for table in _REPLACED:
        connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))
        _insert(connection, table, [dict(row.items()) for row in rows[table]])
    # The restored numbers of revocations may lie below the current ones.
    connection.execute(
        "SELECT setval(pg_get_serial_sequence('gate_revocation', 'id'), max(id)) FROM gate_revocation "
        "HAVING count(*) > 0"
    )
    for table, key in _ADDED.items():
        columns = sql.SQL(", ").join(map(sql.Identifier, key))
        found = connection.execute(sql.SQL("SELECT {} FROM {}").format(columns, sql.Identifier(table)))
        there = {tuple(row) for row in found}
        new = [dict(row.items()) for row in rows[table] if tuple(row[name] for name in key) not in there]
        _insert(connection, table, [{name: value for name, value in row.items() if name != "id"} for row in new])
    batch = Batch(connection, 1, signer=signer)
    _take_out(batch, connection, now, actor=actor)
    batch.finish()


def _take_out(batch: Batch, connection: psycopg.Connection[Row], now: datetime, *, actor: str) -> None:
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


def _insert(connection: psycopg.Connection[Row], table: str, rows: Sequence[Mapping[str, object]]) -> None:
    if not rows:
        return
    statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
        sql.Identifier(table),
        sql.SQL(", ").join(map(sql.Identifier, rows[0])),
        sql.SQL(", ").join(sql.Placeholder() * len(rows[0])),
    )
    with connection.cursor() as cursor:
        cursor.executemany(statement, [tuple(row.values()) for row in rows])
