"""Compressed texts of skills in the history, for both engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import msgspec


class _Versioned(msgspec.Struct):
    version: Any = None


_decode_version = msgspec.json.Decoder(_Versioned).decode


def pack(text: bytes) -> bytes:
    """Return a skill's JSON text, compressed for the history."""
    return _compressor()(text)


def unpack(data: bytes) -> str:
    """Return the uncompressed text. Raises ValueError if `pack` did not write it."""
    import zstandard

    try:
        return zstandard.decompress(data).decode()
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error


def version_of(text: str | bytes, fields: Mapping[str, Any] | None = None) -> str | None:
    """Return the `version` in a skill's JSON text; `fields` is the decoded text, if the caller has it."""
    try:
        version = _decode_version(text).version if fields is None else fields.get("version")
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return version if isinstance(version, str) else None


@cache
def _compressor() -> Callable[[bytes], bytes]:
    """Return the compressor, shared because creating one costs as much as twenty uses. Not thread-safe."""
    import zstandard  # not needed by a sync without changes

    # The lowest level: 20% faster than the default, and a skill's text gets 2% larger.
    return zstandard.ZstdCompressor(level=1).compress
