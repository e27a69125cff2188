"""The stored state of skills: cached row, base and open conflict."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import psycopg

from atom_saas_sync.core.signing import Signer
from atom_saas_sync.model import Base, OpenConflict, SkillState
from atom_saas_sync.store.postgresql.resolutions import NO_VERSION, OPEN
from atom_saas_sync.store.postgresql.rows import Row
from atom_saas_sync.times import format_exact_time, format_time

# Keeps other programs from changing the planned rows; our own writers are serialised anyway.
_LOCK = "SELECT FROM skill_cache WHERE skill_id = ANY(%b) ORDER BY skill_id FOR NO KEY UPDATE"
_KNOWN = f"""
    SELECT wanted.skill_id, c.skill_data, c.updated_at, b.wire_digest, b.content_digest, b.exec_digest, b.data, b.page,
           b.deleted_at, b.version, w.id AS waiting_id, nullif(w.remote_data, '{NO_VERSION}') AS remote_data,
           w.undone_at, b.signature
    FROM unnest(%b::text[]) AS wanted (skill_id)
    LEFT JOIN skill_cache AS c ON c.skill_id = wanted.skill_id
    LEFT JOIN skill_base AS b ON b.skill_id = wanted.skill_id
    LEFT JOIN LATERAL (
        SELECT * FROM conflict_log WHERE skill_id = wanted.skill_id AND {OPEN} ORDER BY id DESC LIMIT 1
    ) AS w ON true
    WHERE c.id IS NOT NULL OR b.skill_id IS NOT NULL OR w.id IS NOT NULL
"""  # noqa: S608 - constants


def read_states(
    connection: psycopg.Connection[Row], skill_ids: Sequence[str], *, write: bool, signer: Signer | None
) -> dict[str, SkillState]:
    """Return the stored state of these skills, without unknown ones.

    With `write`, other programs cannot change their texts until the transaction ends.
    """
    ids = list(dict.fromkeys(skill_ids))
    if not ids:
        return {}
    if write:
        connection.execute(_LOCK, (ids,))
    return {row["skill_id"]: _known(row, signer) for row in connection.execute(_KNOWN, (ids,))}


def _known(row: Row, signer: Signer | None) -> SkillState:
    skill_id, text, updated_at, *of_base, waiting_id, remote_text, undone_at, signature = row
    wire_digest, content_digest, exec_digest, data, page, deleted_at, version = of_base
    base = None
    if wire_digest is not None:
        forged = signer is not None and signer.is_forged(signature, skill_id, version, content_digest, exec_digest)
        base = Base(wire_digest, content_digest, exec_digest, data, page, deleted_at is not None, version, forged)
    waiting = None
    if waiting_id is not None:
        waiting = OpenConflict(waiting_id, remote_text, reopened=undone_at is not None)
    return SkillState(skill_id, text, _text(updated_at), base, waiting)


def _text(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return format_exact_time(moment) if moment.microsecond else format_time(moment)
