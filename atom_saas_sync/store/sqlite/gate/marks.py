"""The gate's marks between runs, stored as facts."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from atom_saas_sync.core.gate.stored import Marks
from atom_saas_sync.store.names import REVOCATIONS_BROKEN
from atom_saas_sync.store.sqlite.runs import set_fact
from atom_saas_sync.times import format_exact_time, parse_time

_POLICY, _JUDGED, _CLOCK = "gate_policy", "gate_judged", "gate_clock"
_MARKS = "SELECT name, CAST(value AS TEXT) FROM fact WHERE name IN (?, ?, ?, ?)"


def read_marks(connection: sqlite3.Connection) -> Marks:
    """Return the stored marks. Invalid values from other programs count as absent."""
    facts = dict(connection.execute(_MARKS, (_POLICY, _JUDGED, _CLOCK, REVOCATIONS_BROKEN)).fetchall())
    try:
        fingerprint = bytes.fromhex(facts.get(_JUDGED) or "") or None
    except ValueError:
        fingerprint = None
    broken = facts.get(REVOCATIONS_BROKEN)
    return Marks(
        policy=facts.get(_POLICY),
        judged=fingerprint,
        clock=parse_time(facts.get(_CLOCK)),
        revocations_broken=None if broken is None else broken == "1",
    )


def write_marks(connection: sqlite3.Connection, marks: Marks, now: datetime) -> None:
    """Store these marks; None leaves a mark unchanged."""
    if marks.policy is not None:
        set_fact(connection, _POLICY, marks.policy, now)
    if marks.judged is not None:
        set_fact(connection, _JUDGED, marks.judged.hex(), now)
    if marks.clock is not None:
        set_fact(connection, _CLOCK, format_exact_time(marks.clock), now)
    if marks.revocations_broken is not None:
        set_fact(connection, REVOCATIONS_BROKEN, str(int(marks.revocations_broken)), now)
