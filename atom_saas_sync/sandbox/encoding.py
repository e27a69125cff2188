"""Response bodies: JSON, its ETag and its compressed forms, each created once (contract, section 3)."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from typing import Any

import zstandard

_WORTH_COMPRESSING = 256


def to_json(document: Any) -> bytes:  # noqa: ANN401 - whatever JSON can hold
    """Return compact UTF-8 JSON, with all non-ASCII text escaped if UTF-8 cannot encode it (lone surrogates)."""
    try:
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(document, separators=(",", ":")).encode()


class Encoded:
    """A body in all its forms. Of a large one only the compressed forms are kept, so 100,000 skills fit in memory."""

    def __init__(self, raw: bytes) -> None:
        self.size = len(raw)
        self.tag = hashlib.sha256(raw).hexdigest()[:32]
        self._raw = raw if self.size < _WORTH_COMPRESSING else b""
        self._zstd = _pack(raw) if not self._raw else b""
        self._gzip = b""

    def body(self, coding: str) -> bytes:
        """Return the bytes for `identity`, `gzip` or `zstd`."""
        if coding == "zstd":
            return self._zstd
        if coding == "gzip":
            # Level 1, so that benchmarks do not wait for the sandbox.
            self._gzip = self._gzip or gzip.compress(self._identity(), 1, mtime=0)
            return self._gzip
        return self._identity()

    def _identity(self) -> bytes:
        return zstandard.decompress(self._zstd) if self._zstd else self._raw

    def choose(self, accept_encoding: str) -> str:
        """Return the coding that the client prefers, or the better one of equals; small bodies stay uncompressed."""
        if self.size < _WORTH_COMPRESSING:
            return "identity"
        likes = parse_qualities(accept_encoding)
        rest = likes.get("*", 0.0)
        best, coding = likes.get("identity", 1e-9), "identity"
        for name in ("gzip", "zstd"):
            quality = likes.get(name, rest)
            if quality > 0 and quality >= best:
                best, coding = quality, name
        return coding

    def etag(self, coding: str) -> str:
        """Return the strong ETag of a form: different bytes need different tags (RFC 9110, 8.8.1)."""
        return f'"{self.tag}"' if coding == "identity" else f'"{self.tag}-{coding}"'

    def matches(self, if_none_match: str) -> bool:
        """Tell whether any form of this content is among the client's validators."""
        tags = [tag.strip().removeprefix("W/").strip('"') for tag in if_none_match.split(",")]
        return "*" in tags or any(tag.split("-")[0] == self.tag for tag in tags)


def _pack(raw: bytes) -> bytes:
    """Return the zstd form, compressed in pieces.

    In one call the buffer is as large as the input and fragments the heap, by 500 MB for 100,000 skills.
    """
    packer = zstandard.ZstdCompressor(level=3).compressobj(size=len(raw))
    return b"".join((packer.compress(raw), packer.flush()))


class EncodedPages:
    """Cache of encoded bodies, dropped when their content changes. The caller holds a lock."""

    def __init__(self) -> None:
        self._made: dict[tuple[Any, ...], Encoded] = {}

    def once(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Encoded:
        """Return the body for this key, created if missing. For pages: ("page", number, size, query, category)."""
        if key not in self._made:
            self._made[key] = Encoded(to_json(make()))
        return self._made[key]

    def forget(self, index: int) -> None:
        """Drop the pages that may contain the skill at this index of the list."""
        for key in list(self._made):
            if key[0] == "page" and (key[3:] != ("", "") or index // key[2] == key[1] - 1):
                del self._made[key]

    def clear(self) -> None:
        """Drop all."""
        self._made.clear()


def parse_qualities(header: str) -> dict[str, float]:
    """Return the quality of each coding in an Accept-Encoding header; 0 for what cannot be parsed."""
    likes = {}
    for part in header.split(","):
        name, _, parameter = part.strip().partition(";")
        key, _, value = parameter.strip().partition("=")
        try:
            likes[name.strip().lower()] = float(value) if key.strip().lower() == "q" else 1.0
        except ValueError:
            likes[name.strip().lower()] = 0.0
    return likes
