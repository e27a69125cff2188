"""The gate's transactions: judging offers, and users' decisions (usecases/ports/gate_desk.py)."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from atom_saas_sync.core.canonical import stored_version
from atom_saas_sync.core.signing import Signer
from atom_saas_sync.model import SkillVersion
from atom_saas_sync.store.sqlite.batch import Batch
from atom_saas_sync.store.sqlite.bulk import bulk_write
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.store.sqlite.gate.state import read_state
from atom_saas_sync.times import format_exact_time

if TYPE_CHECKING:
    from atom_saas_sync.core.gate.facts import Fact
    from atom_saas_sync.core.gate.stored import GateState

# Offers of skills with a base, and bases that replaced another version; with ?2 only if what can be executed differs.
# A version that was first seen before ?1 and admitted later does not count.
_CHANGED_SINCE = """
    SELECT count(*) FROM (
        SELECT o.skill_id FROM skill_offer AS o JOIN skill_base AS b ON b.skill_id = o.skill_id
        WHERE o.first_seen_at >= ?1 AND NOT (?2 AND o.exec_digest = b.exec_digest)
        UNION SELECT b.skill_id FROM skill_base AS b JOIN skill_seen AS former ON former.skill_id = b.skill_id
            AND former.content_digest = (
                SELECT content_digest FROM skill_seen AS s
                WHERE s.skill_id = b.skill_id AND s.content_digest != b.content_digest
                ORDER BY s.admitted_at DESC LIMIT 1)
        WHERE b.admitted_at >= ?1 AND b.admitted_by IS NOT 'adopted' AND NOT (?2 AND former.exec_digest = b.exec_digest)
            AND NOT EXISTS (SELECT 1 FROM skill_seen AS s WHERE s.skill_id = b.skill_id
                AND s.content_digest = b.content_digest AND coalesce(s.first_seen_at, s.seen_at) < ?1))
"""


class DecidingBatch(Batch):
    """One transaction in which offers are judged and decisions are applied."""

    def former_versions(self, skill_id: str) -> list[tuple[SkillVersion, bool]]:
        """Return the versions of a skill that were served, newest first, and whether each is the base.

        Texts that do not match their digest are left out: another program changed them.
        """
        from atom_saas_sync.store.sqlite.history import versions_of

        return [
            (version, each.number is None)
            for each in versions_of(self._connection, skill_id, admitted=True)
            if (version := stored_version(skill_id, each.text)) and version.content_digest == each.content_digest
        ]

    def known_ids(self, skill_ids: Collection[str]) -> set[str]:
        """Return those of these ids for which anything is stored."""
        tables = ("skill_cache", "skill_base", "skill_offer", "gate_pin", "gate_quarantine")
        some = " OR ".join(f"EXISTS (SELECT 1 FROM {each} WHERE skill_id = wanted.value)" for each in tables)  # noqa: S608 - constants
        rows = self._connection.execute(
            f"SELECT wanted.value FROM json_each(?) AS wanted WHERE {some}",  # noqa: S608 - constants
            (json.dumps(list(skill_ids)),),
        )
        return {row[0] for row in rows}

    def digests_like(self, digits: str) -> list[bytes]:
        """Return, sorted, the content digests ever seen here with this hexadecimal prefix."""
        tables = ("skill_base", "skill_offer", "skill_seen", "skill_version", "gate_decision", "gate_quarantine")
        all_of_them = " UNION ".join(f"SELECT content_digest FROM {each}" for each in tables)  # noqa: S608 - constants
        rows = self._connection.execute(
            f"SELECT content_digest FROM ({all_of_them}) WHERE lower(hex(content_digest)) LIKE ? || '%'",  # noqa: S608 - constants
            (digits.lower(),),
        )
        return sorted(row[0] for row in rows)

    def ids_to_scan(self) -> list[str]:
        """Return, sorted, the skills whose offer waits for a scan, without a stored result."""
        rows = self._connection.execute(
            "SELECT skill_id FROM skill_offer AS o WHERE kind = 'hold' AND reason = 'scan' AND NOT EXISTS "
            "(SELECT 1 FROM gate_scan AS s WHERE s.content_digest = o.content_digest) ORDER BY skill_id"
        )
        return [row[0] for row in rows]

    def served_ids(self) -> list[str]:
        """Return, sorted, all skills in the cache."""
        return [row[0] for row in self._connection.execute("SELECT skill_id FROM skill_cache ORDER BY skill_id")]

    def kept_facts(self, digests: Collection[bytes]) -> dict[bytes, frozenset[Fact]]:
        """Return what is kept of the capabilities of these content digests."""
        from atom_saas_sync.store.sqlite.gate import facts

        return facts.kept_facts(self._connection, digests)

    def keep_facts(self, found: Mapping[bytes, frozenset[Fact]]) -> None:
        """Keep the capabilities of versions, by content digest."""
        from atom_saas_sync.store.sqlite.gate import facts

        facts.keep_facts(self._connection, found)

    def changed_since(self, moment: datetime, *, executable: bool) -> int:
        """Return the number of marketplace skills with a new version first seen since `moment`."""
        values = format_exact_time(moment), executable
        number: int = self._connection.execute(_CHANGED_SINCE, values).fetchone()[0]
        return number


class GateDatabase:
    """Opens the transactions of the gate."""

    def __init__(self, database: Database, *, history_versions: int, signer: Signer | None = None) -> None:
        self._database = database
        self._history_versions = history_versions
        self._signer = signer

    @contextmanager
    def deciding(self, *, write: bool = True) -> Iterator[DecidingBatch]:
        """Open a transaction; without `write`, a snapshot whose changes are discarded."""
        if not write:
            with self._database.reading() as connection:
                yield DecidingBatch(connection, self._history_versions, write=False, signer=self._signer)
            return
        with self._database.transaction() as connection, bulk_write(connection):
            batch = DecidingBatch(connection, self._history_versions, signer=self._signer)
            yield batch
            batch.finish()

    def state(self) -> GateState:
        """Return what the gate of a run is loaded from."""
        with self._database.reading() as connection:
            return read_state(connection)

    def version(self) -> int:
        """Return a value that changes when another connection writes to the database."""
        number: int = self._database.connection.execute("PRAGMA data_version").fetchone()[0]
        return number
