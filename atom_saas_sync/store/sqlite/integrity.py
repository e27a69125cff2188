"""Compare the stored texts of the marketplace with their digests."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from datetime import datetime
from hashlib import sha256
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from atom_saas_sync.core.canonical import content_digest, decode_with_shape
from atom_saas_sync.store.names import TAMPERED
from atom_saas_sync.store.sqlite.clauses import after
from atom_saas_sync.store.sqlite.runs import get_fact, set_fact
from atom_saas_sync.store.stored_json import stored_list
from atom_saas_sync.times import format_time

if TYPE_CHECKING:
    from atom_saas_sync.core.signing import Signer  # `status` imports this module

_CHECKED_AT = "digests_checked_at"
_TEXTS = """
    SELECT CAST(b.skill_id AS TEXT), CAST(coalesce(b.data, c.skill_data) AS BLOB), CAST(b.wire_digest AS BLOB),
           CAST(b.content_digest AS BLOB), CAST(b.exec_digest AS BLOB), CAST(b.version AS TEXT),
           CAST(b.signature AS BLOB)
    FROM {rows} WHERE b.deleted_at IS NULL AND coalesce(b.data, c.skill_data) IS NOT NULL
"""
_ALL = _TEXTS.format(rows="skill_base AS b LEFT JOIN skill_cache AS c ON c.skill_id = b.skill_id")
_WRITTEN_SINCE = _TEXTS.format(rows="skill_cache AS c JOIN skill_base AS b ON b.skill_id = c.skill_id") + (
    f"AND {after('c.updated_at', '?1', or_at=True)}"
)
_TOUCHED = _ALL + "AND b.data IS NOT NULL"
_AMONG = _TEXTS.format(
    rows="json_each(?) AS wanted CROSS JOIN skill_base AS b ON b.skill_id = wanted.value "
    "LEFT JOIN skill_cache AS c ON c.skill_id = b.skill_id"
)


class _Row(NamedTuple):
    """The stored marketplace version of one skill."""

    skill_id: str
    text: bytes
    wire_digest: bytes
    content_digest: bytes
    exec_digest: bytes
    version: str
    signature: bytes | None

    def is_forged(self, signer: Signer | None) -> bool:
        return signer is not None and signer.is_forged(
            self.signature, self.skill_id, self.version, self.content_digest, self.exec_digest
        )

    def is_tampered(self, signer: Signer | None) -> bool:
        return not fits(self.text, self.content_digest) or self.is_forged(signer)

    def is_new_and_tampered(self, signer: Signer | None) -> bool:
        """Do the same for a recently written row: in rows written by runs, the digest of the bytes matches."""
        is_as_written = sha256(self.text).digest() == self.wire_digest
        return self.is_forged(signer) if is_as_written else self.is_tampered(signer)


def fits(text: bytes, digest: bytes) -> bool:
    """Tell whether a text matches this content digest."""
    decoded = decode_with_shape(text)
    return decoded is not None and content_digest(*decoded) == digest


def tampered(connection: sqlite3.Connection, signer: Signer | None) -> list[str]:
    """Return all skills whose marketplace text does not match its digest, or whose digest is forged."""
    return [row.skill_id for row in map(_Row._make, connection.execute(_ALL)) if row.is_tampered(signer)]


def tampered_since_last_check(connection: sqlite3.Connection, signer: Signer | None) -> list[str]:
    """Return the tampered ones among rows written since the last run, edited or deleted here, or found last time."""
    since = get_fact(connection, _CHECKED_AT)
    if since is None:
        return tampered(connection, signer)
    rows = chain(connection.execute(_WRITTEN_SINCE, (since,)), connection.execute(_TOUCHED))
    new = (row.skill_id for row in map(_Row._make, rows) if row.is_new_and_tampered(signer))
    return sorted({*new, *tampered_among(connection, _found(connection), signer)})


def tampered_among(connection: sqlite3.Connection, skill_ids: Iterable[str], signer: Signer | None) -> Iterator[str]:
    """Yield those of these skills that are tampered with."""
    for row in map(_Row._make, connection.execute(_AMONG, (json.dumps(list(skill_ids)),))):
        if row.is_tampered(signer):
            yield row.skill_id


def unsigned(connection: sqlite3.Connection, signer: Signer | None) -> list[str]:
    """Return the skills that are not signed with the key; empty without a key."""
    if signer is None:
        return []
    rows = connection.execute(
        "SELECT CAST(skill_id AS TEXT), CAST(signature AS BLOB) FROM skill_base WHERE deleted_at IS NULL"
    )
    return [skill_id for skill_id, signature in rows if not signer.has_signed(signature)]


def respelled(connection: sqlite3.Connection) -> list[str]:
    """Return the skills whose text is not byte for byte what the marketplace sent."""
    rows = map(_Row._make, connection.execute(_ALL))
    return [row.skill_id for row in rows if sha256(row.text).digest() != row.wire_digest]


def note_tampered(connection: sqlite3.Connection, skill_ids: Iterable[str], now: datetime) -> None:
    """Record the tampered skills that a run leaves unchanged."""
    set_fact(connection, TAMPERED, json.dumps(sorted(skill_ids)), now)
    set_fact(connection, _CHECKED_AT, format_time(now), now)


def distrust(connection: sqlite3.Connection, skill_ids: Iterable[str]) -> None:
    """Make the next walk read these skills again, even if their bytes and pages are unchanged."""
    ids = json.dumps(list(skill_ids))
    wanted = "skill_id IN (SELECT value FROM json_each(?))"
    for table in ("skill_base", "skill_offer"):
        connection.execute(f"UPDATE {table} SET wire_digest = x'' WHERE {wanted}", (ids,))  # noqa: S608 - constants
        connection.execute(
            f"UPDATE http_validator SET etag = NULL WHERE page IN (SELECT page FROM {table} WHERE {wanted})",  # noqa: S608 - constants
            (ids,),
        )


def _found(connection: sqlite3.Connection) -> list[str]:
    # What another program wrote there is ignored: the next complete check finds them again.
    return [each for each in stored_list(get_fact(connection, TAMPERED)) if isinstance(each, str)]
