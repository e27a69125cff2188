"""The checks of `db check` on the gate's tables."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg

from atom_saas_sync.store.postgresql.gate.verifying import ServedSnapshot
from atom_saas_sync.store.postgresql.rows import Row


def kept_out(connection: psycopg.Connection[Row]) -> Iterator[tuple[str, str]]:
    """Yield each cached skill that is revoked or in quarantine, and which of the two."""
    snapshot = ServedSnapshot(connection, None)
    revocations = snapshot.revocations()
    revoked = set(snapshot.revoked_skills(revocations)) if revocations.entries else set()
    yield from ((skill_id, "revoked") for skill_id in sorted(revoked))
    rows = connection.execute("SELECT skill_id FROM gate_quarantine ORDER BY skill_id").fetchall()
    for each in snapshot.served([row[0] for row in rows]):
        if each.is_quarantined and each.skill_id not in revoked:
            yield each.skill_id, "quarantined"
