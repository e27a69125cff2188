"""Reading a body: decompressed here, within a limit, so that a small response cannot fill the memory."""

from __future__ import annotations

import codecs
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Protocol

import httpx

from atom_saas_sync.errors import BadResponse, NoRoom, TooLarge

# A chunk of this size decompresses to 4 MiB at most.
_GZIP_PIECE, _ZSTD_PIECE = 4 * 1024, 128
_GZIP_WRAPPER = 31
_ZSTD_MAGIC = (b"\x28\xb5\x2f\xfd", *(bytes([kind]) + b"\x2a\x4d\x18" for kind in range(0x50, 0x60)))  # or skippable
_LARGEST_WINDOW = 8 * 1024 * 1024
_GZIP = frozenset({"gzip", "x-gzip"})
_WITHOUT_BODY = frozenset({204, 205, 304})
_COURTESY_BYTES = 64 * 1024


class _Decoder(Protocol):
    """What zlib and zstandard have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: memoryview, /) -> bytes: ...


class _Limit:
    """How large a body may become: `limit` bytes, and as large as `admit` finds room for, which raises NoRoom."""

    def __init__(self, limit: int, what: str, admit: Callable[[int], bool] | None) -> None:
        self._limit = limit
        self._what = what
        self._admit = admit

    def gathered(self, chunks: Iterable[bytes], beside: int = 0) -> bytes:
        """Join the chunks, while this many other bytes are in memory."""
        parts, size = [], 0
        for chunk in chunks:
            parts.append(chunk)
            size += len(chunk)
            self.check(size, beside)
        return b"".join(parts)

    def check(self, size: int, beside: int) -> None:
        if size > self._limit:
            raise TooLarge(f"{self._what}: the body is larger than {self._limit // (1024 * 1024)} MiB")
        if self._admit is not None and not self._admit(size + beside):
            raise NoRoom(f"{self._what}: no room for the body beside others")


def read_body(response: httpx.Response, *, limit: int, what: str, admit: Callable[[int], bool] | None = None) -> bytes:
    """Return the decompressed body without a byte order mark.

    `admit` is asked for each larger size whether there is room for it. Raises NoRoom if there is not, and BadResponse
    if the body is larger than `limit` bytes, or does not match its Content-Encoding.
    """
    within = _Limit(limit, what, admit)
    body = within.gathered(response.iter_raw())
    if not body or response.status_code in _WITHOUT_BODY:
        return b""
    named = [name.strip().lower() for name in response.headers.get("content-encoding", "").split(",")]
    coding = ", ".join(name for name in named if name not in {"", "identity"})
    if coding in _GZIP:
        body = _read_gzip(body, within, what)
    elif coding == "zstd":
        body = _read_zstd(body, within, limit, what)
    elif coding:
        raise BadResponse(f"{what}: unknown Content-Encoding {coding[:40]!r}")
    return body.removeprefix(codecs.BOM_UTF8)


def read_courtesy(response: httpx.Response) -> bytes:
    """Return the body of a response whose status alone matters; empty if it is large or cannot be decoded."""
    try:
        return read_body(response, limit=_COURTESY_BYTES, what="")
    except BadResponse:
        return b""


def _read_gzip(compressed: bytes, within: _Limit, what: str) -> bytes:
    frames = _frames(compressed, lambda: zlib.decompressobj(_GZIP_WRAPPER), _GZIP_PIECE, b"\x1f\x8b")
    try:
        return within.gathered(frames, len(compressed))
    except (EOFError, zlib.error) as error:
        raise BadResponse(f"{what}: the body is not valid gzip: {error}") from error


def _read_zstd(compressed: bytes, within: _Limit, limit: int, what: str) -> bytes:
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
    try:
        if 0 < (size := zstandard.frame_content_size(compressed)) <= limit:
            within.check(size, len(compressed))
            # Usually there is one frame with a declared size, which is then the size of the only buffer.
            with suppress(zstandard.ZstdError):
                return decompressor.decompress(compressed, allow_extra_data=False)
        return within.gathered(
            _frames(compressed, decompressor.decompressobj, _ZSTD_PIECE, *_ZSTD_MAGIC), len(compressed)
        )
    except (EOFError, zstandard.ZstdError) as error:
        raise BadResponse(f"{what}: the body is not valid zstd: {error}") from error


def _frames(compressed: bytes, start: Callable[[], _Decoder], piece_size: int, *magic: bytes) -> Iterator[bytes]:
    """Yield the content of each frame; trailing bytes that do not start a frame are padding. Raises EOFError."""
    view, position = memoryview(compressed), 0
    while position == 0 or compressed.startswith(magic, position):
        decoder = start()
        while not decoder.eof:
            piece = view[position : position + piece_size]
            if not piece:
                raise EOFError("it is truncated")
            yield decoder.decompress(piece)
            position += len(piece)
        position -= len(decoder.unused_data)
