"""Bodies that are invalid as bytes: not JSON, too large, bombs (the faults below the level of JSON)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from functools import lru_cache

import zstandard

_BLOCK = 1024 * 1024
_END = b'{"skills": [], "total": 0}'  # white space before JSON is allowed, so an unpacked bomb is valid


def not_json(value: str, body: bytes) -> bytes:
    """Return what a faulty proxy or program might send instead of the body."""
    bodies = {
        "html": b"<!doctype html><title>502 Bad Gateway</title><h1>Bad Gateway</h1>",
        "empty": b"",
        "cut": body[: len(body) // 2],
        "nan": b'{"skills": [], "page": NaN, "page_size": 1000, "total": Infinity, "total_pages": 1}',
        "bad_utf8": b'{"skills": [{"skill_id": "a", "name": "\xff\xfe\xc3"}], "total": 1}',
        "deep": b'{"skills": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    }
    return bodies[value]


def oversized(amount: int) -> Iterator[bytes]:
    """Yield a valid response of exactly `amount` bytes, most of it padding."""
    start, end = b'{"skills": [], "total": 0, "padding": "', b'"}'
    left = max(0, amount - len(start) - len(end))
    yield start
    while left > 0:
        yield b"x" * min(_BLOCK, left)
        left -= _BLOCK
    yield end


@lru_cache(maxsize=4)
def bomb(coding: str, amount: int) -> bytes:
    """Return a small body that decompresses to slightly more than `amount` bytes."""
    blocks, block = max(1, amount // _BLOCK), b" " * _BLOCK
    if coding == "zstd":
        packer = zstandard.ZstdCompressor(level=1).compressobj()
        return b"".join(packer.compress(block) for _ in range(blocks)) + packer.compress(_END) + packer.flush()
    # After a full flush, deflate starts over, so a compressed block can be repeated.
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = deflate.compress(block) + deflate.flush(zlib.Z_FULL_FLUSH)
    last = deflate.compress(_END) + deflate.flush()
    checksum = 0
    for _ in range(blocks):
        checksum = zlib.crc32(block, checksum)
    checksum = zlib.crc32(_END, checksum)
    size = (blocks * _BLOCK + len(_END)) & 0xFFFFFFFF
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + packed * blocks + last + struct.pack("<II", checksum, size)
