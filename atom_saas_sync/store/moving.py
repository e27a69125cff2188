"""What moves from one database to another, whichever engines they have.

A row on its way has SQLite's form: times as text, flags as 0 or 1. Names of tables and columns are the same in both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256

Value = str | int | float | bytes | None
MovedRow = Mapping[str, Value]

TABLES = (
    "skill_cache",
    "category_cache",
    "skill_base",
    "http_validator",
    "skill_seen",
    "skill_version",
    "deleted_edit",
    "conflict_log",
    "audit_log",
    "skill_ratings",
    "failed_rating_uploads",
    "skill_offer",
    "gate_decision",
    "gate_pin",
    "gate_revocation",
    "gate_quarantine",
    "gate_scan",
    "gate_facts",
    "sync_state",
    "websocket_state",
    "last_message",
    "sync_run",
    "counter",
    "request_budget",
    "fact",
    "scheduled_job",
)
"""All tables that hold something of ours: one that is referred to comes before those that refer to it."""

STATES = frozenset({"sync_state", "websocket_state"})
"""Tables of one row, which stands there from the start."""

EXACT = {
    "skill_base": {"admitted_at"},
    "skill_seen": {"seen_at", "first_seen_at", "admitted_at"},
    "last_message": {"sent_at", "applied_at"},
    "skill_offer": {"due_at", "first_seen_at", "offered_at"},
    "gate_decision": {"at"},
}
"""The times that are stored to the microsecond; all others are whole seconds."""


class Checksum:
    """What rows add up to, in any order."""

    def __init__(self) -> None:
        self._sum = 0
        self.rows = 0

    def add(self, values: Sequence[object]) -> None:
        """Add a row."""
        self._sum += int.from_bytes(sha256(repr(tuple(values)).encode(errors="surrogatepass")).digest())
        self.rows += 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Checksum) and (self._sum, self.rows) == (other._sum, other.rows)

    def __hash__(self) -> int:
        return hash((self._sum, self.rows))
