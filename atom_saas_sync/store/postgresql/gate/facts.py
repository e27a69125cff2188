"""The capabilities of versions, stored by content digest: finding them takes milliseconds for each version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
import psycopg

from atom_saas_sync import __version__
from atom_saas_sync.core.gate.facts import Fact
from atom_saas_sync.store.postgresql.rows import Row

_decode = msgspec.json.Decoder(frozenset[Fact]).decode


def kept_facts(connection: psycopg.Connection[Row], digests: Iterable[bytes]) -> dict[bytes, frozenset[Fact]]:
    """Return the stored capabilities of these digests; those found by another version of this program do not count."""
    rows = connection.execute(
        "SELECT content_digest, facts FROM gate_facts WHERE content_digest = ANY(%s) AND program = %s",
        (list(digests), __version__),
    )
    return {digest: _decode(facts) for digest, facts in rows}


def keep_facts(connection: psycopg.Connection[Row], found: Mapping[bytes, frozenset[Fact]]) -> None:
    """Store capabilities, and delete those of versions that are no longer offered or served."""
    connection.execute(
        "DELETE FROM gate_facts AS f WHERE NOT EXISTS "
        "(SELECT FROM skill_offer AS o WHERE o.content_digest = f.content_digest) "
        "AND NOT EXISTS (SELECT FROM skill_base AS b WHERE b.content_digest = f.content_digest)"
    )
    connection.execute(
        "INSERT INTO gate_facts (content_digest, program, facts) "
        "SELECT digest, %s, facts FROM unnest(%s::bytea[], %s::text[]) AS new (digest, facts) "
        "ON CONFLICT (content_digest) DO UPDATE SET (program, facts) = (excluded.program, excluded.facts)",
        (__version__, list(found), [msgspec.json.encode(sorted(facts)).decode() for facts in found.values()]),
    )
