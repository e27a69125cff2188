"""Reading a body: decompressed here, so that a small answer can't grow without limit in memory."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator

import httpx

from atom_saas_sync.errors import BadResponse

_CHUNK = 256 * 1024
_LARGEST_WINDOW = 8 * 1024 * 1024


class _Stream(io.RawIOBase):
    """The undecoded body of a response as a file."""

    def __init__(self, response: httpx.Response) -> None:
        self._chunks: Iterator[bytes] = response.iter_raw()
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        while not self._rest:
            try:
                self._rest = next(self._chunks)
            except StopIteration:
                return 0
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def read_body(response: httpx.Response, *, limit: int, what: str) -> bytes:
    """Return the decompressed body.

    Raises BadResponse if it is larger than `limit` bytes, or not what its Content-Encoding says.
    """
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding in {"", "identity"}:
        return _within(response.iter_raw(), limit, what)
    if encoding == "gzip":
        return _read_gzip(response, limit, what)
    if encoding == "zstd":
        return _read_zstd(response, limit, what)
    raise BadResponse(f"{what}: unknown Content-Encoding {encoding[:40]!r}")


def _read_gzip(response: httpx.Response, limit: int, what: str) -> bytes:
    reader = gzip.GzipFile(fileobj=io.BufferedReader(_Stream(response), _CHUNK))
    try:
        return _within(iter(lambda: reader.read(_CHUNK), b""), limit, what)
    except (OSError, EOFError, zlib.error) as error:
        raise BadResponse(f"{what}: the body is no valid gzip: {error}") from error


def _read_zstd(response: httpx.Response, limit: int, what: str) -> bytes:
    import zstandard

    compressed = _within(response.iter_raw(), limit, what)
    try:
        size = zstandard.frame_content_size(compressed)
        decompressor = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
        if 0 <= size <= limit:  # as a rule it is declared; then it is the size of the only buffer
            return decompressor.decompress(compressed)
        reader = decompressor.stream_reader(compressed)
        return _within(iter(lambda: reader.read(_CHUNK), b""), limit, what)
    except zstandard.ZstdError as error:
        raise BadResponse(f"{what}: the body is no valid zstd: {error}") from error


def _within(chunks: Iterator[bytes], limit: int, what: str) -> bytes:
    parts, size = [], 0
    for chunk in chunks:
        parts.append(chunk)
        size += len(chunk)
        if size > limit:
            raise BadResponse(f"{what}: the body is larger than {limit // (1024 * 1024)} MiB")
    return b"".join(parts)
