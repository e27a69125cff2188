"""What the C library does with freed memory, where large bodies are received."""

from __future__ import annotations

from functools import cache

LARGE = 1024 * 1024
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h


@cache
def return_large_blocks() -> None:
    """Return large blocks to the system as soon as they are freed, and let further threads share a heap, from now on.

    Otherwise the C library keeps up to 32 MiB for each thread that has received a body, and no thread uses what another
    has freed.
    """
    import ctypes  # takes milliseconds, which most commands need not spend

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE)
        mallopt(_M_TRIM_THRESHOLD, LARGE)
        mallopt(_M_ARENA_MAX, 1)
