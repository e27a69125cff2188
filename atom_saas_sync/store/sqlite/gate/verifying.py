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

_SERVED = """
    SELECT c.skill_id, CAST(c.skill_data AS BLOB), CAST(b.data AS BLOB), CAST(b.wire_digest AS BLOB),
        CAST(b.content_digest AS BLOB), CAST(b.exec_digest AS BLOB), CAST(b.version AS TEXT),
        substr(b.admitted_at, 1, 19) || 'Z',
        CASE WHEN b.skill_id IS NOT NULL THEN coalesce(b.admitted_by, 'policy') END,
        CAST(b.signature AS BLOB), o.skill_id IS NOT NULL,
        coalesce(q.reason = 'quarantined' OR q.skill_data = c.skill_data OR q.content_digest = b.content_digest, 0),
        coalesce(max(b.confirmed_at, coalesce(v.checked_at, '')), '9')
            < strftime('%Y-%m-%dT%H:%M:%SZ', 'now', '-24 hours')
    FROM {rows}
    LEFT JOIN skill_base AS b ON b.skill_id = c.skill_id
    LEFT JOIN http_validator AS v ON v.page = b.page
    LEFT JOIN skill_offer AS o ON o.skill_id = c.skill_id AND o.kind = 'hold'
    LEFT JOIN gate_quarantine AS q ON q.skill_id = c.skill_id
    WHERE b.deleted_at IS NULL
"""
_ALL = _SERVED.format(rows="skill_cache AS c")
_SOME = _SERVED.format(rows="json_each(?) AS wanted CROSS JOIN skill_cache AS c ON c.skill_id = wanted.value")

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
        rows = (
            self._connection.execute(_ALL)
            if skill_ids is None
            else self._connection.execute(_SOME, (json.dumps(skill_ids),))
        )
        for row in rows:
            yield self._skill(*row)

    def _skill(
        self,
        skill_id: str,
        text: bytes,
        base_text: bytes | None,
        wire: bytes | None,
        content: bytes | None,
        executable: bytes | None,
        version: str | None,
        admitted_at: str | None,
        admitted_by: str | None,
        signature: bytes | None,
        *marks: int,
    ) -> ServedSkill:
        forged = False
        if self._signer is not None and content is not None and executable is not None:
            forged = self._signer.is_forged(signature, skill_id, version or "", content, executable)
        waiting, quarantined, stale = map(bool, marks)
        return ServedSkill(
            skill_id,
            text,
            base_text,
            wire,
            content,
            executable,
            version,
            admitted_at,
            admitted_by,
            forged,
            waiting,
            quarantined,
            stale,
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
