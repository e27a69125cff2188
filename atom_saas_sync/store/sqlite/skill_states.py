"""The stored state of skills: cached row, base and open conflict."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from atom_saas_sync.core.signing import Signer
from atom_saas_sync.model import Base, OpenConflict, SkillState
from atom_saas_sync.store.sqlite import resolutions

_REPLACEMENT = "\ufffd"
"""The replacement for bytes that are not UTF-8."""

_KNOWN = f"""
    SELECT wanted.value AS skill_id, CAST(c.skill_data AS TEXT) AS skill_data, typeof(c.skill_data) AS stored_as,
           c.updated_at, CAST(b.wire_digest AS BLOB) AS wire_digest, CAST(b.content_digest AS BLOB) AS content_digest,
           CAST(b.exec_digest AS BLOB) AS exec_digest, CAST(b.data AS TEXT) AS data, b.page,
           b.deleted_at, CAST(b.version AS TEXT) AS version, w.id AS waiting_id,
           nullif(CAST(w.remote_data AS TEXT), '{{}}') AS remote_data, w.undone_at,
           CAST(b.signature AS BLOB) AS signature
    FROM json_each(?) AS wanted
    LEFT JOIN skill_cache AS c ON c.skill_id = wanted.value
    LEFT JOIN skill_base AS b ON b.skill_id = wanted.value
    LEFT JOIN conflict_log AS w ON w.id = {resolutions.NEWEST_OPEN.format(skill_id="wanted.value")}
    WHERE c.id IS NOT NULL OR b.skill_id IS NOT NULL OR w.id IS NOT NULL
"""  # noqa: S608 - constants


def read_states(
    connection: sqlite3.Connection, skill_ids: Sequence[str], *, write: bool, signer: Signer | None
) -> dict[str, SkillState]:
    """Return the stored state of these skills; skills without any are absent.

    With `write`, texts that another program stored in another encoding are converted to UTF-8.
    """
    rows = connection.execute(_KNOWN, (json.dumps(skill_ids),)).fetchall()
    if write:
        for row in rows:
            if row["stored_as"] == "blob" or _REPLACEMENT in (row["skill_data"] or ""):
                _store_as_text(connection, row["skill_id"], row["skill_data"])
    return {row["skill_id"]: _known(row, signer) for row in rows}


def _store_as_text(connection: sqlite3.Connection, skill_id: str, text: str) -> None:
    """Convert what another program wrote as bytes or in another encoding to UTF-8 text.

    It stays that program's edit. The triggers handle it, because they know how the bytes were indexed.
    """
    connection.execute("DELETE FROM bulk_write")
    connection.execute(
        "UPDATE skill_cache SET skill_data = ?1 WHERE skill_id = ?2 AND skill_data IS NOT ?1", (text, skill_id)
    )
    connection.execute(
        "UPDATE skill_base SET data = CAST(data AS TEXT) WHERE skill_id = ? AND typeof(data) = 'blob'", (skill_id,)
    )
    connection.execute("INSERT INTO bulk_write (process) VALUES (1)")


def _known(row: sqlite3.Row, signer: Signer | None) -> SkillState:
    skill_id, text, _, updated_at, *of_base, waiting_id, remote_text, undone_at, signature = row
    wire_digest, content_digest, exec_digest, data, page, deleted_at, version = of_base
    base = None
    if wire_digest is not None:
        forged = signer is not None and signer.is_forged(signature, skill_id, version, content_digest, exec_digest)
        base = Base(wire_digest, content_digest, exec_digest, data, page, deleted_at is not None, version, forged)
    waiting = None
    if waiting_id is not None:
        waiting = OpenConflict(waiting_id, remote_text, reopened=undone_at is not None)
    return SkillState(skill_id, text, updated_at, base, waiting)
