"""Suggestions for shell completion from the database: ids and names with a prefix."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from atom_saas_sync.core.server_address import ServerAddress
from atom_saas_sync.errors import AtomSyncError
from atom_saas_sync.store.postgresql.connection import Connection

_MOST = 200
_CONNECT_SECONDS = "2"
_WAIT = "SET LOCAL statement_timeout = '50ms'"
_ABOVE = "\U0010ffff"


class _Source(NamedTuple):
    """Where values of a kind are, and their meaning; text ids in order, numbers with the last first."""

    value: str
    meaning: str
    table: str
    condition: str = "true"

    def statement(self) -> str:
        key, order = (self.value, self.value) if self.value != "id" else ('id::text COLLATE "C"', "id DESC")
        return (
            f"SELECT {self.value} AS value, {self.meaning} AS meaning FROM {self.table} "  # noqa: S608 - constants
            f"WHERE {self.condition} AND ({key}) >= %(first)s AND ({key}) < %(end)s ORDER BY {order} LIMIT {_MOST}"
        )


_CONFLICT = "skill_id || ' ' || conflict_type"
_JUDGED = """
    (SELECT skill_id FROM skill_cache UNION SELECT skill_id FROM skill_offer UNION SELECT skill_id FROM gate_quarantine)
    AS judged
"""
_REVOCATION = """
    coalesce(skill_id || ' ', '') || coalesce(version, '') || coalesce(left(encode(digest, 'hex'), 12), '')
    || coalesce(publisher, '')
"""
_SOURCES = {
    "skill": _Source("skill_id", "atom_sync_field(skill_data, 'name')", "skill_cache"),
    "category": _Source("category_name", "NULL::text", "category_cache"),
    "conflict": _Source("id", _CONFLICT, "conflict_log", "NOT resolved"),
    "resolved conflict": _Source("id", _CONFLICT, "conflict_log", "resolved"),
    "waiting": _Source("skill_id", "reason", "skill_offer", "kind = 'hold'"),
    "pinned": _Source("skill_id", "version", "gate_pin"),
    "quarantined": _Source("skill_id", "reason", "gate_quarantine"),
    "judged": _Source("skill_id", "NULL::text", _JUDGED),
    "revocation": _Source("id", _REVOCATION, "gate_revocation", "source = 'command'"),
    "rating": _Source("id", "skill_id || ' ' || rating", "skill_ratings"),
    "run": _Source("id", "kind || ' ' || to_char(started_at, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')", "sync_run"),
}


def suggestions(address: ServerAddress, kind: str, prefix: str) -> list[tuple[str, str]]:
    """Return values of this kind that begin with `prefix`, each with its meaning.

    At most 200, within 50 ms of a connection, which must be there within 2 s. Empty if there are none, or if the server
    is slow or cannot be reached.
    """
    address = replace(address, options={**address.options, "connect_timeout": _CONNECT_SECONDS})
    values = {"first": prefix, "end": prefix + _ABOVE}
    try:
        with Connection(address, busy_timeout_seconds=1, writes=False) as database, database.reading() as connection:
            connection.execute(_WAIT)
            rows = connection.execute(_SOURCES[kind].statement(), values).fetchall()
    except AtomSyncError:
        return []
    return [(str(value), meaning or "") for value, meaning in rows]
