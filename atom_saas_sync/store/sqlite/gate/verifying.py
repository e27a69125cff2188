"""Served skills for verification, including rows that the view hides."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from atom_saas_sync.core.gate.lock_file import ServedText
from atom_saas_sync.core.gate.stored import ServedSkill
from atom_saas_sync.core.gate.types import Quarantined, Revocations
from atom_saas_sync.core.signing import Signer
from atom_saas_sync.store.sqlite.database import Database
from atom_saas_sync.store.sqlite.gate import people

_DAY_AGO = "strftime('%Y-%m-%dT%H:%M:%SZ', 'now', '-24 hours')"

# Texts are read as bytes: Python's decoding of each one through the connection would cost as much as all the joins.
_SERVED = """
    SELECT CAST(c.skill_id AS BLOB), CAST(c.skill_data AS BLOB), CAST(b.data AS BLOB), CAST(b.wire_digest AS BLOB),
        CAST(b.content_digest AS BLOB), CAST(b.exec_digest AS BLOB), CAST(b.version AS BLOB),
        CAST(substr(b.admitted_at, 1, 19) AS BLOB),
        CASE WHEN b.skill_id IS NOT NULL THEN CAST(coalesce(b.admitted_by, 'policy') AS BLOB) END,
        CAST(b.signature AS BLOB),
        EXISTS (SELECT 1 FROM skill_offer AS o WHERE o.skill_id = c.skill_id AND o.kind = 'hold'),
        EXISTS (
            SELECT 1 FROM gate_quarantine AS q WHERE q.skill_id = c.skill_id
            AND (q.reason = 'quarantined' OR q.skill_data = c.skill_data OR q.content_digest = b.content_digest)
        ),
        b.confirmed_at < {day_ago} AND NOT EXISTS (
            SELECT 1 FROM http_validator AS v WHERE v.page = b.page AND v.checked_at >= {day_ago}
        )
    FROM {rows}
    LEFT JOIN skill_base AS b ON b.skill_id = c.skill_id
    WHERE b.deleted_at IS NULL
"""
_ALL = _SERVED.format(rows="skill_cache AS c", day_ago=_DAY_AGO)
_SOME = _SERVED.format(
    rows="json_each(?) AS wanted CROSS JOIN skill_cache AS c ON c.skill_id = wanted.value", day_ago=_DAY_AGO
)

# The rows that readers of the view see.
_TEXTS = """
    SELECT u.skill_id, CAST(u.skill_data AS TEXT), u.source, b.wire_digest, b.content_digest, b.exec_digest
    FROM usable_skill AS u LEFT JOIN skill_base AS b ON b.skill_id = u.skill_id
"""


class ServedSnapshot:
    """One snapshot of what is served."""

    def __init__(self, connection: sqlite3.Connection, signer: Signer | None) -> None:
        self._connection = connection
        self._signer = signer

    def revocations(self) -> Revocations:
        """Return all revocations."""
        return Revocations(tuple(people.revocations(self._connection)))

    def revoked_skills(self, revocations: Revocations) -> list[str]:
        """Return the cached skills that are revoked."""
        from atom_saas_sync.store.sqlite.gate.serving import revoked_skills

        return revoked_skills(self._connection, revocations)

    def quarantined(self, skill_ids: Sequence[str]) -> dict[str, Quarantined]:
        """Return the quarantined ones of these skills."""
        return people.quarantined(self._connection, skill_ids)

    def served(self, skill_ids: Sequence[str] | None) -> Iterator[ServedSkill]:
        """Yield the cached rows of these skills, or all, in any order."""
        cursor = self._connection.cursor()
        cursor.row_factory = None  # plain tuples: wrapping 50,000 rows would take a tenth of the time
        rows = cursor.execute(_ALL) if skill_ids is None else cursor.execute(_SOME, (json.dumps(skill_ids),))
        for row in rows:
            yield self._skill(*row)

    def _skill(
        self,
        skill_id: bytes,
        text: bytes,
        base_text: bytes | None,
        wire: bytes | None,
        content: bytes | None,
        executable: bytes | None,
        version: bytes | None,
        admitted_at: bytes | None,
        admitted_by: bytes | None,
        signature: bytes | None,
        waiting: int,
        quarantined: int,
        stale: int | None,
    ) -> ServedSkill:
        name, number = skill_id.decode(errors="replace"), None if version is None else version.decode(errors="replace")
        forged = False
        if self._signer is not None and content is not None and executable is not None:
            forged = self._signer.is_forged(signature, name, number or "", content, executable)
        return ServedSkill(
            name,
            text,
            base_text,
            wire,
            content,
            executable,
            number,
            None if admitted_at is None else admitted_at.decode(errors="replace") + "Z",
            None if admitted_by is None else admitted_by.decode(errors="replace"),
            forged,
            bool(waiting),
            bool(quarantined),
            bool(stale),
        )


class Verifying:
    """Opens the snapshot in which served skills are verified."""

    def __init__(self, database: Database, signer: Signer | None = None) -> None:
        """Read from `database`; with a `signer`, forged signatures are detected."""
        self._database = database
        self._signer = signer

    @contextmanager
    def snapshot(self) -> Iterator[ServedSnapshot]:
        """Open a snapshot."""
        with self._database.reading() as connection:
            yield ServedSnapshot(connection, self._signer)

    def texts(self) -> Iterator[ServedText]:
        """Yield all that readers get, in one snapshot, in any order."""
        with self._database.reading() as connection:
            for row in connection.execute(_TEXTS):
                yield ServedText(*row)
