"""The capabilities of versions, kept by content digest: finding them takes milliseconds for each version."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping

import msgspec

from atom_saas_sync import __version__
from atom_saas_sync.core.gate.facts import Fact

_decode = msgspec.json.Decoder(frozenset[Fact]).decode


def kept_facts(connection: sqlite3.Connection, digests: Iterable[bytes]) -> dict[bytes, frozenset[Fact]]:
    """Return what is kept of these digests. What another version of this program has found does not count."""
    found = {}
    for digest in digests:
        row = connection.execute(
            "SELECT facts FROM gate_facts WHERE content_digest = ? AND program = ?", (digest, __version__)
        ).fetchone()
        if row is not None:
            found[digest] = _decode(row[0])
    return found


def keep_facts(connection: sqlite3.Connection, found: Mapping[bytes, frozenset[Fact]]) -> None:
    """Keep facts, and forget those of versions that are neither offered nor served any more."""
    connection.execute(
        "DELETE FROM gate_facts WHERE content_digest NOT IN "
        "(SELECT content_digest FROM skill_offer UNION ALL SELECT content_digest FROM skill_base)"
    )
    connection.executemany(
        "INSERT OR REPLACE INTO gate_facts (content_digest, program, facts) VALUES (?, ?, ?)",
        [(digest, __version__, msgspec.json.encode(sorted(facts)).decode()) for digest, facts in found.items()],
    )
