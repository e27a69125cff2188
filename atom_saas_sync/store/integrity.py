"""Whether what counts as the marketplace's is what the marketplace sent: stored texts compared with their digests."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from datetime import datetime
from hashlib import sha256

from atom_saas_sync.core.canonical import content_digest, decode_object
from atom_saas_sync.store.runs import get_fact, set_fact
from atom_saas_sync.times import format_time

TAMPERED = "tampered"
"""The fact with the ids of what the last check found, as a JSON list."""

_CHECKED_AT = "digests_checked_at"
_TEXTS = """
    SELECT b.skill_id, CAST(coalesce(b.data, c.skill_data) AS BLOB), b.wire_digest, b.content_digest
    FROM {rows} WHERE b.deleted_at IS NULL AND coalesce(b.data, c.skill_data) IS NOT NULL
"""
_ALL = _TEXTS.format(rows="skill_base AS b LEFT JOIN skill_cache AS c ON c.skill_id = b.skill_id")
_WRITTEN_SINCE = _TEXTS.format(rows="skill_cache AS c JOIN skill_base AS b ON b.skill_id = c.skill_id") + (
    "AND c.updated_at >= ?"
)
_AMONG = _TEXTS.format(
    rows="json_each(?) AS wanted CROSS JOIN skill_base AS b ON b.skill_id = wanted.value "
    "LEFT JOIN skill_cache AS c ON c.skill_id = b.skill_id"
)


def fits(text: bytes, digest: bytes) -> bool:
    """Tell whether a text is that of the content digest."""
    fields = decode_object(text)
    return fields is not None and content_digest(fields) == digest


def tampered(connection: sqlite3.Connection) -> list[str]:
    """Return the skills whose marketplace text does not have its digest, of all."""
    return [skill_id for skill_id, text, _, digest in connection.execute(_ALL) if not fits(text, digest)]


def tampered_since_last_check(connection: sqlite3.Connection) -> list[str]:
    """Return those among what was written since the last run, and among what was found then."""
    since = get_fact(connection, _CHECKED_AT)
    if since is None:
        return tampered(connection)
    # What runs wrote in that second has its bytes' own digest: no need to parse it.
    new = (
        skill_id
        for skill_id, text, wire, digest in connection.execute(_WRITTEN_SINCE, (since,))
        if sha256(text).digest() != wire and not fits(text, digest)
    )
    return sorted({*new, *tampered_among(connection, _found(connection))})


def tampered_among(connection: sqlite3.Connection, skill_ids: Iterable[str]) -> Iterator[str]:
    """Yield those of these skills that are tampered with."""
    for skill_id, text, _, digest in connection.execute(_AMONG, (json.dumps(list(skill_ids)),)):
        if not fits(text, digest):
            yield skill_id


def note_tampered(connection: sqlite3.Connection, skill_ids: Iterable[str], now: datetime) -> None:
    """Remember what a run leaves as it found it."""
    set_fact(connection, TAMPERED, json.dumps(sorted(skill_ids)), now)
    set_fact(connection, _CHECKED_AT, format_time(now), now)


def distrust(connection: sqlite3.Connection, skill_ids: Iterable[str]) -> None:
    """See to it that the next walk reads these skills anew, whatever their bytes and pages were last time."""
    ids = json.dumps(list(skill_ids))
    wanted = "skill_id IN (SELECT value FROM json_each(?))"
    connection.execute(f"UPDATE skill_base SET wire_digest = x'' WHERE {wanted}", (ids,))  # noqa: S608 - constants
    connection.execute(
        f"UPDATE http_validator SET etag = NULL WHERE page IN (SELECT page FROM skill_base WHERE {wanted})",  # noqa: S608 - constants
        (ids,),
    )


def _found(connection: sqlite3.Connection) -> list[str]:
    try:
        found = json.loads(get_fact(connection, TAMPERED) or "[]")
    except ValueError:
        return []  # another program wrote there; the next complete check finds them again
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []
