"""Compare the stored texts of the marketplace with their digests."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from hashlib import sha256
from typing import NamedTuple

import psycopg

from atom_saas_sync.core.canonical import content_digest, decode_with_shape
from atom_saas_sync.core.signing import Signer
from atom_saas_sync.store.names import TAMPERED
from atom_saas_sync.store.postgresql.facts import get_fact, set_fact
from atom_saas_sync.store.postgresql.rows import Row
from atom_saas_sync.store.stored_json import stored_list
from atom_saas_sync.times import format_time, parse_time

_CHECKED_AT = "digests_checked_at"
_ROWS_AT_ONCE = 500
_TEXTS = """
    SELECT b.skill_id, coalesce(b.data, c.skill_data), b.wire_digest, b.content_digest, b.exec_digest, b.version,
        b.signature
    FROM skill_base AS b LEFT JOIN skill_cache AS c ON c.skill_id = b.skill_id
    WHERE b.deleted_at IS NULL AND coalesce(b.data, c.skill_data) IS NOT NULL
"""
# One index after the other: with OR, all rows would be read.
_LATELY = f"""
    {_TEXTS} AND b.skill_id IN (
        SELECT skill_id FROM skill_cache WHERE updated_at >= %s
        UNION SELECT skill_id FROM skill_base WHERE data IS NOT NULL)
"""  # noqa: S608 - constants
_AMONG = f"{_TEXTS} AND b.skill_id = ANY(%s)"


class _Stored(NamedTuple):
    """The marketplace's version of one skill, as stored."""

    skill_id: str
    text: str
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
        return not fits(self.text.encode(), self.content_digest) or self.is_forged(signer)

    def is_new_and_tampered(self, signer: Signer | None) -> bool:
        """Tell the same for a recently written row: a row written by a run has the digest of its exact bytes."""
        is_as_written = sha256(self.text.encode()).digest() == self.wire_digest
        return self.is_forged(signer) if is_as_written else self.is_tampered(signer)


def fits(text: bytes, digest: bytes) -> bool:
    """Tell whether a text matches this content digest."""
    decoded = decode_with_shape(text)
    return decoded is not None and content_digest(*decoded) == digest


def tampered(connection: psycopg.Connection[Row], signer: Signer | None) -> list[str]:
    """Return all skills whose marketplace text does not match its digest, or whose digest is forged."""
    return [each.skill_id for each in _stored(connection, _TEXTS) if each.is_tampered(signer)]


def tampered_since_last_check(connection: psycopg.Connection[Row], signer: Signer | None) -> list[str]:
    """Return the tampered ones among rows written since the last run, edited or deleted here, or found last time."""
    since = parse_time(get_fact(connection, _CHECKED_AT))
    if since is None:
        return tampered(connection, signer)
    new = {each.skill_id for each in _stored(connection, _LATELY, since) if each.is_new_and_tampered(signer)}
    return sorted({*new, *tampered_among(connection, _found(connection), signer)})


def tampered_among(
    connection: psycopg.Connection[Row], skill_ids: Iterable[str], signer: Signer | None
) -> Iterator[str]:
    """Yield those of these skills that are tampered with."""
    for each in _stored(connection, _AMONG, list(skill_ids)):
        if each.is_tampered(signer):
            yield each.skill_id


def unsigned(connection: psycopg.Connection[Row], signer: Signer | None) -> list[str]:
    """Return the skills that are not signed with the key; empty without a key."""
    if signer is None:
        return []
    rows = connection.execute("SELECT skill_id, signature FROM skill_base WHERE deleted_at IS NULL")
    return [skill_id for skill_id, signature in rows if not signer.has_signed(signature)]


def respelled(connection: psycopg.Connection[Row]) -> list[str]:
    """Return the skills whose text is not byte for byte what the marketplace sent."""
    return [
        each.skill_id for each in _stored(connection, _TEXTS) if sha256(each.text.encode()).digest() != each.wire_digest
    ]


def note_tampered(connection: psycopg.Connection[Row], skill_ids: Iterable[str], now: datetime) -> None:
    """Record the tampered skills that a run leaves unchanged."""
    set_fact(connection, TAMPERED, json.dumps(sorted(skill_ids)), now)
    set_fact(connection, _CHECKED_AT, format_time(now), now)


def distrust(connection: psycopg.Connection[Row], skill_ids: Iterable[str]) -> None:
    """Make the next walk read these skills again, even if their bytes and pages are unchanged."""
    ids = list(skill_ids)
    if not ids:
        return
    for table in ("skill_base", "skill_offer"):
        connection.execute(f"UPDATE {table} SET wire_digest = '' WHERE skill_id = ANY(%s)", (ids,))  # noqa: S608 - constants
        pages = f"SELECT page FROM {table} WHERE skill_id = ANY(%s)"  # noqa: S608 - constants
        connection.execute(f"UPDATE http_validator SET etag = NULL WHERE page IN ({pages})", (ids,))  # noqa: S608 - constants


def _stored(connection: psycopg.Connection[Row], query: str, *values: object) -> Iterator[_Stored]:
    """Yield the rows a few at a time: all texts together may be gigabytes."""
    with connection.cursor("stored_texts") as cursor:
        cursor.itersize = _ROWS_AT_ONCE
        for row in cursor.execute(query, values, binary=True):
            yield _Stored(*row)


def _found(connection: psycopg.Connection[Row]) -> list[str]:
    # What another program wrote there is ignored: the next complete check finds them again.
    return [each for each in stored_list(get_fact(connection, TAMPERED)) if isinstance(each, str)]
