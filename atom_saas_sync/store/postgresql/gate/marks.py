"""The gate's marks between runs, stored as facts."""

from __future__ import annotations

from datetime import datetime

import psycopg

from atom_saas_sync.core.gate.stored import Marks
from atom_saas_sync.store.names import REVOCATIONS_BROKEN
from atom_saas_sync.store.postgresql.facts import get_facts, set_fact
from atom_saas_sync.store.postgresql.rows import Row
from atom_saas_sync.times import format_exact_time, parse_time

_POLICY, _JUDGED, _CLOCK = "gate_policy", "gate_judged", "gate_clock"


def read_marks(connection: psycopg.Connection[Row]) -> Marks:
    """Return the stored marks. Invalid values from other programs count as absent."""
    facts = get_facts(connection, (_POLICY, _JUDGED, _CLOCK, REVOCATIONS_BROKEN))
    try:
        fingerprint = bytes.fromhex(facts.get(_JUDGED, "")) or None
    except ValueError:
        fingerprint = None
    broken = facts.get(REVOCATIONS_BROKEN)
    return Marks(
        policy=facts.get(_POLICY),
        judged=fingerprint,
        clock=parse_time(facts.get(_CLOCK)),
        revocations_broken=None if broken is None else broken == "1",
    )


def write_marks(connection: psycopg.Connection[Row], marks: Marks, now: datetime) -> None:
    """Store these marks; None leaves a mark unchanged."""
    if marks.policy is not None:
        set_fact(connection, _POLICY, marks.policy, now)
    if marks.judged is not None:
        set_fact(connection, _JUDGED, marks.judged.hex(), now)
    if marks.clock is not None:
        set_fact(connection, _CLOCK, format_exact_time(marks.clock), now)
    if marks.revocations_broken is not None:
        set_fact(connection, REVOCATIONS_BROKEN, str(int(marks.revocations_broken)), now)
