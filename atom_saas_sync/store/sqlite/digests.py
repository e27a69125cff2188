"""SQL functions for the digests of stored versions, with which migrations recompute digests of an older form."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import msgspec

from atom_saas_sync.core.canonical import (
    VOLATILE_FIELDS,
    AmbiguousError,
    content_digest,
    decode_object,
    exec_digest,
    json_text,
    one_meaning,
    version_key,
)

_ZSTD = b"\x28\xb5\x2f\xfd"
_encode_until_0007 = msgspec.json.Encoder(order="deterministic").encode


def _content_until_0007(fields: Mapping[str, Any]) -> bytes:
    return sha256(_encode_until_0007({name: fields[name] for name in fields.keys() - VOLATILE_FIELDS})).digest()


def _exec_until_0007(fields: Mapping[str, Any]) -> bytes:
    names = ("code", "command", "local_files", "python_packages", "npm_packages", "parameters", "env_vars")
    return sha256(_encode_until_0007([fields.get(name) or None for name in names])).digest()


_KINDS = {
    "content": content_digest,
    "exec": exec_digest,
    "content until 0007": _content_until_0007,
    "exec until 0007": _exec_until_0007,
}


def register(connection: sqlite3.Connection) -> None:
    """Register the functions that migrations need; they take texts as blobs, compressed or not."""
    connection.create_function("atom_sync_digest", 2, _digest, deterministic=True)
    connection.create_function("atom_sync_respelled", 1, _respelled, deterministic=True)
    connection.create_function("atom_sync_version", 1, _version, deterministic=True)
    connection.create_function("atom_sync_bytes", 1, lambda text: text and bytes.fromhex(text), deterministic=True)


def recompute(suffix: str = "") -> tuple[str, ...]:
    """Return the statements that recompute all stored digests, except those of unreadable texts."""
    base = "CAST(coalesce(data, (SELECT skill_data FROM skill_cache AS c WHERE c.skill_id = t.skill_id)) AS BLOB)"
    return tuple(
        f"""
        UPDATE {table} AS t SET
            content_digest = coalesce(atom_sync_digest('content{suffix}', {text}), content_digest),
            exec_digest = coalesce(atom_sync_digest('exec{suffix}', {text}), exec_digest)
        """  # noqa: S608 - built from constants
        for table, text in (("skill_base", base), ("skill_version", "data"))
    )


def respell() -> tuple[str, ...]:
    """Return the statements that re-encode texts that SQL readers could interpret differently.

    The full-text index is not affected: it contains the decoded values.
    """
    places = (("skill_cache", "skill_data"), ("skill_base", "data"), ("conflict_log", "remote_data"))
    return (
        "INSERT INTO bulk_write (process) VALUES (1)",
        *(
            f"UPDATE {table} SET {column} = coalesce(atom_sync_respelled(CAST({column} AS BLOB)), {column}) "  # noqa: S608
            f"WHERE atom_sync_respelled(CAST({column} AS BLOB)) IS NOT NULL"
            for table, column in places
        ),
        "DELETE FROM bulk_write",
    )


def _respelled(data: bytes | None) -> str | None:
    """Return our own encoding of a skill with duplicate or escaped keys; None for any other."""
    fields = _fields(data)
    if data is None or fields is None:
        return None
    try:
        text = one_meaning(data, fields)
    except AmbiguousError:
        text = json_text(fields)
    return None if text.encode() == data else text


def _digest(kind: str, data: bytes | None) -> bytes | None:
    fields = _fields(data)
    return None if fields is None else _KINDS[kind](fields)


def _version(data: bytes | None) -> str:
    """Return the normalized version number."""
    return version_key(_fields(data) or {})


def _fields(data: bytes | None) -> dict[str, Any] | None:
    if data is None:
        return None
    try:
        return decode_object(_decompressed(data) if data.startswith(_ZSTD) else data)
    except ValueError:
        return None


def _decompressed(data: bytes) -> bytes:
    import zstandard

    try:
        return zstandard.decompress(data)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
