"""What the C library does with freed memory, where several threads receive bodies."""

from __future__ import annotations

from functools import cache

_M_MMAP_THRESHOLD = -3
_LARGE = 1024 * 1024


@cache
def return_large_blocks() -> None:
    """Return large blocks to the system as soon as they are freed, from now on.

    Otherwise the C library keeps up to 32 MiB for each thread that has received a body. With a single thread that is
    faster and takes no more.
    """
    import ctypes  # takes milliseconds, which most commands need not spend

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
