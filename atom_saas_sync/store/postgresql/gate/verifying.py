"""All cached skills to verify, including those that the view hides from readers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

import psycopg

from atom_saas_sync.core.gate.lock_file import ServedText
from atom_saas_sync.core.gate.stored import ServedSkill
from atom_saas_sync.core.gate.types import Quarantined, Revocations
from atom_saas_sync.core.signing import Signer
from atom_saas_sync.store.postgresql.database import Database
from atom_saas_sync.store.postgresql.gate import people
from atom_saas_sync.store.postgresql.rows import Row
from atom_saas_sync.times import time_text

_SERVED = """
    SELECT c.skill_id, c.skill_data, b.data, b.wire_digest, b.content_digest, b.exec_digest, b.version, b.admitted_at,
        CASE WHEN b.skill_id IS NOT NULL THEN coalesce(b.admitted_by, 'policy') END, b.signature,
        o.skill_id IS NOT NULL,
        coalesce(q.reason = 'quarantined' OR q.skill_data = c.skill_data OR q.content_digest = b.content_digest, false),
        coalesce(greatest(b.confirmed_at, v.checked_at) < now() - interval '24 hours', false)
    FROM skill_cache AS c
    LEFT JOIN skill_base AS b ON b.skill_id = c.skill_id
    LEFT JOIN http_validator AS v ON v.page = b.page
    LEFT JOIN skill_offer AS o ON o.skill_id = c.skill_id AND o.kind = 'hold'
    LEFT JOIN gate_quarantine AS q ON q.skill_id = c.skill_id
    WHERE b.deleted_at IS NULL
"""
_SOME = f"{_SERVED} AND c.skill_id = ANY(%s)"
_ROWS_AT_ONCE = 500

# The skills that readers of the view get.
_TEXTS = """
    SELECT u.skill_id, u.skill_data, u.source, b.wire_digest, b.content_digest, b.exec_digest
    FROM usable_skill AS u LEFT JOIN skill_base AS b ON b.skill_id = u.skill_id
"""


class ServedSnapshot:
    """One snapshot of what is served."""

    def __init__(self, connection: psycopg.Connection[Row], signer: Signer | None) -> None:
        self._connection = connection
        self._signer = signer

    def revocations(self) -> Revocations:
        """Return all revocations."""
        return Revocations(tuple(people.revocations(self._connection)))

    def revoked_skills(self, revocations: Revocations) -> list[str]:
        """Return the cached skills that are revoked."""
        from atom_saas_sync.store.postgresql.gate.serving import revoked_skills

        return revoked_skills(self._connection, revocations)

    def quarantined(self, skill_ids: Sequence[str]) -> dict[str, Quarantined]:
        """Return the quarantined ones of these skills."""
        return people.quarantined(self._connection, skill_ids)

    def served(self, skill_ids: Sequence[str] | None) -> Iterator[ServedSkill]:
        """Yield the cached rows of these skills, or all, in any order."""
        query, values = (_SERVED, ()) if skill_ids is None else (_SOME, (list(skill_ids),))
        # A few at a time: all texts together may be gigabytes.
        with self._connection.cursor("served") as cursor:
            cursor.itersize = _ROWS_AT_ONCE
            for row in cursor.execute(query, values, binary=True):
                yield self._skill(*row)

    def _skill(
        self,
        skill_id: str,
        text: str,
        base_text: str | None,
        wire: bytes | None,
        content: bytes | None,
        executable: bytes | None,
        version: str | None,
        admitted_at: datetime | None,
        admitted_by: str | None,
        signature: bytes | None,
        waiting: bool,
        quarantined: bool,
        stale: bool,
    ) -> ServedSkill:
        forged = False
        if self._signer is not None and content is not None and executable is not None:
            forged = self._signer.is_forged(signature, skill_id, version or "", content, executable)
        return ServedSkill(
            skill_id,
            text.encode(),
            None if base_text is None else base_text.encode(),
            wire,
            content,
            executable,
            version,
            time_text(admitted_at),
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
        """Yield all skills that readers get, in one snapshot, in any order."""
        with self._database.reading() as connection, connection.cursor("served_texts") as cursor:
            cursor.itersize = _ROWS_AT_ONCE
            for row in cursor.execute(_TEXTS, binary=True):
                yield ServedText(*row)
