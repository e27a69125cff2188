"""What is copied from one database to another, between any engines.

Rows are exchanged in SQLite's form: times as text, flags as 0 or 1. Both engines use the same names of tables and
columns.
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
"""All our tables, each after those that its foreign keys refer to."""

STATES = frozenset({"sync_state", "websocket_state"})
"""Tables with a single row, which a migration inserts."""

EXACT = {
    "skill_base": {"admitted_at"},
    "skill_seen": {"seen_at", "first_seen_at", "admitted_at"},
    "last_message": {"sent_at", "applied_at"},
    "skill_offer": {"due_at", "first_seen_at", "offered_at"},
    "gate_decision": {"at"},
}
"""The columns with microseconds; all other times are whole seconds."""


class Checksum:
    """A checksum of rows, independent of their order."""

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
