"""The gate's transactions: judging offers, and users' decisions (usecases/ports/gate_desk.py)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime

from atom_saas_sync.core.canonical import stored_version
from atom_saas_sync.core.gate.facts import Fact
from atom_saas_sync.core.gate.stored import GateState
from atom_saas_sync.core.signing import Signer
from atom_saas_sync.model import SkillVersion
from atom_saas_sync.store.postgresql.batch import Batch
from atom_saas_sync.store.postgresql.database import Database
from atom_saas_sync.store.postgresql.gate import facts, marks, people
from atom_saas_sync.store.postgresql.history import versions_of

# Offers for skills with a base, and bases that replaced another version; `executable`: only if the exec digest differs.
# A version that was first seen earlier and admitted later is not a current change.
_CHANGED_SINCE = """
    SELECT count(*) FROM (
        SELECT o.skill_id FROM skill_offer AS o JOIN skill_base AS b ON b.skill_id = o.skill_id
        WHERE o.first_seen_at >= %(since)s AND NOT (%(executable)s AND o.exec_digest = b.exec_digest)
        UNION SELECT b.skill_id FROM skill_base AS b JOIN LATERAL (
            SELECT s.exec_digest FROM skill_seen AS s
            WHERE s.skill_id = b.skill_id AND s.content_digest <> b.content_digest
            ORDER BY s.admitted_at DESC NULLS LAST LIMIT 1) AS former ON true
        WHERE b.admitted_at >= %(since)s AND b.admitted_by IS DISTINCT FROM 'adopted'
            AND NOT (%(executable)s AND former.exec_digest = b.exec_digest)
            AND NOT EXISTS (SELECT FROM skill_seen AS s WHERE s.skill_id = b.skill_id
                AND s.content_digest = b.content_digest AND coalesce(s.first_seen_at, s.seen_at) < %(since)s)
    ) AS changed
"""
# Whether the gate has anything to look at, and whether a sync of the skills has ever succeeded.
_STANDING = """
    SELECT EXISTS (SELECT FROM skill_offer) OR EXISTS (SELECT FROM gate_decision)
            OR EXISTS (SELECT FROM gate_pin) OR EXISTS (SELECT FROM gate_quarantine),
        EXISTS (SELECT FROM sync_state WHERE last_successful_sync_at IS NOT NULL)
"""
# Inserted, changed and deleted rows: of the gate's tables, and those that other programs wrote into the cache.
_WATCHED = ("gate_decision", "gate_pin", "gate_revocation", "gate_quarantine", "gate_scan", "skill_due")
_VERSION = " UNION ALL ".join(
    f"SELECT count(*), max(xmin::text::bigint) FROM {rows}"  # noqa: S608 - constants
    for rows in (*_WATCHED, "fact WHERE starts_with(name, 'gate')")
)


class DecidingBatch(Batch):
    """One transaction in which offers are judged and decisions are applied."""

    def former_versions(self, skill_id: str) -> list[tuple[SkillVersion, bool]]:
        """Return the versions of a skill that were served, newest first, and whether each is the base.

        Texts that do not match their digest are left out: another program changed them.
        """
        return [
            (version, each.number is None)
            for each in versions_of(self._connection, skill_id, admitted=True)
            if (version := stored_version(skill_id, each.text)) and version.content_digest == each.content_digest
        ]

    def known_ids(self, skill_ids: Collection[str]) -> set[str]:
        """Return the known ones of these ids."""
        tables = ("skill_cache", "skill_base", "skill_offer", "gate_pin", "gate_quarantine")
        some = " OR ".join(f"EXISTS (SELECT FROM {each} WHERE skill_id = wanted.skill_id)" for each in tables)
        rows = self._connection.execute(
            f"SELECT wanted.skill_id FROM unnest(%s::text[]) AS wanted (skill_id) WHERE {some}",  # noqa: S608 - constants
            (list(skill_ids),),
        )
        return {row[0] for row in rows}

    def digests_like(self, digits: str) -> list[bytes]:
        """Return, sorted, the content digests ever seen here with this hexadecimal prefix."""
        tables = ("skill_base", "skill_offer", "skill_seen", "skill_version", "gate_decision", "gate_quarantine")
        all_of_them = " UNION ".join(f"SELECT content_digest FROM {each}" for each in tables)  # noqa: S608 - constants
        rows = self._connection.execute(
            f"SELECT content_digest FROM ({all_of_them}) AS seen WHERE starts_with(encode(content_digest, 'hex'), %s)",  # noqa: S608 - constants
            (digits.lower(),),
        )
        return sorted(row[0] for row in rows)

    def ids_to_scan(self) -> list[str]:
        """Return, sorted, the skills whose offer waits for a scan, without a stored result."""
        rows = self._connection.execute(
            "SELECT skill_id FROM skill_offer AS o WHERE kind = 'hold' AND reason = 'scan' AND NOT EXISTS "
            "(SELECT FROM gate_scan AS s WHERE s.content_digest = o.content_digest) ORDER BY skill_id"
        )
        return [row[0] for row in rows]

    def served_ids(self) -> list[str]:
        """Return, sorted, all skills in the cache."""
        return [row[0] for row in self._connection.execute("SELECT skill_id FROM skill_cache ORDER BY skill_id")]

    def kept_facts(self, digests: Collection[bytes]) -> dict[bytes, frozenset[Fact]]:
        """Return the stored capabilities of these content digests."""
        return facts.kept_facts(self._connection, digests)

    def keep_facts(self, found: Mapping[bytes, frozenset[Fact]]) -> None:
        """Store the capabilities of versions, by content digest."""
        facts.keep_facts(self._connection, found)

    def changed_since(self, moment: datetime, *, executable: bool) -> int:
        """Return the number of marketplace skills with a new version first seen since `moment`."""
        row = self._connection.execute(_CHANGED_SINCE, {"since": moment, "executable": executable}).fetchone()
        assert row is not None
        return int(row[0])


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
        with self._database.transaction(bulk=True) as connection:
            batch = DecidingBatch(connection, self._history_versions, signer=self._signer)
            yield batch
            batch.finish()
            self._database.notifications.send(connection, batch.changes, in_run=False)

    def state(self) -> GateState:
        """Return what the gate of a run is loaded from."""
        with self._database.reading() as connection:
            row = connection.execute(_STANDING).fetchone()
            assert row is not None
            return GateState(tuple(people.revocations(connection)), marks.read_marks(connection), *row)

    def version(self) -> object:
        """Return a value that changes when another connection writes data that the gate reads."""
        with self._database.reading() as connection:
            return [tuple(row) for row in connection.execute(_VERSION)]
