"""Keep a run that adds much from filling the disk, which other programs need, too."""

from __future__ import annotations

from collections.abc import Callable

from atom_saas_sync.errors import DatabaseError

BYTES_REGARDLESS = 64 * 1024 * 1024
"""So much may be written with less free space: a small disk, or one that others fill, must not stop usual updates."""


class DiskRoom:
    """Counts what a run writes. `free_gb` returns the free space in GB, None if the disk is not of this machine."""

    def __init__(self, free_gb: Callable[[], float | None], least_gb: float) -> None:
        self._free_gb = free_gb
        self._least_gb = least_gb
        self._written = 0

    def take(self, size: int) -> None:
        """Count `size` bytes or more that are to be written. Raises DatabaseError if too little is free for them."""
        self._written += size
        if self._written <= BYTES_REGARDLESS:
            return
        free = self._free_gb()
        if free is not None and free < self._least_gb:
            raise DatabaseError(
                f"only {free:.1f} GB are free on the disk of the database, less than {self._least_gb:g} GB: "
                f"the sync has written {self._written / 1e6:,.0f} MB and stopped",
                hint="free some space, or lower ATOM_SYNC_MIN_FREE_DISK_GB; what was read before is kept",
            )
