"""The cache as a whole: its figures, and what a purge removes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct


class CacheStatistics(Struct, frozen=True):
    """How many entries there are, how old they are, and how they are used.

    `stale` entries were not confirmed for 24 hours; `expired` ones are what `cache purge` would remove if the
    marketplace can be reached. `reads` counts hit, miss and stale.
    """

    skills: int
    edited: int
    only_here: int
    stale: int
    expired: int
    oldest_confirmed_at: datetime | None
    newest_confirmed_at: datetime | None
    hits_of_entries: int
    categories: int
    expired_categories: int
    reads: Mapping[str, int]
    size_bytes: int
    marketplace_reached_at: datetime | None


class PurgePlan(Struct, frozen=True):
    """What a purge removes; `local` of the skills were edited here or existed only here, `protected` are spared.

    `local_ids` are the former's.
    """

    skills: tuple[str, ...]
    categories: tuple[str, ...]
    local: int
    protected: int
    local_ids: tuple[str, ...] = ()
